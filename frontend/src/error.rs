//! Errors with their places in the Dockerfile.

mod place;
mod render;

use std::fmt;
use std::sync::Arc;

use crate::hint::Hint;
use crate::resolve::ResolveError;

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
    /// The hint against the error, which isn't part of the message.
    pub hint: Option<Hint>,
    /// The error that caused this one. The message contains its text.
    pub source: Option<Cause>,
}

impl Error {
    /// Returns an error without a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), spans: Vec::new(), hint: None, source: None }
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
    pub fn with_hint(mut self, hint: Hint) -> Self {
        self.hint = Some(hint);
        self
    }

    /// Sets the source to that of the caller's error.
    #[must_use]
    pub(crate) fn because(mut self, error: ResolveError) -> Self {
        self.source = error.source;
        self
    }
}

/// An error that caused another one. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Cause(Arc<dyn std::error::Error + Send + Sync>);

impl Cause {
    /// Wraps an error.
    pub fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Arc::from(error.into()))
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Cause {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.0)
    }
}

/// Two causes are equal if they are the same error.
impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Cause {}
