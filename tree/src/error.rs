//! Errors with the path they are about.

use std::io;
use std::path::PathBuf;

/// Why a file operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel said no.
    #[error("{action} {path:?}")]
    Io {
        /// What was being done, as `open`.
        action: &'static str,
        /// To what, relative to the root it was resolved in.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A path that must be there is not: BuildKit's text.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path, as asked for.
        path: PathBuf,
    },
    /// Input that breaks a rule, as an archive entry with `..` in its name.
    #[error("{path:?}: {problem}")]
    Invalid {
        /// The path, entry or pattern.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// A result with [`Error`].
pub type Result<T> = std::result::Result<T, Error>;
