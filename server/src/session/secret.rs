//! `Secrets`: the secrets of a build.

use bollard_buildkit_proto::moby::buildkit::secrets::v1::GetSecretRequest;
use bollard_buildkit_proto::moby::buildkit::secrets::v1::secrets_client::SecretsClient;
use tonic::Code;

use super::Session;
use super::error::{Error, Result};

const METHOD: &str = "/moby.buildkit.secrets.v1.Secrets/GetSecret";

/// The maximal size of a secret in bytes, as in BuildKit.
const LARGEST: usize = 500 * 1024;

impl Session {
    /// Returns a secret. Returns `None` if the client doesn't have it, or has no secrets.
    ///
    /// # Errors
    /// Fails if the client can't read the secret, or if the secret is larger than 500 KiB.
    pub async fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        if !self.supports(METHOD) {
            return Ok(None);
        }
        let mut client = SecretsClient::new(self.channel());
        let request = GetSecretRequest { id: id.to_owned(), ..GetSecretRequest::default() };
        self.unless_closed(async {
            match client.get_secret(request).await.map(tonic::Response::into_inner) {
                Ok(found) if found.data.len() > LARGEST => {
                    Err(Error::LargeSecret { id: id.to_owned(), limit: LARGEST })
                }
                Ok(found) => Ok(Some(found.data)),
                Err(status) => match status.code() {
                    Code::NotFound | Code::Unimplemented => Ok(None),
                    _ => Err(Error::call(format!("fetch secret {id}"), status)),
                },
            }
        })
        .await
    }
}
