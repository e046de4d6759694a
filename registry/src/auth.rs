//! Challenges and tokens.
//!
//! A registry that wants a token says where it is to be had. It is asked for anonymously, once for
//! each registry and scope however many requests need it, and kept until shortly before it expires.
//! Tokens are bound to the origin that asked for them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};
use reqwest::{Response, Url};
use serde::Deserialize;

use crate::endpoint::forbidden;
use crate::error::Problem;
use crate::tls::HttpClients;
use crate::transport::read_limited;

/// Most bytes of a token server's answer.
const ANSWER: u64 = 1 << 20;

/// How long a token is good for where its server doesn't say (distribution's token specification).
const LIFETIME: u64 = 60;

/// A token, kept out of every log.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Token {
    value: String,
    expires: Instant,
}

impl Token {
    /// Returns the value of the `Authorization` header.
    pub(crate) fn header(&self) -> String {
        format!("Bearer {}", self.value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// The tokens, by origin and scope.
#[derive(Debug, Default)]
pub(crate) struct Tokens(Mutex<HashMap<(String, String), Slot>>);

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

impl Tokens {
    fn slot(&self, origin: &Url, scope: &str) -> Slot {
        let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (origin.origin().ascii_serialization(), scope.to_owned());
        Arc::clone(slots.entry(key).or_default())
    }

    /// Returns the token for a scope, if there is one.
    pub(crate) async fn get(&self, origin: &Url, scope: &str) -> Option<Token> {
        let slot = self.slot(origin, scope);
        let token = slot.lock().await.clone();
        token.filter(|token| token.expires > Instant::now())
    }

    /// Gets a token as a refusal asks for it. `used` is the one that was refused, if any: where
    /// another request has replaced it meanwhile nothing is done.
    pub(crate) async fn answer(
        &self,
        clients: &HttpClients,
        refusal: &Response,
        (origin, scope): (&Url, &str),
        used: Option<&Token>,
    ) -> Result<(), Problem> {
        let slot = self.slot(origin, scope);
        let mut token = slot.lock().await;
        if token.as_ref() != used && token.is_some() {
            return Ok(());
        }
        let url = token_url(refusal.headers(), origin, scope)?;
        *token = Some(fetch(clients, url).await?);
        Ok(())
    }
}

/// Returns where a token is to be had.
fn token_url(headers: &HeaderMap, origin: &Url, scope: &str) -> Result<Url, Problem> {
    let mut schemes = Vec::new();
    for header in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = header.to_str() else { continue };
        for challenge in http_auth::parse_challenges(text).unwrap_or_default() {
            schemes.push(challenge.scheme.to_owned());
            if !challenge.scheme.eq_ignore_ascii_case("bearer") {
                continue;
            }
            let param = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            let realm = param("realm").unwrap_or_default();
            let mut url = Url::parse(&realm).map_err(|_| {
                Problem::Challenge("the registry's token server has no address".into())
            })?;
            if let Some(problem) = forbidden(origin, &url) {
                return Err(Problem::Challenge(problem));
            }
            if let Some(service) = param("service") {
                url.query_pairs_mut().append_pair("service", &service);
            }
            url.query_pairs_mut().append_pair("scope", scope);
            return Ok(url);
        }
    }
    Err(match schemes.first() {
        Some(scheme) => Problem::Denied(format!(
            "the registry asks for {} authentication",
            crate::error::sanitize(scheme)
        )),
        None => Problem::Denied(String::new()),
    })
}

async fn fetch(clients: &HttpClients, url: Url) -> Result<Token, Problem> {
    let response = clients.of(url.scheme())?.get(url).send().await?;
    let status = response.status();
    if matches!(status.as_u16(), 401 | 403) {
        return Err(Problem::Denied("the token server refuses".to_owned()));
    }
    if status.as_u16() == 429 {
        return Err(Problem::RateLimited("by its token server".to_owned()));
    }
    if !status.is_success() {
        let message = "from the token server".to_owned();
        return Err(Problem::Status { status, message });
    }
    let bytes = read_limited(response, ANSWER).await?;
    let wrong = || Problem::Challenge("the token server's answer holds no token".to_owned());
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| wrong())?;
    let value = answer.token.or(answer.access_token).filter(|token| is_token(token));
    let lifetime = answer.expires_in.unwrap_or(LIFETIME).clamp(LIFETIME, 86_400);
    let expires = Instant::now() + Duration::from_secs(lifetime - 10);
    Ok(Token { value: value.ok_or_else(wrong)?, expires })
}

/// Tells whether a text can stand in a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(challenge: &str) -> Result<String, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(WWW_AUTHENTICATE, challenge.parse().unwrap());
        let origin = Url::parse("https://registry.example.org/v2/").unwrap();
        token_url(&headers, &origin, "repository:a/b:pull").map(|url| url.to_string())
    }

    #[test]
    fn challenges_lead_to_the_token_server() {
        assert_eq!(
            url("Bearer realm=\"https://auth.example.org/token\",service=\"x y\"").unwrap(),
            "https://auth.example.org/token?service=x+y&scope=repository%3Aa%2Fb%3Apull"
        );
        assert!(matches!(url("Basic realm=\"x\""), Err(Problem::Denied(_))));
        for realm in ["http://auth.example.org/", "file:///etc/passwd", "nonsense"] {
            assert!(url(&format!("Bearer realm=\"{realm}\"")).is_err(), "{realm}");
        }
    }
}
