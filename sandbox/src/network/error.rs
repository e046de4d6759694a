//! The errors of the bridge network.

use std::io;
use std::sync::Arc;

use kiln_oci::error::words_of;

/// The reason why the network can't be used.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NetworkError {
    /// The machine or the caller's rights don't meet the requirements.
    #[error("{0}")]
    Unavailable(String),
    /// An operation of the kernel or of a program failed.
    #[error("{action}: {}", words_of(reason))]
    Failed {
        /// The operation and its object, in words.
        action: String,
        /// The operating system's error.
        #[source]
        reason: Arc<io::Error>,
    },
}

/// Advice against a failure of the network, as plain data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkHint {
    /// The machine has no bridge network, but the container may use the host's network.
    UseHostNetwork,
    /// The caller may not listen on ports below 1024.
    OpenLowPorts,
}

impl NetworkError {
    /// Returns the hint against this failure, if any.
    pub fn hint(&self) -> Option<NetworkHint> {
        match self {
            Self::Unavailable(_) => Some(NetworkHint::UseHostNetwork),
            Self::Failed { reason, .. } if reason.kind() == io::ErrorKind::PermissionDenied => {
                Some(NetworkHint::OpenLowPorts)
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
