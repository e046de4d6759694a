//! The errors of the bridge network.

use std::io;
use std::sync::Arc;

/// The reason why the network can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The machine or the caller's rights don't meet the requirements.
    #[error("{0}")]
    Unavailable(String),
    /// An operation of the kernel or of a program failed.
    #[error("{action}: {}", describe(reason))]
    Failed {
        /// The operation and its object, in words.
        action: String,
        /// The operating system's error.
        reason: Arc<io::Error>,
    },
}

impl NetworkError {
    /// Returns a way out for the user, if there is one.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Unavailable(_) => Some(
                "with --network=host, programs of the container listen on ports of the host \
                 themselves; without root from 1024 on, or from what \
                 net.ipv4.ip_unprivileged_port_start says",
            ),
            Self::Failed { reason, .. } if reason.kind() == io::ErrorKind::PermissionDenied => {
                Some(
                    "ports below 1024 take root; \"sysctl net.ipv4.ip_unprivileged_port_start=PORT\" \
                 opens those from PORT on to all users",
                )
            }
            Self::Failed { .. } => None,
        }
    }

    /// Returns a function that wraps an error of `action`.
    pub(super) fn doing<E: IntoIo>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::Failed { action: action.into(), reason: Arc::new(error.into_io()) }
    }
}

/// An error type that converts to [`io::Error`].
pub(super) trait IntoIo {
    /// Converts the error to [`io::Error`].
    fn into_io(self) -> io::Error;
}

impl IntoIo for io::Error {
    fn into_io(self) -> io::Error {
        self
    }
}

impl IntoIo for rustix::io::Errno {
    fn into_io(self) -> io::Error {
        self.into()
    }
}

/// Formats an error as a part of a message: in lower case, without its number.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
