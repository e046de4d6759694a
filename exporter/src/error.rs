//! The error type of exports.

use std::io;
use std::path::PathBuf;

/// An error of an export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The value of an `--output` option is invalid.
    #[error("invalid output {text:?}: {problem}")]
    Spec {
        /// The value as the user typed it.
        text: String,
        /// A description of the error.
        problem: String,
    },
    /// The value of a `--cache-to` or `--cache-from` option is invalid.
    #[error("invalid cache {text:?}: {problem}")]
    CacheSpec {
        /// The value as the user typed it.
        text: String,
        /// A description of the error.
        problem: String,
    },
    /// The value of an `--annotation` option is invalid.
    #[error("invalid annotation {text:?}: {problem}")]
    Annotation {
        /// The value as the user typed it.
        text: String,
        /// A description of the error.
        problem: String,
    },
    /// An engine can't load an image.
    #[error("load the image into {engine}")]
    Load {
        /// The engine's name for display.
        engine: String,
        /// The error of the engine or of the connection to it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A document is larger than its readers allow.
    #[error("{0}")]
    TooLarge(#[from] kiln_oci::limits::TooLarge),
    /// A file operation failed.
    #[error("{action} {path:?}")]
    Io {
        /// The operation as a verb, as `create`.
        action: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error that the operating system reported.
        source: io::Error,
    },
    /// The store can't be read or written.
    #[error("{0}")]
    Store(#[from] kiln_store::Error),
    /// A registry can't be reached or refuses a request.
    #[error("{0}")]
    Registry(#[from] kiln_registry::Error),
    /// A file tree can't be read, packed or copied.
    #[error("{0}")]
    Tree(#[from] kiln_tree::Error),
    /// The [`Attester`](crate::Attester) has failed.
    #[error("{0}")]
    Attest(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The receiver of files has failed.
    #[error("{0}")]
    Receive(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A layer can't be fetched or packed.
    #[error("{0}")]
    Images(#[source] kiln_images::Error),
    /// The image config can't be exported.
    #[error("invalid image config for export: {0}")]
    Config(String),
    /// The request is contradictory, or kiln doesn't support it.
    #[error("{0}")]
    Unsupported(String),
    /// The caller cancelled the export.
    #[error("canceled")]
    Cancelled,
}

impl Error {
    /// Returns a function for `map_err` that adds an action and a path to an I/O error.
    pub(crate) fn io<E: Into<io::Error>>(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

impl From<kiln_images::Error> for Error {
    /// Keeps the errors that both crates know apart from the rest.
    fn from(error: kiln_images::Error) -> Self {
        use kiln_images::Error as Images;
        match error {
            Images::Store(error) => Self::Store(error),
            Images::Tree(error) => Self::Tree(error),
            Images::Registry(error) => Self::Registry(error),
            Images::Cancelled => Self::Cancelled,
            error => Self::Images(error),
        }
    }
}

/// A result whose error is [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
