//! The errors of requests to registries.

use std::time::Duration;

use kiln_oci::Digest;
use reqwest::StatusCode;

use crate::connection_error::{ConnectionError, Place, Role};
use crate::endpoint::{Endpoint, authority_of};
use crate::hint::Hint;
use crate::limits::MinimumSpeed;
use crate::repository::Repository;

/// A failed request, with its target. The message contains the whole cause.
#[derive(Debug, thiserror::Error)]
#[error("{target}: {problem}")]
pub struct Error {
    /// The registry of the request. `None` for a plain URL.
    pub registry: Option<String>,
    /// The requested object, such as `docker.io/library/alpine:3`.
    pub target: String,
    /// The cause of the failure.
    #[source]
    pub problem: Box<Problem>,
}

/// The cause of a failed request.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The registry doesn't have the object, or hides it.
    #[error("not found{}", detail(.0))]
    NotFound(String),
    /// The registry requires authentication or rejects it.
    #[error("access denied{}", detail(.0))]
    Denied(String),
    /// The registry still limits the rate of requests after all attempts.
    #[error("the registry limits requests{}", detail(.0))]
    RateLimited(String),
    /// An unexpected HTTP status.
    #[error("invalid response status {status}{}", detail(.message))]
    Status {
        /// The status of the answer.
        status: StatusCode,
        /// The registry's error message, or an empty string.
        message: String,
    },
    /// The server can't be reached, or the connection broke.
    #[error("{0}")]
    Transport(#[source] Box<ConnectionError>),
    /// The content doesn't have the requested digest.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    Digest {
        /// The digest that was requested.
        expected: Digest,
        /// The digest of the content.
        actual: Digest,
    },
    /// The content is shorter or longer than announced.
    #[error("size mismatch: expected {expected} bytes, got {actual}")]
    Size {
        /// The announced size in bytes.
        expected: u64,
        /// The received size in bytes. If it is larger, the size at which reading stopped.
        actual: u64,
    },
    /// The content is larger than the limit in bytes.
    #[error("larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// The server sends more slowly than the required pace.
    #[error("the server sends less than {} bytes in {} seconds", .0.bytes, .0.window.as_secs_f32())]
    TooSlow(MinimumSpeed),
    /// The server takes too long to send a document.
    #[error("the server hasn't sent all of the document in {} seconds", .0.as_secs_f32())]
    Late(Duration),
    /// The server neither accepted nor sent any bytes for this time.
    #[error("nothing was taken or sent by the server for {} seconds", .0.as_secs_f32())]
    Stalled(Duration),
    /// The document is neither a manifest nor an index, or is malformed.
    #[error("{0}")]
    Document(String),
    /// The server redirects to a forbidden URL.
    #[error("{0}")]
    Redirect(String),
    /// The authentication scheme or token is unusable.
    #[error("{0}")]
    Challenge(String),
    /// The registry names a token server that may not be its own.
    #[error("the registry wants its credentials told to {server}, which is no server of its own")]
    Foreign {
        /// The token server's host and port.
        server: String,
    },
    /// The configuration of registries is invalid.
    #[error("{0}")]
    Config(String),
    /// The credentials can't be read.
    #[error("credentials: {0}")]
    Credentials(#[from] crate::credentials::CredentialError),
    /// TLS can't be set up.
    #[error("set up tls: {0}")]
    Tls(String),
    /// The received content can't be written.
    #[error("write what was received: {0}")]
    Write(#[from] std::io::Error),
}

impl Problem {
    /// Wraps the problem into an error about `target` in a repository's registry.
    pub(crate) fn of(self, repository: &Repository, target: &impl ToString) -> Error {
        self.at(repository.registry(), target)
    }

    /// Wraps the problem into an error about `target` in the registry of this name.
    pub(crate) fn at(self, registry: &str, target: &impl ToString) -> Error {
        let registry = Some(registry.to_owned());
        Error { registry, target: target.to_string(), problem: Box::new(self) }
    }

    /// Wraps the problem into an error about `target` without a registry.
    pub(crate) fn of_url(self, target: &impl ToString) -> Error {
        Error { registry: None, target: target.to_string(), problem: Box::new(self) }
    }

    /// Logs the failure of a mirror before the next one is tried.
    pub(crate) fn log_mirror(&self, endpoint: &Endpoint) {
        tracing::debug!(problem = %self, mirror = endpoint.authority, "asking the next");
    }

    /// Returns `true` if this is a usual answer to `HEAD` for a missing object, or from a registry
    /// that doesn't support `HEAD`.
    pub(crate) fn is_unhelpful_head(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 405 | 501),
            _ => false,
        }
    }

    /// Returns `true` if a retry may succeed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_transient(),
            Self::RateLimited(_) | Self::TooSlow(_) | Self::Stalled(_) => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

/// Converts an error that broke the connection after the answer had begun.
impl From<reqwest::Error> for Problem {
    fn from(error: reqwest::Error) -> Self {
        let host = error.url().map(authority_of).unwrap_or_default();
        let place = Place { host, role: Role::Url, has_trust: false };
        // The URLs of redirects contain signatures.
        ConnectionError::new(&error.without_url(), place, None).into()
    }
}

impl From<ConnectionError> for Problem {
    fn from(error: ConnectionError) -> Self {
        Self::Transport(Box::new(error))
    }
}

impl Error {
    /// Returns the hint against this failure, if any.
    pub fn hint(&self) -> Option<Hint> {
        Some(match &*self.problem {
            Problem::Denied(_) => Hint::LogIn { registry: self.registry.clone()? },
            Problem::NotFound(_) if self.registry.is_none() => return None,
            Problem::NotFound(_) => Hint::CheckSpelling,
            Problem::RateLimited(_) => Hint::AvoidRateLimit,
            Problem::Foreign { server } => Hint::TrustTokenServer { server: server.clone() },
            Problem::Transport(error) => return error.hint(),
            Problem::Status { status, .. } if status.as_u16() == 407 => Hint::LogInToProxy,
            Problem::TooSlow(_) | Problem::Late(_) => Hint::LowerMinimumSpeed,
            Problem::Tls(_) => Hint::InstallAuthorities,
            _ => return None,
        })
    }

    /// Returns `true` if a retry may succeed.
    pub fn is_transient(&self) -> bool {
        self.problem.is_transient()
    }

    /// Returns the `errno` of the operating system, such as that of a full disk, if any.
    pub fn os_error(&self) -> Option<i32> {
        match &*self.problem {
            Problem::Transport(error) => error.os_error(),
            Problem::Write(error) => error.raw_os_error(),
            _ => None,
        }
    }

    /// Returns `true` if the content is wrong, or if the registry doesn't have the requested range.
    pub fn is_wrong_content(&self) -> bool {
        match &*self.problem {
            Problem::Digest { .. } | Problem::Size { .. } => true,
            Problem::Status { status, .. } => *status == StatusCode::RANGE_NOT_SATISFIABLE,
            _ => false,
        }
    }

    /// Returns `true` if the registry denied access.
    pub fn is_denied(&self) -> bool {
        matches!(*self.problem, Problem::Denied(_))
    }

    /// Returns `true` if the registry reported that the object doesn't exist.
    pub fn is_not_found(&self) -> bool {
        matches!(*self.problem, Problem::NotFound(_))
    }
}

/// Returns `true` if a retry after this status may succeed.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns foreign text without control characters, cut to 200 characters.
pub(crate) fn sanitize(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect::<String>().trim().to_owned()
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
