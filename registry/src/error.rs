//! What can go wrong with a registry.

use std::time::Duration;

use kiln_oci::Digest;
use reqwest::StatusCode;

/// Why a registry's answer can't be had, and what was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{target}: {problem}")]
pub struct Error {
    /// What was asked for, as `docker.io/library/alpine:3`.
    pub target: String,
    /// What is wrong.
    #[source]
    pub problem: Box<Problem>,
}

/// What is wrong.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// The registry doesn't have it, or hides it.
    #[error("not found")]
    NotFound,
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
    #[error("{}", chain(.0))]
    Transport(#[source] reqwest::Error),
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
    /// A document that is no manifest and no index.
    #[error("{0}")]
    Document(String),
    /// A redirect that is not followed.
    #[error("{0}")]
    Redirect(String),
    /// An authentication scheme or answer that can't be used.
    #[error("{0}")]
    Challenge(String),
    /// TLS can't be set up.
    #[error("set up tls: {0}")]
    Tls(String),
    /// What was received can't be written.
    #[error("write what was received: {0}")]
    Write(#[from] std::io::Error),
}

impl Problem {
    /// Names what was asked for.
    pub(crate) fn of(self, target: &impl ToString) -> Error {
        Error { target: target.to_string(), problem: Box::new(self) }
    }

    /// Tells whether the same request may succeed soon.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Transport(error) => !error.is_builder(),
            Self::RateLimited(_) => true,
            Self::Status { status, .. } => is_transient(*status),
            _ => false,
        }
    }
}

impl From<reqwest::Error> for Problem {
    fn from(error: reqwest::Error) -> Self {
        // URLs of redirects carry signatures.
        Self::Transport(error.without_url())
    }
}

impl Error {
    /// Returns what a person can do about it, if anything.
    pub fn hint(&self) -> Option<&'static str> {
        match &*self.problem {
            Problem::NotFound | Problem::Denied(_) => Some(
                "check the spelling; a private repository can't be pulled, for kiln asks anonymously",
            ),
            Problem::RateLimited(_) => Some("wait, or pull through a mirror"),
            Problem::Transport(error) if error.is_connect() => {
                Some("check that the registry is running and can be reached from here")
            }
            Problem::Tls(_) => Some("install the package ca-certificates"),
            _ => None,
        }
    }

    /// Tells whether the same request may succeed soon.
    pub fn is_transient(&self) -> bool {
        self.problem.is_transient()
    }

    /// Tells whether the registry says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        matches!(*self.problem, Problem::NotFound)
    }
}

/// Tells whether a request with this answer is worth another try.
fn is_transient(status: StatusCode) -> bool {
    matches!(status.as_u16(), 408 | 429 | 500 | 502 | 503 | 504)
}

/// Returns the pause that the registry asks for, at most a minute.
pub(crate) fn retry_after(headers: &reqwest::header::HeaderMap) -> Option<Duration> {
    let seconds = headers.get(reqwest::header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(Duration::from_mins(1)))
}

/// Returns a foreign text with nothing in it that could drive a terminal, cut to a line.
pub(crate) fn sanitize(text: &str) -> String {
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    clean.take(200).collect::<String>().trim().to_owned()
}

fn detail(text: &str) -> String {
    if text.is_empty() { String::new() } else { format!(": {text}") }
}

/// The error's own text is about requests; its causes say what happened.
fn chain(error: &reqwest::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        cause = error.source();
    }
    sanitize(&text)
}
