//! Who asks: names, passwords and tokens, and where they are kept.
//!
//! The client asks a [`Credentials`] for what belongs to a registry when that registry wants to know
//! who asks, and not before. [`CredentialFiles`] is the usual one: docker's `config.json`, podman's
//! `auth.json` and the helper programs that they name.

mod config_file;
mod files;
mod helper;

use std::fmt;

pub use files::{CredentialFiles, Kept};

/// The key of Docker Hub in configuration files: historically the address of its first index.
pub const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What proves who asks. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A name and a password.
    Password {
        /// The name.
        username: String,
        /// The password.
        password: String,
    },
    /// A token that the token server exchanges for others: a refresh token of OAuth 2.
    Identity {
        /// The token.
        token: String,
    },
    /// A token that the registry takes as it is.
    Registry {
        /// The token.
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

/// Why credentials can't be read or kept.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CredentialError(pub(crate) String);

/// Knows credentials. It is asked on a thread that may block, once for each repository.
pub trait Credentials: fmt::Debug + Send + Sync {
    /// Returns what belongs to a repository of a registry, `None` where there is nothing. Registries
    /// are named as in references, with their port: `docker.io`, `localhost:5000`.
    ///
    /// # Errors
    /// Fails where it is kept in something that is broken.
    fn get(&self, registry: &str, repository: &str) -> Result<Option<Credential>, CredentialError>;
}

/// Knows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

impl Credentials for Anonymous {
    fn get(&self, _: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        Ok(None)
    }
}

/// Returns the key under which a registry's credentials are kept.
pub fn key_of(registry: &str) -> &str {
    if registry == "docker.io" { HUB_KEY } else { registry }
}
