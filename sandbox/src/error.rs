//! Errors of the sandbox.

use std::io;
use std::path::{Path, PathBuf};

/// Why a program can't be run in a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// The host can't do it.
    #[error("sandbox: {action}")]
    Host {
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The sandbox can't be set up as the specification wants it.
    #[error("{0}")]
    Setup(String),
    /// The program can't be executed.
    #[error("{message}")]
    Exec {
        /// As `exec: "x": executable file not found in $PATH`.
        message: String,
        /// The status that a shell or Docker gives it: 126 or 127.
        code: i32,
    },
    /// What is kept of the program's files can still be written.
    #[error("a process outside of the step still holds {} open for writing", name(.file.as_deref()))]
    Busy {
        /// One of the files that are open, as the program would name it.
        file: Option<PathBuf>,
    },
    /// The run was cancelled.
    #[error("canceled")]
    Cancelled,
    /// Something that isn't there yet.
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
