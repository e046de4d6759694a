//! Errors with their place.

mod place;
mod render;

pub use render::{render, render_warning};

/// A range of lines of the Dockerfile, counted from 1, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
}

impl Span {
    /// Returns the span of a single line.
    pub fn line(line: u32) -> Self {
        Self { start: line, end: line }
    }
}

/// What is wrong with a Dockerfile. The text is BuildKit's, word for word.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// The whole text, with `dockerfile parse error on line N: ` where BuildKit writes it.
    pub message: String,
    /// Where; empty where the error belongs to no line.
    pub spans: Vec<Span>,
    /// A way out, as "did you mean …", where there is one besides the text.
    pub hint: Option<String>,
}

impl Error {
    /// Returns an error that belongs to no line yet.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), spans: Vec::new(), hint: None }
    }

    /// Adds a place, unless the error has it already.
    #[must_use]
    pub fn at(mut self, span: Span) -> Self {
        if !self.spans.contains(&span) {
            self.spans.push(span);
        }
        self
    }

    /// Puts `prefix` in front of the text, as `prefix: text`.
    #[must_use]
    pub fn context(mut self, prefix: impl std::fmt::Display) -> Self {
        self.message = format!("{prefix}: {}", self.message);
        self
    }

    /// Adds a way out.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}
