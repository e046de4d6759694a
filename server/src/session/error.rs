//! Errors of sessions.

use std::io;
use std::path::PathBuf;

use tonic::{Code, Status};

/// The error of a session or of a call to a client's service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session with this ID arrived in time. The message is BuildKit's.
    #[error("no active session for {id}: context deadline exceeded")]
    NoSession {
        /// The ID without its prefix.
        id: String,
    },
    /// The session ended before or during a call.
    #[error("the client has ended its session")]
    Ended,
    /// The client doesn't serve a method. The message is BuildKit's.
    #[error("method {method} not supported by the client")]
    Unsupported {
        /// The path of the method.
        method: String,
    },
    /// The client serves no directories. The message is BuildKit's.
    #[error("no local sources enabled")]
    NoLocalSources,
    /// The client has no directory of this name, or denies access to it.
    #[error("{message}")]
    NoSuchDirectory {
        /// The name of the directory.
        name: String,
        /// The client's message.
        message: String,
    },
    /// The client reported an error while it sent a directory. The message is BuildKit's.
    #[error("error from sender: {0}")]
    Sender(String),
    /// The client reported an error while it received a directory. The message is BuildKit's.
    #[error("error from receiver: {0}")]
    Receiver(String),
    /// The client broke the protocol.
    #[error("invalid message from the client: {0}")]
    Protocol(String),
    /// A value can't be the metadata of a call.
    #[error("{key} can't be sent to the client: {value:?} is no valid header")]
    Metadata {
        /// The metadata's key.
        key: String,
        /// The value with the problem.
        value: String,
    },
    /// A call failed.
    #[error("{action}: {}", message(status))]
    Call {
        /// The operation, for example `fetch secret npmrc`.
        action: String,
        /// The status with which the call ended.
        status: Box<Status>,
    },
    /// A call took too long.
    #[error("{action}: context deadline exceeded")]
    TimedOut {
        /// The operation, for example `fetch credentials for docker.io`.
        action: String,
    },
    /// A secret is too large.
    #[error("secret {id} is larger than {limit} bytes")]
    LargeSecret {
        /// The ID of the secret.
        id: String,
        /// The maximal size in bytes.
        limit: usize,
    },
    /// A file operation in a transferred directory failed.
    #[error("transfer files")]
    Tree(#[from] kiln_tree::Error),
    /// A local socket couldn't be created.
    #[error("{action} {path:?}")]
    Io {
        /// The operation, as `listen on`.
        action: &'static str,
        /// The path of the socket.
        path: PathBuf,
        /// The error that the kernel reported.
        source: io::Error,
    },
    /// A thread of a transfer panicked or was stopped.
    #[error("the transfer was interrupted")]
    Interrupted,
}

impl Error {
    /// Returns the error of a failed call.
    pub(super) fn call(action: impl Into<String>, status: Status) -> Self {
        Self::Call { action: action.into(), status: Box::new(status) }
    }

    /// Returns the code of a failed call.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Call { status, .. } => Some(status.code()),
            Self::NoSuchDirectory { .. } => Some(Code::NotFound),
            _ => None,
        }
    }
}

/// Returns the message of a status. Clients in Go may put the code in front of it.
pub(super) fn message(status: &Status) -> &str {
    let message = status.message();
    let rest = message.strip_prefix("rpc error: code = ");
    rest.and_then(|rest| rest.split_once(" desc = ")).map_or(message, |(_, message)| message)
}

/// A result whose error is [`Error`] by default.
pub type Result<T, E = Error> = std::result::Result<T, E>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_in_messages_are_left_out() {
        let error = |text: &str| Error::call("read", Status::unknown(text)).to_string();
        assert_eq!(error("rpc error: code = NotFound desc = no file"), "read: no file");
        assert_eq!(error("rpc error: odd"), "read: rpc error: odd");
        assert_eq!(error("no file"), "read: no file");
    }
}
