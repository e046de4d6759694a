//! Errors with the path they are about.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::path_limit::LONGEST;

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
    /// A file system can't be mounted.
    #[error("{action}")]
    Mount {
        /// What was being done, with the kernel's own words where it had any.
        action: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A path that must be there is not: BuildKit's text.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path, as asked for.
        path: PathBuf,
    },
    /// A pattern that must match something matches nothing: BuildKit's text.
    #[error("{pattern} not found")]
    NoMatch {
        /// The pattern.
        pattern: String,
    },
    /// A directory is to be copied over something else: BuildKit's text.
    #[error("cannot copy to non-directory: {}", path.display())]
    NotDirectory {
        /// What is in the way.
        path: PathBuf,
    },
    /// Something else is to be copied over a directory: BuildKit's text.
    #[error("cannot replace to directory {} with file", path.display())]
    IsDirectory {
        /// What is in the way.
        path: PathBuf,
    },
    /// A path is longer than an image can hold.
    #[error("{start:?}… is longer than {LONGEST} bytes, the limit of a path in an image")]
    TooLong {
        /// The start of the path.
        start: PathBuf,
    },
    /// Input that breaks a rule, as an archive entry with NUL in its name.
    #[error("{path:?}: {problem}")]
    Invalid {
        /// The path, entry or pattern.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl Error {
    /// Returns the error for what the kernel said about `path`.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_path_buf(), source: source.into() }
    }

    /// Like [`Error::io`], but says "not found" where that is the case.
    pub(crate) fn at(action: &'static str, path: &Path, errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound { path: path.to_path_buf() },
            errno => Self::io(action, path, errno),
        }
    }

    /// Returns the error for input that breaks a rule.
    pub(crate) fn invalid(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.as_ref().to_path_buf(), problem: problem.into() }
    }
}

/// The problem with what takes a file's place.
pub(crate) const NOT_REGULAR: &str = "not a regular file";

/// A result with [`Error`], or another error.
pub type Result<T, E = Error> = std::result::Result<T, E>;
