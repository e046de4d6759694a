//! Who asks, and how that is proved.
//!
//! A registry that wants to know who asks answers with a challenge. Only challenges of the registry
//! itself are answered, never those of a server that a redirect led to (CVE-2020-15157). Bearer
//! challenges name a token server: it is asked once for each registry, repository and kind of access
//! however many requests need the token, which is kept until shortly before it expires. What was
//! found is sent to the origin that asked for it and to nobody else; see
//! [`is_of_registry`](crate::endpoint::is_of_registry) for whom the credentials themselves are told.

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

/// What a request is made with.
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

    /// Returns the value of the header `Authorization`.
    pub(crate) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    fn is_fresh(&self) -> bool {
        self.expires.is_none_or(|expires| expires > Instant::now())
    }
}

/// What is asked of an endpoint, in the words of token servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scopes(Vec<String>);

impl Scopes {
    /// Returns the right to take from a repository.
    pub(crate) fn pull(name: &str) -> Self {
        Self(vec![format!("repository:{name}:pull")])
    }

    /// Returns the right to take from and add to a repository.
    pub(crate) fn push(name: &str) -> Self {
        Self(vec![format!("repository:{name}:pull,push")])
    }

    /// Returns no right but to be known.
    pub(crate) fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds the right to take from another repository.
    #[must_use]
    pub(crate) fn and_pull(mut self, name: &str) -> Self {
        self.0.push(format!("repository:{name}:pull"));
        self
    }

    fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// What a request is about.
pub(crate) struct Asking<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// The endpoint's address.
    pub(crate) base: &'a Url,
    /// The repository's name there.
    pub(crate) repository: &'a str,
    pub(crate) scopes: &'a Scopes,
}

type Slot = Arc<tokio::sync::Mutex<Option<Authorization>>>;
type Held = Arc<tokio::sync::OnceCell<Option<Credential>>>;

/// What was found out, by origin, account and scopes; and the credentials, by account and
/// repository.
#[derive(Debug, Default)]
pub(crate) struct Authorizations {
    slots: Mutex<HashMap<(String, String, String), Slot>>,
    held: Mutex<HashMap<(String, String), Held>>,
}

impl Authorizations {
    fn slot(&self, asking: &Asking<'_>) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = asking.base.origin().ascii_serialization();
        let key = (origin, asking.endpoint.account.clone(), asking.scopes.0.join(" "));
        Arc::clone(slots.entry(key).or_default())
    }

    /// Returns what a request is made with, if that is known.
    pub(crate) async fn get(&self, asking: &Asking<'_>) -> Option<Authorization> {
        let slot = self.slot(asking);
        let known = slot.lock().await.clone();
        known.filter(Authorization::is_fresh)
    }

    /// Finds what a refusal asks for. `used` is what was refused, if anything: where another request
    /// has replaced it meanwhile nothing is asked.
    pub(crate) async fn answer(
        &self,
        transport: &Transport,
        asking: &Asking<'_>,
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
            // The very same was refused: asking again would not end.
            return Err(Problem::Denied(refused_text(refusal)).into());
        }
        *known = Some(grant.authorization.clone());
        Ok(grant.authorization)
    }

    /// Returns the credentials that belong to a repository of an endpoint.
    async fn credential(
        &self,
        transport: &Transport,
        asking: &Asking<'_>,
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

/// Gets what a challenge asks for, with credentials or anonymously.
pub(crate) async fn grant(
    transport: &Transport,
    asking: &Asking<'_>,
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
