//! The report of a failed build, with the relevant lines of the Dockerfile.

use kiln::build::Dockerfile;
use kiln::build::Failure;
use kiln::redact;
use kiln_solver::{SolveError, StepError};

use super::text::{clean, clean_text};
use crate::rendering::hints;
use crate::rendering::printer::Printer;
use crate::rootless;

/// The most lines of a failed step's output in the report.
const LOG_LINES: usize = 20;
/// The number of lines of the Dockerfile before and after the failed ones.
const MARGIN: usize = 2;

/// Prints a failure. Returns `true` if the failed step printed more than the report shows.
pub(crate) fn failure(
    printer: &Printer,
    failure: &Failure,
    dockerfile: Option<&Dockerfile>,
) -> bool {
    match (failure, dockerfile) {
        (Failure::Dockerfile(errors), Some(dockerfile)) => {
            let source = String::from_utf8_lossy(&dockerfile.text);
            for error in errors {
                let text = dockerfile_error(error, &dockerfile.name, &source);
                printer.note(format_args!("\n{}", clean_text(&text)));
            }
            false
        }
        (Failure::Solve(error @ SolveError::Step { .. }), Some(dockerfile)) => {
            step_failure(printer, failure, error, dockerfile)
        }
        _ => {
            printer.failure(failure, hints::of(failure));
            false
        }
    }
}

fn step_failure(
    printer: &Printer,
    failure: &Failure,
    error: &SolveError,
    dockerfile: &Dockerfile,
) -> bool {
    let SolveError::Step { name, locations, log_tail, log_length, error, .. } = error else {
        return false;
    };
    let mut is_cut = false;
    if !log_tail.is_empty() && !matches!(**error, StepError::Cancelled) {
        let (text, is_cut_here) = log(name, log_tail);
        printer.note(text);
        is_cut = is_cut_here || *log_length > log_tail.len() as u64;
    }
    if let Some(place) = locations.first() {
        let text = String::from_utf8_lossy(&dockerfile.text);
        let shown = excerpt(&dockerfile.name, &text, place.start as usize, place.end as usize);
        printer.note(redact::urls(&shown));
    }
    let hint = hint_of_log(error, log_tail).map(str::to_owned).or_else(|| hints::of(failure));
    printer.failure(failure, hint);
    is_cut
}

/// Returns an error with its excerpt of the Dockerfile and its hint.
pub(crate) fn dockerfile_error(error: &kiln_frontend::Error, name: &str, source: &str) -> String {
    let text = kiln_frontend::render(error, name, source);
    match hints::of(error) {
        Some(hint) => format!("{text}\nhint: {hint}"),
        None => text,
    }
}

/// Returns the hint against a program's failure if its output suggests that the kernel refused a
/// user ID that isn't mapped.
fn hint_of_log(error: &StepError, log: &[u8]) -> Option<&'static str> {
    let StepError::Exit { .. } = error else { return None };
    // The kernel's errors for switching to, or giving files to, such a user ID.
    let log = String::from_utf8_lossy(log);
    let refused = ["Invalid argument", "Operation not permitted"];
    let is_refused = refused.iter().any(|text| log.contains(text));
    rootless::hint().filter(|_| is_refused)
}

/// Returns the end of a step's output below its name, and `true` if it is shortened.
fn log(name: &str, tail: &[u8]) -> (String, bool) {
    let lines: Vec<String> =
        tail.split(|&byte| byte == b'\n').map(|line| clean(line.trim_ascii_end())).collect();
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    let first = end.saturating_sub(LOG_LINES);
    let (rule, shown) = ("------", lines[first..end].join("\n"));
    (format!("{rule}\n > {}:\n{shown}\n{rule}", clean(name.as_bytes())), first > 0)
}

/// Returns the lines from `start` to `end`, counted from 1, with a few lines around them. Marks the
/// lines of the range.
fn excerpt(name: &str, text: &str, start: usize, end: usize) -> String {
    let rule = "--------------------";
    let first = start.saturating_sub(MARGIN).max(1);
    let lines = text
        .lines()
        .enumerate()
        .skip(first - 1)
        .take((end.max(start) + MARGIN + 1).saturating_sub(first));
    let shown = lines.map(|(index, line)| {
        let number = index + 1;
        let mark = if (start..=end).contains(&number) { ">>>" } else { "   " };
        format!("{number:4} | {mark} {}", clean(line.as_bytes()))
    });
    let shown = shown.collect::<Vec<_>>().join("\n");
    format!("{name}:{start}\n{rule}\n{shown}\n{rule}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failed_lines_are_marked() {
        let text = "FROM base\nRUN one\nRUN two \\\n  three\nRUN\tfour\nCMD x\nUSER y\n";
        let expected = "\
Dockerfile:3
--------------------
   1 |     FROM base
   2 |     RUN one
   3 | >>> RUN two \\
   4 | >>>   three
   5 |     RUN    four
   6 |     CMD x
--------------------";
        assert_eq!(excerpt("Dockerfile", text, 3, 4), expected);
        assert!(excerpt("Dockerfile", text, 1, 1).contains("   1 | >>> FROM base"));
        assert!(excerpt("Dockerfile", text, 7, 7).contains("   7 | >>> USER y"));
        // A graph from elsewhere may contain any line numbers.
        for (start, end) in [(0, 0), (9, 3), (1000, 2000)] {
            assert!(excerpt("Dockerfile", text, start, end).starts_with("Dockerfile:"));
        }
    }

    #[test]
    fn the_end_of_the_output_is_shown_without_its_tricks() {
        let lines = (0..30).map(|number| format!("line {number}\x1b[2J\r\n"));
        let tail = lines.collect::<Vec<_>>().concat();
        let (shown, is_cut) = log("[2/2] RUN make", format!("{tail}\n\n").as_bytes());
        assert!(is_cut && !log("RUN x", b"one\ntwo\n").1);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[..3], ["------", " > [2/2] RUN make:", "line 10"]);
        assert_eq!(lines[lines.len() - 2..], ["line 29", "------"]);
    }

    #[test]
    fn causes_are_told_once() {
        let inner = std::io::Error::other("no space");
        let error = StepError::other(anyhow::Error::new(inner).context("write x"));
        assert_eq!(kiln_oci::error::chain(&error), "write x: no space");
    }
}
