//! Why there is no bridge network.

use std::io;
use std::sync::Arc;

/// Why a network can't be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The machine, or the caller's rights, are not what it takes.
    #[error("{0}")]
    Unavailable(String),
    /// The kernel or a program said no.
    #[error("{action}: {}", describe(reason))]
    Failed {
        /// What was being done, to what.
        action: String,
        /// Why it failed.
        reason: Arc<io::Error>,
    },
}

impl NetworkError {
    /// Returns what a person can do about it, if anything.
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

    /// Returns a function that says what failed.
    pub(super) fn doing<E: IntoIo>(action: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |error| Self::Failed { action: action.into(), reason: Arc::new(error.into_io()) }
    }
}

/// Errors of the kernel, in their several wrappings.
pub(super) trait IntoIo {
    /// Returns what the kernel said.
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

impl IntoIo for rtnetlink::Error {
    fn into_io(self) -> io::Error {
        match self {
            Self::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        }
    }
}

/// Describes an error as the rest of a message is written: lower case, without numbers.
fn describe(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error ").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}
