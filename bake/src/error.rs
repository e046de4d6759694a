//! Errors of definitions.

use thiserror::Error;

use crate::diagnostic::{self, Diagnostic};
use crate::source::FileNames;

/// A mistake in a definition.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{message}")]
pub struct Error {
    message: String,
    excerpt: Option<Excerpt>,
}

/// The lines of a file around an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Excerpt {
    /// The file and the line, as `file:line`.
    pub place: String,
    /// The lines, with marks.
    pub lines: String,
}

impl Error {
    /// Makes an error without a place.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), excerpt: None }
    }

    /// Makes an error of what was found in files.
    pub(crate) fn found(
        diagnostics: &[Diagnostic],
        names: &FileNames,
        text_of: impl Fn(&str) -> Option<String>,
    ) -> Self {
        let message = diagnostic::describe(diagnostics, names);
        let excerpt = diagnostics.iter().find_map(|diagnostic| {
            let range = diagnostic.range?;
            let name = names.name(range.file);
            let text = text_of(name)?;
            Some(Excerpt {
                place: format!("{name}:{}", range.start.line),
                lines: diagnostic::excerpt(&text, range),
            })
        });
        Self { message, excerpt }
    }

    /// Returns the lines around the error, if it has a place.
    pub fn excerpt(&self) -> Option<&Excerpt> {
        self.excerpt.as_ref()
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}
