//! Everything that commands print.

use std::fmt::Display;
use std::io::Write;

use kiln_registry::Error as Refusal;

/// Writes to standard output and standard error. A reader that has gone away is no error.
#[derive(Debug)]
pub(crate) struct Printer;

impl Printer {
    /// Returns a printer on the process's streams.
    pub(crate) fn new() -> Self {
        Self
    }

    /// Prints a result, a line, to standard output.
    #[expect(clippy::unused_self, reason = "printing is the privilege of who holds a printer")]
    pub(crate) fn line(&self, text: impl Display) {
        let _ = writeln!(anstream::stdout(), "{text}");
    }

    /// Prints a result of several lines, or of none, to standard output.
    pub(crate) fn text(&self, text: &str) {
        if !text.is_empty() {
            self.line(text);
        }
    }

    /// Prints a result that ends as it does to standard output.
    #[expect(clippy::unused_self, reason = "printing is the privilege of who holds a printer")]
    pub(crate) fn raw(&self, text: &str) {
        let mut stdout = anstream::stdout();
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }

    /// Writes a result that is no text to standard output.
    #[expect(clippy::unused_self, reason = "printing is the privilege of who holds a printer")]
    pub(crate) fn bytes(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Prints a line for people to standard error.
    #[expect(clippy::unused_self, reason = "printing is the privilege of who holds a printer")]
    pub(crate) fn note(&self, text: impl Display) {
        let _ = writeln!(anstream::stderr(), "{text}");
    }

    /// Prints an error with its causes, and its hints, to standard error.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        self.note(format_args!("ERROR: {}", causes(error.as_ref())));
        if let Some(hint) = error.chain().find_map(refusal).and_then(Refusal::hint) {
            self.note(format_args!("hint: {hint}"));
        }
    }
}

/// Returns the error of a registry that stands behind an error. Those that only pass it on don't
/// name it as their cause.
fn refusal<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Refusal> {
    if let Some(kiln_worker::Error::Registry(refusal)) = error.downcast_ref() {
        return Some(refusal);
    }
    if let Some(kiln_exporter::Error::Registry(refusal)) = error.downcast_ref() {
        return Some(refusal);
    }
    error.downcast_ref()
}

/// Returns an error and its causes on one line, leaving out causes that their effects repeat.
pub(crate) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    text
}

/// Lays out rows below a heading in columns, three blanks apart, as docker does.
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

/// Returns a number of bytes as people read it, in powers of a thousand: `12.3MB`.
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

/// Returns a time span as docker says it: `3 minutes`, `About an hour`.
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

/// Returns how long something took: `1.2s`, `2m 05s`, `1h 02m 05s`.
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
    fn causes_that_repeat_are_left_out() {
        let error = anyhow::anyhow!("no such file").context("open x: no such file");
        assert_eq!(causes(error.as_ref()), "open x: no such file");
        let error = anyhow::anyhow!("b").context("a");
        assert_eq!(causes(error.as_ref()), "a: b");
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
