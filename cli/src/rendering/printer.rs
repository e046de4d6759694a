//! The output of all commands.
//!
//! Standard output carries a command's result. If the result can't be written, the command has
//! failed. The printer keeps the first error, writes nothing after it, and reports it at the end of
//! the process ([`Printer::finish`]). If the reader of a pipe has closed it, kiln ends like other
//! programs, silently by SIGPIPE. Messages on standard error aren't a result; errors in writing
//! them are ignored.
//!
//! Names, messages and documents come from Dockerfiles, images, archives and servers. Before they
//! reach a terminal, [`printable`] removes characters that could control it. Messages pass it in
//! any case. Results in files and pipes remain unchanged, and so does the output of containers.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use kiln_oci::error::{chain, words_of};
use kiln_sandbox::OutputStream;

use super::hints;
use super::progress::printable;
use crate::terminal::interruption;

const STDOUT: &str = "/dev/stdout";
const STDERR: &str = "/dev/stderr";

/// A writer to standard output and standard error. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Printer {
    /// The stream that can't be written any more, and the error.
    lost: Arc<OnceLock<(&'static str, io::Error)>>,
    warnings: Arc<Mutex<Warnings>>,
}

/// Warnings that occur while a command runs.
#[derive(Debug, Default)]
struct Warnings {
    /// All texts so far. Each is printed once.
    known: BTreeSet<String>,
    /// The texts that are not printed yet.
    held: Vec<String>,
}

impl Printer {
    /// Returns a printer for the process's streams. Create one per process.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Prints a line of a result to standard output.
    pub(crate) fn line(&self, text: impl Display) {
        let text = for_stdout(text.to_string());
        self.put(|| writeln!(anstream::stdout(), "{text}"));
    }

    /// Prints a result of several lines to standard output. Prints nothing if it is empty.
    pub(crate) fn text(&self, text: &str) {
        if !text.is_empty() {
            self.line(text);
        }
    }

    /// Prints a result to standard output without adding a line feed.
    pub(crate) fn raw(&self, text: &str) {
        self.styled(&for_stdout(text.to_owned()));
    }

    /// Prints a text with kiln's own colours to standard output.
    pub(crate) fn styled(&self, text: &str) {
        let mut stdout = anstream::stdout();
        self.put(|| stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
    }

    /// Writes a binary result to standard output.
    pub(crate) fn bytes(&self, bytes: &[u8]) {
        if io::stdout().is_terminal() {
            return self.raw(&String::from_utf8_lossy(bytes));
        }
        // The printer reports the error at the end.
        let _ = self.stdout().write_all(bytes);
    }

    /// Returns standard output for results that are written in pieces. The writer may stop at an
    /// error: the printer has recorded it.
    pub(crate) fn stdout(&self) -> Stdout {
        Stdout { printer: self.clone() }
    }

    /// Returns `true` if no write of a result has failed so far.
    pub(crate) fn is_heard(&self) -> bool {
        self.lost.get().is_none()
    }

    fn put(&self, write: impl FnOnce() -> io::Result<()>) {
        if self.is_heard()
            && let Err(error) = write()
        {
            self.lose(STDOUT, error);
        }
    }

    /// Writes a program's output as it arrives.
    ///
    /// # Errors
    /// Fails if the output can't be written. The printer records the error like one of kiln's own
    /// output.
    pub(crate) fn pass(&self, stream: OutputStream, bytes: &[u8]) -> io::Result<()> {
        match stream {
            OutputStream::Stdout => self.stdout().write_all(bytes),
            OutputStream::Stderr => self.check(STDERR, io::stderr().lock().write_all(bytes)),
        }
    }

    fn check<T>(&self, stream: &'static str, written: io::Result<T>) -> io::Result<T> {
        written.map_err(|error| {
            let code = error.raw_os_error();
            let same = code.map_or(error.kind().into(), io::Error::from_raw_os_error);
            self.lose(stream, error);
            same
        })
    }

    /// Records the error of a stream.
    fn lose(&self, stream: &'static str, error: io::Error) {
        // Keep the first error: later ones follow from it.
        let _ = self.lost.set((stream, error));
    }

    /// Prints a message to standard error.
    pub(crate) fn note(&self, text: impl Display) {
        self.styled_note(printable(&text.to_string()));
    }

    /// Prints a message with kiln's own colours to standard error.
    #[expect(clippy::unused_self, reason = "printing is the privilege of who holds a printer")]
    pub(crate) fn styled_note(&self, text: impl Display) {
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    /// Prints a warning, once per text. On a terminal, delays it until the end, since a live
    /// display may be active.
    pub(crate) fn warn(&self, text: &str) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        if !warnings.known.insert(text.to_owned()) {
            return;
        }
        if io::stderr().is_terminal() {
            warnings.held.push(text.to_owned());
        } else {
            self.note(format_args!("WARNING: {text}"));
        }
    }

    /// Prints the delayed warnings.
    fn warn_at_last(&self) {
        let mut warnings = self.warnings.lock().unwrap_or_else(PoisonError::into_inner);
        for text in warnings.held.drain(..) {
            self.note(format_args!("WARNING: {text}"));
        }
    }

    /// Prints an error with its causes and its hint.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.failure(error.as_ref(), hints::of(error.as_ref()));
    }

