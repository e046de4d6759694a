//! What can go wrong with a registry.

use std::time::Duration;

use kiln_oci::Digest;
use reqwest::StatusCode;

use crate::connection_error::{ConnectionError, Place, Role};
use crate::endpoint::{Endpoint, authority_of};
use crate::limits::Pace;
use crate::repository::Repository;

/// Why a registry's answer can't be had, and what was asked for. The text tells all of it: no other
/// error stands behind it.
#[derive(Debug, thiserror::Error)]
#[error("{target}: {problem}")]
pub struct Error {
    /// The registry that was asked, where one was.
    pub registry: Option<String>,
    /// What was asked for, as `docker.io/library/alpine:3`.
    pub target: String,
    /// What is wrong.
    pub problem: Box<Problem>,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The registry doesn't have it, or hides it.
    #[error("not found{}", detail(.0))]
    NotFound(String),
    /// The registry wants to know who asks.
    #[error("access denied{}", detail(.0))]
    Denied(String),
    /// Too many requests, again and again.
    #[error("the registry limits requests{}", detail(.0))]
    RateLimited(String),
    /// Another status than expected.
    #[error("unexpected answer {status}{}", detail(.message))]
    Status {
        /// The status.
        status: StatusCode,
        /// What the registry says about it.
        message: String,
    },
    /// The registry can't be reached, or the connection broke.
    #[error("{0}")]
    Transport(Box<ConnectionError>),
    /// The bytes are not the ones that were asked for.
    #[error("digest mismatch: expected {expected}, got {actual}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are fewer or more bytes than announced.
    #[error("size mismatch: expected {expected} bytes, got {actual}")]
    Size {
        /// What was announced.
        expected: u64,
        /// What came; where it is more, where reading stopped.
        actual: u64,
    },
    /// There are more bytes than anything sensible has.
    #[error("larger than the limit of {0} bytes")]
    TooLarge(u64),
    /// The server sends too slowly.
    #[error("the server sends less than {} bytes in {} seconds", .0.bytes, .0.window.as_secs_f32())]
    TooSlow(Pace),
    /// The server takes too long over a document.
    #[error("the server hasn't sent all of the document in {} seconds", .0.as_secs_f32())]
    Late(Duration),
    /// The server neither takes nor sends anything.
    #[error("nothing was taken or sent by the server for {} seconds", .0.as_secs_f32())]
    Stalled(Duration),
    /// A document that is no manifest and no index.
    #[error("{0}")]
    Document(String),
    /// A redirect that is not followed.
    #[error("{0}")]
    Redirect(String),
    /// An authentication scheme or answer that can't be used.
    #[error("{0}")]
    Challenge(String),
    /// The registry wants its credentials told to somebody whom they may not belong to.
    #[error("the registry wants its credentials told to {server}, which is no server of its own")]
    Foreign {
        /// Whom.
        server: String,
    },
    /// What is configured about registries is wrong.
    #[error("{0}")]
    Config(String),
    /// Credentials can't be had.
    #[error("credentials: {0}")]
    Credentials(#[from] crate::credentials::CredentialError),
    /// TLS can't be set up.
    #[error("set up tls: {0}")]
    Tls(String),
    /// What was received can't be written.
    #[error("write what was received: {0}")]
    Write(#[from] std::io::Error),
}

impl Problem {
    /// Names what was asked for, of which registry.
    pub(crate) fn of(self, repository: &Repository, target: &impl ToString) -> Error {
        self.at(repository.registry(), target)
    }

    /// Names what was asked for, of the registry of this name.
    pub(crate) fn at(self, registry: &str, target: &impl ToString) -> Error {
        let registry = Some(registry.to_owned());
        Error { registry, target: target.to_string(), problem: Box::new(self) }
    }

    /// Names what was asked for, of no registry.
    pub(crate) fn of_url(self, target: &impl ToString) -> Error {
        Error { registry: None, target: target.to_string(), problem: Box::new(self) }
    }

    /// Notes that a mirror was of no use, before the next is asked.
    pub(crate) fn log_mirror(&self, endpoint: &Endpoint) {
        tracing::debug!(problem = %self, mirror = endpoint.authority, "asking the next");
    }

    /// Tells whether this is how a registry answers `HEAD` of what it doesn't have, or where it
    /// knows no `HEAD`.
    pub(crate) fn is_unhelpful_head(&self) -> bool {
        match self {
            Self::NotFound(_) => true,
            Self::Status { status, .. } => matches!(status.as_u16(), 405 | 501),
            _ => false,
        }
    }

    /// Tells whether the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Transport(error) => error.is_transient(),
            Self::RateLimited(_) | Self::TooSlow(_) | Self::Stalled(_) => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

/// The connection broke after the answer had begun.
impl From<reqwest::Error> for Problem {
    fn from(error: reqwest::Error) -> Self {
        let host = error.url().map(authority_of).unwrap_or_default();
        let place = Place { host, role: Role::Url, has_trust: false };
        // URLs of redirects carry signatures.
        ConnectionError::new(&error.without_url(), place, None).into()
    }
}

impl From<ConnectionError> for Problem {
    fn from(error: ConnectionError) -> Self {
        Self::Transport(Box::new(error))
    }
}

impl Error {
    /// Returns what a person can do about it, if anything.
    pub fn hint(&self) -> Option<String> {
        let hint = match &*self.problem {
            Problem::Denied(_) | Problem::NotFound(_) if self.registry.is_none() => return None,
            Problem::Denied(_) => {
                let registry = self.registry.as_deref().filter(|name| *name != "docker.io");
                let command = format!("kiln login {}", registry.unwrap_or_default());
                return Some(format!(
                    "check the spelling, or log in with `{}`",
                    command.trim_end()
                ));
            }
            Problem::NotFound(_) => "check the spelling",
            Problem::RateLimited(_) => "wait, log in, or pull through a mirror",
            Problem::Foreign { server, .. } => {
                return Some(format!(
                    "if that is right, put token-servers = [\"{server}\"] under the registry in \
                     registries.toml"
                ));
            }
            Problem::Transport(error) => return error.hint(),
            Problem::Status { status, .. } if status.as_u16() == 407 => {
                "put a name and a password into the proxy's address, as http://NAME:PASSWORD@PROXY"
            }
            Problem::TooSlow(_) | Problem::Late(_) => {
                "--min-download-speed sets how slow a server may be; 0 lifts the limit"
            }
            Problem::Tls(_) => "install the package ca-certificates",
            _ => return None,
        };
        Some(hint.to_owned())
    }

    /// Tells whether the same request may succeed soon.
    pub fn is_transient(&self) -> bool {
        self.problem.is_transient()
    }

    /// Returns the error of the system that is behind this, as of a disk that is full.
    pub fn os_error(&self) -> Option<i32> {
        match &*self.problem {
            Problem::Transport(error) => error.os_error(),
            Problem::Write(error) => error.raw_os_error(),
            _ => None,
        }
    }

    /// Tells whether what came isn't what was asked for, or the part that was asked for isn't there.
    pub fn is_wrong_content(&self) -> bool {
        match &*self.problem {
            Problem::Digest { .. } | Problem::Size { .. } => true,
            Problem::Status { status, .. } => *status == StatusCode::RANGE_NOT_SATISFIABLE,
            _ => false,
        }
    }

    /// Tells whether the registry refuses whoever asks.
    pub fn is_denied(&self) -> bool {
        matches!(*self.problem, Problem::Denied(_))
    }

    /// Tells whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(*self.problem, Problem::NotFound(_))
    }
}

/// Tells whether a request with this answer is worth another try.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns a foreign text with nothing in it that could drive a terminal, cut to a line.
pub(crate) fn sanitize(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect::<String>().trim().to_owned()
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}
