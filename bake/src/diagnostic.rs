//! Mistakes in a definition, and their places.

use crate::source::{FileNames, Range};

/// An error at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Diagnostic {
    /// The kind of error, as a title.
    pub(crate) summary: String,
    /// The mistake, as a sentence.
    pub(crate) detail: String,
    /// The place.
    pub(crate) range: Option<Range>,
}

impl Diagnostic {
    /// Makes an error at a place.
    pub(crate) fn new(summary: impl Into<String>, detail: impl Into<String>, range: Range) -> Self {
        Self { summary: summary.into(), detail: detail.into(), range: Some(range) }
    }

    /// Writes the error as one line with its place.
    pub(crate) fn describe(&self, names: &FileNames) -> String {
        match self.range {
            Some(range) => {
                format!("{}: {}; {}", names.describe(range), self.summary, self.detail)
            }
            None => format!("<nil>: {}; {}", self.summary, self.detail),
        }
    }
}

/// Writes the first of several errors, and how many others there are.
pub(crate) fn describe(diagnostics: &[Diagnostic], names: &FileNames) -> String {
    let Some(first) = diagnostics.first() else {
        return "no diagnostics".into();
    };
    let mut text = first.describe(names);
    if diagnostics.len() > 1 {
        text.push_str(", and ");
        text.push_str(&(diagnostics.len() - 1).to_string());
        text.push_str(" other diagnostic(s)");
    }
    text
}

/// Returns the lines around a range, the range's lines marked.
pub(crate) fn excerpt(text: &str, range: Range) -> String {
    let lines: Vec<&str> = text.split('\n').collect();
    let first = (range.start.line as usize).clamp(1, lines.len());
    let last = (range.end.line as usize).clamp(first, lines.len());
    let padding = if first == last { 2 } else { 1 };
    let from = first.saturating_sub(padding).max(1);
    let to = (last + padding).min(lines.len());
    let mut written = String::from("--------------------\n");
    for (index, line) in lines[from - 1..to].iter().enumerate() {
        let number = from + index;
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let line = line.trim_end_matches('\r');
        written.push_str(format!("{number:4} | {mark} {line}").trim_end());
        written.push('\n');
    }
    written.push_str("--------------------");
    written
}
