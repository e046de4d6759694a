//! Errors with their place.

/// A range of lines of the Dockerfile, counted from 1, both ends included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First line.
    pub start: u32,
    /// Last line.
    pub end: u32,
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