    /// Prints an error with its causes, and a hint, to standard error. Prints nothing if a write to
    /// standard output has failed, since other errors follow from that.
    pub(crate) fn failure(&self, error: &(dyn std::error::Error + 'static), hint: Option<String>) {
        if !self.is_heard() {
            return;
        }
        self.warn_at_last();
        self.note(format_args!("ERROR: {}", chain(error)));
        if let Some(hint) = hint {
            self.note(format_args!("hint: {hint}"));
        }
    }

    /// Ends the output and returns the exit code: `code`, or that of a failure if the result
    /// couldn't be written completely. Doesn't return if the reader of the output has closed its
    /// pipe.
    pub(crate) fn finish(&self, code: ExitCode) -> ExitCode {
        self.warn_at_last();
        self.put(|| io::stdout().flush());
        let Some((stream, error)) = self.lost.get() else { return code };
        if error.kind() == io::ErrorKind::BrokenPipe {
            interruption::end_by_broken_pipe();
        }
        self.note(format_args!("ERROR: write {stream}: {}", words_of(error)));
        ExitCode::FAILURE
    }
}

/// A writer of unchanged bytes to standard output.
#[derive(Clone, Debug)]
pub(crate) struct Stdout {
    printer: Printer,
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.printer.check(STDOUT, io::stdout().write(bytes))
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        self.printer.check(STDOUT, stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.printer.check(STDOUT, io::stdout().flush())
    }
}

/// Returns a text for standard output. On a terminal, removes control characters.
fn for_stdout(text: String) -> String {
    if io::stdout().is_terminal() { printable(&text) } else { text }
}

/// Aligns rows in columns below a heading, three spaces apart, as docker does.
pub(crate) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
    let lines: Vec<&Vec<String>> = std::iter::once(&heading).chain(rows).collect();
    let width = |column: usize| {
        lines.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let render = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, &width)| format!("{cell:width$}"));
        cells.collect::<Vec<_>>().join("   ").trim_end().to_owned()
    };
    lines.into_iter().map(render).collect::<Vec<_>>().join("\n")
}

/// Formats a number of bytes in powers of 1000, such as `12.3MB`.
pub(crate) fn human_size(bytes: u64) -> String {
    let mut size = bytes as f64;
    for unit in ["B", "kB", "MB", "GB", "TB"] {
        if size < 999.5 {
            let digits = if unit == "B" || size >= 99.95 {
                0
            } else if size >= 9.995 {
                1
            } else {
                2
            };
            let text = format!("{size:.digits$}");
            let text = if text.contains('.') {
                text.trim_end_matches('0').trim_end_matches('.')
            } else {
                &text
            };
            return format!("{text}{unit}");
        }
        size /= 1000.0;
    }
    format!("{size:.0}PB")
}

/// Formats a time span in docker's words, such as `3 minutes` or `About an hour`.
pub(crate) fn human_age(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        i64::MIN..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        60..120 => "About a minute".to_owned(),
        120..3600 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 14 => format!("{} days", hours / 24),
        _ if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// Formats a duration, such as `1.2s`, `2m 05s` or `1h 02m 05s`.
pub(crate) fn human_duration(duration: std::time::Duration) -> String {
    let seconds = duration.as_secs();
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    match (hours, minutes) {
        (0, 0) => format!("{:.1}s", duration.as_secs_f64()),
        (0, _) => format!("{minutes}m {:02}s", seconds % 60),
        _ => format!("{hours}h {minutes:02}m {:02}s", seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_readable() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (1234, "1.23kB"),
            (12_340_000, "12.3MB"),
            (999_600, "1MB"),
            (123_456_789, "123MB"),
        ] {
            assert_eq!(human_size(bytes), text);
        }
    }

    #[test]
    fn columns_are_aligned() {
        let rows = [vec!["app".to_owned(), "1".to_owned()], vec!["é".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), "NAME   N\napp    1\né      22");
    }

    #[test]
    fn ages_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (61, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86400 * 3, "3 days"),
            (86400 * 20, "2 weeks"),
            (86400 * 100, "3 months"),
            (86400 * 800, "2 years"),
        ] {
            assert_eq!(human_age(seconds), text);
        }
    }
    #[test]
    fn durations_are_readable() {
        let text = |millis| human_duration(std::time::Duration::from_millis(millis));
        assert_eq!([text(0), text(1234), text(59_900)], ["0.0s", "1.2s", "59.9s"]);
        assert_eq!([text(65_000), text(3_725_000)], ["1m 05s", "1h 02m 05s"]);
    }
}
