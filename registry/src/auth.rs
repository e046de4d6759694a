//! Authentication of requests to registries.
//!
//! A registry that requires authentication answers with a challenge. The client answers only
//! challenges of the registry itself, never those of a server that a redirect led to
//! (CVE-2020-15157). A bearer challenge names a token server. The client requests one token for
//! each registry, repository and kind of access, shares it among all requests, and keeps it until
//! shortly before it expires. It sends the token only to the origin that issued the challenge. See
//! [`is_of_registry`](crate::endpoint::is_of_registry) for the servers that receive the credentials
//! themselves.

mod challenge;
mod token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::HeaderValue;
use reqwest::{Response, Url};

use self::challenge::Challenge;
pub(crate) use self::token::Grant;
use crate::credentials::Credential;
use crate::endpoint::Endpoint;
use crate::error::Problem;
use crate::retry::Failure;
use crate::transport::Transport;

/// The value of an `Authorization` header and its expiry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Authorization {
    header: HeaderValue,
    expires: Option<Instant>,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}

impl Authorization {
    fn new(text: &str, expires: Option<Instant>) -> Result<Self, Problem> {
        let wrong = |_| Problem::Challenge("the credentials can't stand in a header".to_owned());
        let mut header = HeaderValue::from_str(text).map_err(wrong)?;
        header.set_sensitive(true);
        Ok(Self { header, expires })
    }

    fn bearer(token: &str, expires: Option<Instant>) -> Result<Self, Problem> {
        Self::new(&format!("Bearer {token}"), expires)
    }

    fn basic(username: &str, password: &str) -> Result<Self, Problem> {
        let encoded = STANDARD.encode(format!("{username}:{password}"));
        Self::new(&format!("Basic {encoded}"), None)
    }

    /// Returns the value of the `Authorization` header, marked as sensitive.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| expires > Instant::now())
    }
}

/// The requested rights, in the scope syntax of token servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    /// Returns the right to pull from a repository.
    pub(crate) fn pull(name: &str) -> Self {
        Self(vec![format!("repository:{name}:pull")])
    }

    /// Returns the rights to pull from and push to a repository.
    pub(crate) fn push(name: &str) -> Self {
        Self(vec![format!("repository:{name}:pull,push")])
    }

    /// Returns no rights, for a request that only checks credentials.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds the right to pull from another repository.
    #[must_use]
    pub(crate) fn and_pull(mut self, name: &str) -> Self {
        self.0.push(format!("repository:{name}:pull"));
        self
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// The target of a request, as far as authentication depends on it.
pub(crate) struct AuthRequest<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// The base URL of the endpoint.
    pub(crate) base: &'a Url,
    /// The repository's name at the endpoint.
    pub(crate) repository: &'a str,
    pub(crate) scopes: &'a Scopes,
}

type Slot = Arc<tokio::sync::Mutex<Option<Authorization>>>;
type CachedCredential = Arc<tokio::sync::OnceCell<Option<Credential>>>;

/// The authorizations by origin, account and scopes, and the credentials by account and repository.
#[derive(Debug, Default)]
pub(crate) struct Authorizations {
    slots: Mutex<HashMap<(String, String, String), Slot>>,
    held: Mutex<HashMap<(String, String), CachedCredential>>,
}

impl Authorizations {
    fn slot(&self, asking: &AuthRequest<'_>) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = asking.base.origin().ascii_serialization();
        let key = (origin, asking.endpoint.account.clone(), asking.scopes.0.join(" "));
        Arc::clone(slots.entry(key).or_default())
    }

    /// Returns the authorization for a request if one is known and fresh.
    pub(crate) async fn get(&self, asking: &AuthRequest<'_>) -> Option<Authorization> {
        let slot = self.slot(asking);
        let known = slot.lock().await.clone();
        known.filter(Authorization::is_fresh)
    }

    /// Answers the challenge of a refusal. `used` is the authorization that was refused, if any. If
    /// another request has replaced it in the meantime, that one is returned without a new request.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        asking: &AuthRequest<'_>,
        refusal: &Response,
        used: Option<&Authorization>,
    ) -> Result<Authorization, Failure> {
        let slot = self.slot(asking);
        let mut known = slot.lock().await;
        if let Some(known) = known.as_ref().filter(|known| Some(*known) != used && known.is_fresh())
        {
            return Ok(known.clone());
        }
        let credential = self.credential(transport, asking).await?;
        let grant = grant(transport, asking, refusal, credential.as_ref(), false).await?;
        if used == Some(&grant.authorization) {
            // The registry has refused this very authorization, so a retry would loop.
            return Err(Problem::Denied(refused_text(refusal)).into());
        }
        *known = Some(grant.authorization.clone());
        Ok(grant.authorization)
    }

    /// Returns the credentials for a repository of an endpoint, read once.
    async fn credential(
        &self,
        transport: &Transport,
        asking: &AuthRequest<'_>,
    ) -> Result<Option<Credential>, Problem> {
        let key = (asking.endpoint.account.clone(), asking.repository.to_owned());
        let held = {
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(held.entry(key.clone()).or_default())
        };
        let credentials = Arc::clone(&transport.options.credentials);
        let find = || async {
            let find = move || credentials.get(&key.0, &key.1);
            match tokio::task::spawn_blocking(find).await {
                Ok(found) => found.map_err(Problem::from),
                Err(error) => Err(Problem::Config(format!("internal error: {error}"))),
            }
        };
        held.get_or_try_init(find).await.cloned()
    }
}

/// Answers a challenge with the credentials, or anonymously without them.
pub(crate) async fn grant(
    transport: &Transport,
    asking: &AuthRequest<'_>,
    refusal: &Response,
    credential: Option<&Credential>,
    offline: bool,
) -> Result<Grant, Failure> {
    match Challenge::choose(refusal.headers()) {
        Some(Challenge::Bearer { realm, service }) => {
            if let Some(Credential::Registry { token }) = credential {
                return Ok(Authorization::bearer(token, None)?.into());
            }
            let server = token::Server { transport, asking, realm, service };
            server.grant(credential, offline).await
        }
        Some(Challenge::Basic) => match credential {
            Some(Credential::Password { username, password }) => {
                Ok(Authorization::basic(username, password)?.into())
            }
            Some(_) => {
                let problem = "the registry asks for a name and a password, and there is a token";
                Err(Problem::Denied(problem.to_owned()).into())
            }
            None => {
                let problem = "the registry asks for a name and a password";
                Err(Problem::Denied(problem.to_owned()).into())
            }
        },
        Some(Challenge::Other(scheme)) => {
            let problem = format!("the registry asks for {scheme} authentication");
            Err(Problem::Denied(problem).into())
        }
        None => Err(Problem::Denied(refused_text(refusal)).into()),
    }
}

fn refused_text(refusal: &Response) -> String {
    format!("({})", refusal.status())
}
