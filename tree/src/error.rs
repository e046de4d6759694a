//! Errors of file operations, with the path that they are about.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::path_limit::LONGEST;

/// The error of a file operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel reported an error.
    #[error("{action} {path:?}")]
    Io {
        /// The operation, as `open`.
        action: &'static str,
        /// The path, relative to the root in which it was resolved.
        path: PathBuf,
        /// The error that the kernel reported.
        source: io::Error,
    },
    /// A file system couldn't be mounted.
    #[error("{action}")]
    Mount {
        /// The operation, with the kernel's message if there is one.
        action: String,
        /// The error that the kernel reported.
        source: io::Error,
    },
    /// A required path doesn't exist. The message is BuildKit's.
    #[error("{path:?}: not found")]
    NotFound {
        /// The path as requested.
        path: PathBuf,
    },
    /// A required pattern matches nothing. The message is BuildKit's.
    #[error("{pattern} not found")]
    NoMatch {
        /// The pattern, as requested.
        pattern: String,
    },
    /// The copy of a directory would replace an entry of another type. The message is BuildKit's.
    #[error("cannot copy to non-directory: {}", path.display())]
    NotDirectory {
        /// The path of the existing entry.
        path: PathBuf,
    },
    /// The copy of another entry would replace a directory. The message is BuildKit's.
    #[error("cannot replace to directory {} with file", path.display())]
    IsDirectory {
        /// The path of the existing directory.
        path: PathBuf,
    },
    /// A path exceeds the length that an image can contain.
    #[error("{start:?}… is longer than {LONGEST} bytes, the limit of a path in an image")]
    TooLong {
        /// The beginning of the path.
        start: PathBuf,
    },
    /// The input is invalid, for example an archive entry with a NUL byte in its name.
    #[error("{path:?}: {problem}")]
    Invalid {
        /// The path, entry or pattern.
        path: PathBuf,
        /// The problem, as a phrase.
        problem: String,
    },
}

impl Error {
    /// Returns the error for an operation on `path` that the kernel refused.
    pub(crate) fn io(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Io { action, path: path.to_path_buf(), source: source.into() }
    }

    /// Returns the same as [`Error::io`], or "not found" for `ENOENT`.
    pub(crate) fn at(action: &'static str, path: &Path, errno: Errno) -> Self {
        match errno {
            Errno::NOENT => Self::NotFound { path: path.to_path_buf() },
            errno => Self::io(action, path, errno),
        }
    }

    /// Returns the error for invalid input.
    pub(crate) fn invalid(path: impl AsRef<Path>, problem: impl Into<String>) -> Self {
        Self::Invalid { path: path.as_ref().to_path_buf(), problem: problem.into() }
    }
}

/// The problem of an entry that has replaced a file.
pub(crate) const NOT_REGULAR: &str = "not a regular file";

/// A result whose error is [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;
