//! The errors of the sandbox.

use std::io;
use std::path::{Path, PathBuf};

/// The reason why a program can't run in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// An operation on the host failed.
    #[error("sandbox: {action}")]
    Host {
        /// The operation that failed, in words.
        action: &'static str,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The sandbox can't be set up as specified.
    #[error("{0}")]
    Setup(String),
    /// The program can't be executed.
    #[error("{message}")]
    Exec {
        /// The message, such as `exec: "x": executable file not found in $PATH`.
        message: String,
        /// The exit status of a shell and Docker for this error: 126 or 127.
        code: i32,
    },
    /// A process outside of the step still has write access to the kept files.
    #[error("a process outside of the step still holds {} open for writing", name(.file.as_deref()))]
    Busy {
        /// The path of one of the open files in the sandbox, if known.
        file: Option<PathBuf>,
    },
    /// The caller cancelled the run.
    #[error("canceled")]
    Cancelled,
    /// No way to isolate programs works here.
    #[error(
        "programs can't run here ({0}); in a pod, this allows them:\n  securityContext:\n    \
         seccompProfile:\n      type: Unconfined"
    )]
    NoIsolation(String),
    /// A feature that kiln doesn't support.
    #[error("{0}")]
    Unsupported(&'static str),
}

impl SandboxError {
    pub(super) fn host(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Host { action, source }
    }
}

fn name(file: Option<&Path>) -> String {
    file.map_or_else(|| "one of its files".to_owned(), |file| file.display().to_string())
}
