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
        let of_registry = error.chain().find_map(|cause| cause.downcast_ref::<Refusal>());
        if let Some(hint) = of_registry.and_then(Refusal::hint) {
            self.note(format_args!("hint: {hint}"));
        }
    }
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
}
