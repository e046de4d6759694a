//! Errors with their places in the Dockerfile.

mod place;
mod render;

pub use render::{render, render_warning};

/// A range of lines of the Dockerfile, counted from 1, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first line, counted from 1.
    pub start: u32,
    /// The last line, counted from 1 and included.
    pub end: u32,
}

impl Span {
    /// Returns the span of a single line.
    pub fn line(line: u32) -> Self {
        Self { start: line, end: line }
    }
}

/// An error in a Dockerfile. The message is the same as BuildKit's, word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The whole message, with `dockerfile parse error on line N: ` if BuildKit writes it.
    pub message: String,
    /// The lines that the error is about; empty if it belongs to no line.
    pub spans: Vec<Span>,
    /// A hint that is not part of the message, such as "did you mean …".
    pub hint: Option<String>,
}

impl Error {
    /// Returns an error without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), spans: Vec::new(), hint: None }
    }

    /// Adds a place, unless the error already has it.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        if !self.spans.contains(&span) {
            self.spans.push(span);
        }
        self
    }

    /// Prepends `prefix` to the message, as `prefix: message`.
    #[must_use]
    pub fn context(mut self, prefix: impl std::fmt::Display) -> Self {
        self.message = format!("{prefix}: {}", self.message);
        self
    }

    /// Sets the hint, which is shown below the message.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
