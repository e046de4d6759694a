//! Credentials and their storage.
//!
//! The client asks a [`Credentials`] for a registry's credentials when that registry sends a
//! challenge, and not before. The usual implementation is [`CredentialFiles`]: it reads docker's
//! `config.json`, podman's `auth.json` and runs the helpers that they name.

mod config_file;
mod files;
mod helper;

use std::fmt;

pub use files::{CredentialFiles, CredentialPlace};

/// The key of Docker Hub in credential files: the URL of Docker's first index.
pub(crate) const HUB_KEY: &str = "https://index.docker.io/v1/";

/// A secret that identifies the user to a registry. Its `Debug` output hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name with a password.
    Password {
        /// The user name at the registry.
        username: String,
        /// The password in plain text.
        password: String,
    },
    /// An OAuth 2 refresh token, which the token server exchanges for access tokens.
    Identity {
        /// The refresh token's text.
        token: String,
    },
    /// A token that the registry itself accepts.
    Registry {
        /// The bearer token's text.
        token: String,
    },
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Password { .. } => "Password(…)",
            Self::Identity { .. } => "Identity(…)",
            Self::Registry { .. } => "Registry(…)",
        })
    }
}

/// A failure to read or store credentials.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(pub(crate) String);

impl CredentialError {
    /// Creates an error from its message.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A source of credentials. The client calls it once per repository, on a thread that may block.
pub trait Credentials: fmt::Debug + Send + Sync {
    /// Returns the credentials for a repository of a registry, or `None`. Registries are named as
    /// in references, with their port: `docker.io`, `localhost:5000`.
    ///
    /// # Errors
    /// Fails if the storage can't be read.
    fn get(&self, registry: &str, repository: &str) -> Result<Option<Credential>, CredentialError>;
}

/// A source without any credentials.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(None)
    }
}

/// Returns the key of a registry in credential files.
pub fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}
