//! `Auth`: credentials and tokens for registries.
//!
//! A client may fetch tokens itself, so that its password stays with it. It offers this by naming a
//! public key, the *token authority*, for a host. The key depends on the client's secrets and on a
//! random salt of this server. A server that reuses what one client's token has opened for another
//! client first has the other one sign a challenge with the same key. Signatures are Ed25519's, with
//! the message behind the signature.

use std::time::Duration;

use bollard_buildkit_proto::moby::filesync::v1::auth_client::AuthClient;
use bollard_buildkit_proto::moby::filesync::v1::{
    CredentialsRequest, FetchTokenRequest, GetTokenAuthorityRequest, VerifyTokenAuthorityRequest,
};
use ring::rand::{SecureRandom as _, SystemRandom};
use ring::signature::{ED25519, UnparsedPublicKey};
use tokio::time::timeout;
use tonic::{Code, Status};

use super::Session;
use super::error::{Error, Result};

/// The time limit of a call. The client may ask an external program.
const LIMIT: Duration = Duration::from_mins(1);
/// The length of a signature in bytes.
const SIGNATURE: usize = 64;

const CREDENTIALS: &str = "/moby.filesync.v1.Auth/Credentials";
const FETCH_TOKEN: &str = "/moby.filesync.v1.Auth/FetchToken";
const GET_AUTHORITY: &str = "/moby.filesync.v1.Auth/GetTokenAuthority";
const VERIFY_AUTHORITY: &str = "/moby.filesync.v1.Auth/VerifyTokenAuthority";

/// A request for a registry's token.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRequest {
    /// The name by which the client presents itself to the token server.
    pub client_id: String,
    /// The host of the registry.
    pub host: String,
    /// The URL of the token server.
    pub realm: String,
    /// The service that the registry names.
    pub service: String,
    /// The scopes, for example `repository:library/debian:pull`.
    pub scopes: Vec<String>,
}

/// A registry's token.
#[derive(Clone, PartialEq, Eq)]
pub struct Token {
    /// The bearer token.
    pub token: String,
    /// The time for which the token is valid; zero if unknown.
    pub expires_in: Duration,
    /// The time of issue in seconds since 1970; 0 if unknown.
    pub issued_at: i64,
}

impl Session {
    /// Returns the user name and the password or token for a registry's host. With an empty user
    /// name, the secret is an identity token. Returns `None` if the client has none.
    ///
    /// # Errors
    /// Fails if the client can't look for credentials.
    pub async fn credentials(&self, host: &str) -> Result<Option<(String, String)>> {
        let request = CredentialsRequest { host: host.to_owned() };
        let call = async { self.auth().credentials(request).await };
        let found = self.ask(CREDENTIALS, format!("fetch credentials for {host}"), call).await?;
        let found = found.map(tonic::Response::into_inner);
        let found = found.map(|found| (found.username, found.secret));
        Ok(found.filter(|(user, secret)| !user.is_empty() || !secret.is_empty()))
    }

    /// Returns the key with which the client signs for a host. Returns `None` if the client doesn't
    /// fetch tokens.
    ///
    /// # Errors
    /// Fails if the client fails or answers with something that is no key.
    pub async fn token_authority(&self, host: &str) -> Result<Option<[u8; 32]>> {
        let (host, salt) = (host.to_owned(), self.shared.salt.to_vec());
        let action = format!("get the token authority of {host}");
        let request = GetTokenAuthorityRequest { host, salt };
        let call = async { self.auth().get_token_authority(request).await };
        let Some(found) = self.ask(GET_AUTHORITY, action, call).await? else { return Ok(None) };
        let key = found.into_inner().public_key;
        let invalid = |key: Vec<u8>| Error::Protocol(format!("a key of {} bytes", key.len()));
        key.try_into().map(Some).map_err(invalid)
    }

    /// Returns `true` if the client proves that it has the private key of a token authority.
    ///
    /// # Errors
    /// Fails if the client fails, or if the system has no random numbers.
    pub async fn verify_token_authority(&self, host: &str, key: &[u8; 32]) -> Result<bool> {
        let mut payload = [0; 32];
        let random = SystemRandom::new().fill(&mut payload);
        random.map_err(|_| Error::Protocol("the system has no random numbers".to_owned()))?;
        let (host, salt) = (host.to_owned(), self.shared.salt.to_vec());
        let action = format!("verify the token authority of {host}");
        let request = VerifyTokenAuthorityRequest { host, payload: payload.to_vec(), salt };
        let call = async { self.auth().verify_token_authority(request).await };
        let Some(found) = self.ask(VERIFY_AUTHORITY, action, call).await? else {
            return Ok(false);
        };
        let signed = found.into_inner().signed;
        let Some((signature, message)) = signed.split_at_checked(SIGNATURE) else {
            return Ok(false);
        };
        let key = UnparsedPublicKey::new(&ED25519, key);
        Ok(message == payload && key.verify(message, signature).is_ok())
    }

    /// Has the client fetch a token. Returns `None` if the client doesn't fetch tokens.
    ///
    /// # Errors
    /// Fails if the client can't get a token.
    pub async fn fetch_token(&self, request: TokenRequest) -> Result<Option<Token>> {
        let TokenRequest { client_id, host, realm, service, scopes } = request;
        let action = format!("fetch a token for {host}");
        let request = FetchTokenRequest { client_id, host, realm, service, scopes };
        let call = async { self.auth().fetch_token(request).await };
        let found = self.ask(FETCH_TOKEN, action, call).await?;
        Ok(found.map(tonic::Response::into_inner).map(|found| Token {
            token: found.token,
            expires_in: Duration::from_secs(found.expires_in.try_into().unwrap_or_default()),
            issued_at: found.issued_at,
        }))
    }

    fn auth(&self) -> AuthClient<tonic::transport::Channel> {
        AuthClient::new(self.channel())
    }

    /// Waits for a call. Returns `None` if the client doesn't offer the method.
    async fn ask<T>(
        &self,
        method: &str,
        action: String,
        call: impl Future<Output = Result<T, Status>>,
    ) -> Result<Option<T>> {
        if !self.supports(method) {
            return Ok(None);
        }
        let call = async {
            match timeout(LIMIT, call).await {
                Err(_) => Err(Error::TimedOut { action }),
                Ok(Ok(answer)) => Ok(Some(answer)),
                Ok(Err(status)) if is_absent(method, status.code()) => Ok(None),
                Ok(Err(status)) => Err(Error::call(action, status)),
            }
        };
        self.unless_closed(call).await
    }
}

/// Returns `true` for a code that means that the client doesn't offer a method. Clients refuse to
/// name a token authority with `UNAVAILABLE`.
fn is_absent(method: &str, code: Code) -> bool {
    code == Code::Unimplemented || (method == GET_AUTHORITY && code == Code::Unavailable)
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}
