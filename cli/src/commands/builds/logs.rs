//! `kiln builds logs`.

use std::collections::BTreeMap;
use std::io::{BufWriter, Write};
use std::process::ExitCode;

use anyhow::{Context, Result};
use kiln::records::{self, BuildRecord, StepRecord};
use kiln_store::{BuildLog, Builds, LogRecord};

use crate::arguments::builds::LogsArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress::{Lines, clean_text};

pub(crate) fn run(
    arguments: &LogsArguments,
    builds: &Builds,
    printer: &Printer,
) -> Result<ExitCode> {
    let row = records::find(builds, &arguments.build)?;
    let record = BuildRecord::of(&row)?;
    let step = arguments.step.as_deref().map(|text| record.step(text)).transpose()?;
    let log = builds.read_log(&row.id)?;
    let mut out = BufWriter::with_capacity(64 << 10, printer.stdout());
    let written = write(log, &record, step, arguments.raw, &mut out).and_then(|()| out.flush());
    written.context("print the log")?;
    Ok(ExitCode::SUCCESS)
}

fn write(
    log: Option<BuildLog>,
    record: &BuildRecord,
    step: Option<&StepRecord>,
    is_raw: bool,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    let wanted = |printed: &LogRecord| step.is_none_or(|step| step.number == printed.step);
    let log = log.into_iter().flatten().filter(wanted);
    if is_raw {
        for printed in log {
            out.write_all(&printed.bytes)?;
        }
        return Ok(());
    }
    let mut plain =
        Plain { record, is_alone: step.is_some(), lines: BTreeMap::new(), last: 0, out };
    for printed in log {
        plain.show(&printed)?;
    }
    plain.end()
}

/// A printer of lines in the format of plain progress.
struct Plain<'a> {
    record: &'a BuildRecord,
    /// `true` for a single step, whose number is omitted.
    is_alone: bool,
    /// The incomplete lines of steps, and the times of their latest bytes in milliseconds.
    lines: BTreeMap<u32, (Lines, u32)>,
    /// The number of the step that printed the last line.
    last: u32,
    out: &'a mut dyn Write,
}

impl Plain<'_> {
    fn show(&mut self, printed: &LogRecord) -> std::io::Result<()> {
        let (lines, at) = self.lines.entry(printed.step).or_default();
        *at = printed.at;
        for line in lines.push(&printed.bytes) {
            self.line(printed.step, printed.at, &line)?;
        }
        Ok(())
    }

    fn line(&mut self, number: u32, at: u32, line: &str) -> std::io::Result<()> {
        if self.is_alone {
            return writeln!(self.out, "{line}");
        }
        let step = self.record.steps.iter().find(|step| step.number == number);
        if self.last != number {
            if self.last != 0 {
                writeln!(self.out)?;
            }
            self.last = number;
            let name = step.map_or("", |step| &step.name).replace('\n', " ");
            writeln!(self.out, "#{number} {}", clean_text(&name))?;
        }
        let begun = step.and_then(|step| step.started_ms).unwrap_or_default();
        let age = u64::from(at).saturating_sub(begun);
        writeln!(self.out, "#{number} {}.{:03} {line}", age / 1000, age % 1000)
    }

    /// Prints the remaining incomplete lines and the errors of failed steps.
    fn end(mut self) -> std::io::Result<()> {
        for (number, (mut lines, at)) in std::mem::take(&mut self.lines) {
            if let Some(line) = lines.finish() {
                self.line(number, at, &line)?;
            }
        }
        let failed = self.record.steps.iter().filter(|_| !self.is_alone);
        for step in failed.filter(|step| step.number > 0) {
            if let Some(error) = &step.error {
                let error = clean_text(&error.replace('\n', " "));
                writeln!(self.out, "#{} ERROR: {error}", step.number)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_of_plain_progress() {
        let step = |number, name: &str, started_ms| StepRecord {
            number,
            name: name.to_owned(),
            started_ms: Some(started_ms),
            ..StepRecord::default()
        };
        let steps = vec![step(1, "RUN a", 100), step(2, "RUN\x1b[2J b", 0)];
        let mut record = BuildRecord { steps, ..BuildRecord::default() };
        record.steps[1].error = Some("exit code: 1".to_owned());
        let mut out = Vec::new();
        let mut plain = Plain {
            record: &record,
            is_alone: false,
            lines: BTreeMap::new(),
            last: 0,
            out: &mut out,
        };
        for (step, at, text) in [(1, 150, "one\ntw"), (2, 1200, "b\x1b[H\n"), (1, 300, "o")] {
            let bytes = text.as_bytes().to_vec();
            plain.show(&LogRecord { step, at, is_stderr: false, bytes }).unwrap();
        }
        plain.end().unwrap();
        let shown = String::from_utf8(out).unwrap();
        let expected = "#1 RUN a\n#1 0.050 one\n\n#2 RUN b\n#2 1.200 b\n\n#1 RUN a\n#1 0.200 two\n\
                        #2 ERROR: exit code: 1\n";
        assert_eq!(shown, expected);
    }
}
