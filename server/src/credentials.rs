//! The credentials of a session's client.

use kiln_registry::{Credential, CredentialError, Credentials};
use tokio::runtime::Handle;

use crate::session::Session;

/// The credentials that a client has for registries. They serve this client's builds alone.
#[derive(Debug)]
pub(crate) struct SessionCredentials {
    session: Session,
    runtime: Handle,
}

impl SessionCredentials {
    /// Returns the credentials of a session. Must be called within a Tokio runtime.
    pub(crate) fn new(session: Session) -> Self {
        Self { session, runtime: Handle::current() }
    }
}

impl Credentials for SessionCredentials {
    fn get(&self, registry: &str, _: &str) -> Result<Option<Credential>, CredentialError> {
        // Docker's clients know the Hub by the name of its server.
        let host = if registry == "docker.io" { "registry-1.docker.io" } else { registry };
        let found = self.runtime.block_on(self.session.credentials(host));
        let found = found.map_err(|error| CredentialError::new(error.to_string()))?;
        Ok(found.map(|(username, password)| {
            if username.is_empty() {
                Credential::Identity { token: password }
            } else {
                Credential::Password { username, password }
            }
        }))
    }
}
