//! The protocol of token servers.
//!
//! The client requests tokens in three ways. It uses `GET`, anonymously or with name and password
//! (distribution's token specification). It uses `POST` in the manner of OAuth 2 with a refresh
//! token. If the server doesn't support `GET` with a password, it uses `POST` with the password.

use std::fmt;
use std::time::{Duration, Instant};

use kiln_oci::json;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE};
use reqwest::{Method, Request, Url};
use serde::Deserialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{AuthRequest, Authorization};
use crate::connection_error::{Place, Role};
use crate::credentials::Credential;
use crate::endpoint::{authority_of, forbidden, is_of_registry};
use crate::error::{Problem, sanitize};
use crate::retry::{Failure, retry_after};
use crate::transport::Transport;

/// The maximum size of a token server's answer in bytes.
const ANSWER: u64 = 1 << 20;
/// The lifetime in seconds of a token without `expires_in` (distribution's token specification).
const LIFETIME: u64 = 60;
/// The time in seconds before its expiry from which a token is no longer used.
const MARGIN: u64 = 10;
/// The client ID that kiln sends to token servers.
const CLIENT: &str = "kiln";

/// The answer of a token server.
pub(crate) struct Grant {
    pub(crate) authorization: Authorization,
    /// The refresh token, which replaces the password in later requests.
    pub(crate) refresh: Option<String>,
}

impl From<Authorization> for Grant {
    fn from(authorization: Authorization) -> Self {
        Self { authorization, refresh: None }
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant(…)")
    }
}

#[derive(Deserialize)]
struct Answer {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
    issued_at: Option<String>,
    refresh_token: Option<String>,
}

/// A token server and the parameters of the request.
pub(super) struct Server<'a> {
    pub(super) transport: &'a Transport,
    pub(super) asking: &'a AuthRequest<'a>,
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

impl Server<'_> {
    /// Requests a token. With `offline`, requests a refresh token too.
    pub(super) async fn grant(
        &self,
        credential: Option<&Credential>,
        offline: bool,
    ) -> Result<Grant, Failure> {
        let realm = self.realm(credential.is_some())?;
        match credential {
            Some(Credential::Identity { token }) => {
                let form = [("grant_type", "refresh_token"), ("refresh_token", token)];
                self.send(self.post(realm, &form)?).await
            }
            Some(Credential::Password { username, password }) => {
                let basic = Authorization::basic(username, password)?;
                let mut request = self.get(realm.clone(), Some(username), offline);
                request.headers_mut().insert(AUTHORIZATION, basic.header());
                let answer = self.send(request).await;
                let unknown = |failure: &Failure| match &failure.problem {
                    Problem::NotFound(_) => true,
                    Problem::Status { status, .. } => status.as_u16() == 405,
                    _ => false,
                };
                if !answer.as_ref().is_err_and(unknown) {
                    return answer;
                }
                let access = if offline { "offline" } else { "online" };
                let form = [
                    ("grant_type", "password"),
                    ("username", username),
                    ("password", password),
                    ("access_type", access),
                ];
                self.send(self.post(realm, &form)?).await
            }
            _ => self.send(self.get(realm, None, offline)).await,
        }
    }

    /// Returns the token server's URL. Fails if the client must not connect to it, or must not send
    /// it the credentials.
    fn realm(&self, with_credentials: bool) -> Result<Url, Problem> {
        let wrong = || Problem::Challenge("the registry's token server has no address".to_owned());
        let mut url = Url::parse(&self.realm).map_err(|_| wrong())?;
        if let Some(problem) = forbidden(self.asking.base, &url) {
            return Err(Problem::Challenge(problem));
        }
        // Only the user's own credentials may be sent.
        let _ = (url.set_username(""), url.set_password(None));
        let known = &self.asking.endpoint.token_servers;
        if with_credentials && !is_of_registry(&url, self.asking.base, known) {
            return Err(Problem::Foreign { server: authority_of(&url) });
        }
        Ok(url)
    }

    fn get(&self, mut url: Url, account: Option<&str>, offline: bool) -> Request {
        {
            let mut query = url.query_pairs_mut();
            if let Some(account) = account {
                query.append_pair("account", account);
            }
            query.append_pair("client_id", CLIENT);
            if offline {
                query.append_pair("offline_token", "true");
            }
            if let Some(service) = &self.service {
                query.append_pair("service", service);
            }
            for scope in self.asking.scopes.iter() {
                query.append_pair("scope", scope);
            }
        }
        Request::new(Method::GET, url)
    }

    fn post(&self, url: Url, form: &[(&str, &str)]) -> Result<Request, Problem> {
        let scopes: Vec<&str> = self.asking.scopes.iter().collect();
        let scopes = scopes.join(" ");
        let mut pairs = form.to_vec();
        pairs.push(("client_id", CLIENT));
        pairs.extend(self.service.as_deref().map(|service| ("service", service)));
        if !scopes.is_empty() {
            pairs.push(("scope", &scopes));
        }
        // A form has the same encoding as a query.
        let mut encoded = url.clone();
        encoded.set_query(None);
        encoded.query_pairs_mut().extend_pairs(pairs);
        let body = encoded.query().unwrap_or_default().to_owned();
        let mut request = Request::new(Method::POST, url);
        let form = "application/x-www-form-urlencoded".parse();
        let form = form.map_err(|_| Problem::Challenge("no form can be sent".to_owned()))?;
        request.headers_mut().insert(CONTENT_TYPE, form);
        *request.body_mut() = Some(body.into());
        Ok(request)
    }

    /// Returns the server's role for error messages. A registry may issue tokens itself.
    fn place(&self, url: &Url) -> Place {
        if self.asking.endpoint.serves(url) {
            return self.asking.endpoint.place();
        }
        Place { host: authority_of(url), role: Role::TokenServer, has_trust: false }
    }

    /// Sends a request without following redirects: the credentials are for this server.
    async fn send(&self, request: Request) -> Result<Grant, Failure> {
        let url = request.url().clone();
        let client = self.transport.client_of_tokens(&url, self.asking.endpoint)?;
        let response = match client.execute(request).await {
            Ok(response) => response,
            Err(error) => {
                let place = self.place(&url);
                return Err(self.transport.unanswered(&url, place, error).await.into());
            }
        };
        let status = response.status();
        if !status.is_success() {
            let pause = retry_after(response.headers());
            let body = self.transport.read(response, ANSWER).await.unwrap_or_default();
            let said = said(&body);
            let problem = match status.as_u16() {
                401 | 403 => Problem::Denied(format!("the token server refuses{said} ({status})")),
                404 => Problem::NotFound(format!("the token server is not there ({status})")),
                429 => Problem::RateLimited("by its token server".to_owned()),
                _ => Problem::Status { status, message: format!("from the token server{said}") },
            };
            return Err(Failure { problem, pause });
        }
        let bytes = self.transport.read(response, ANSWER).await?;
        Ok(read(&bytes)?)
    }
}

/// Returns the error message in a token server's refusal.
fn said(body: &[u8]) -> String {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct TokenError {
        details: String,
        error_description: String,
        message: String,
    }
    let TokenError { details, error_description, message } =
        json::from_go(body).unwrap_or_default();
    let texts = [details, error_description, message];
    let text = texts.into_iter().find(|text| !text.is_empty());
    text.map_or_else(String::new, |text| format!(": {}", sanitize(&text)))
}

fn read(bytes: &[u8]) -> Result<Grant, Problem> {
    let wrong = || Problem::Challenge("the token server's answer holds no token".to_owned());
    let answer: Answer = json::from_go(bytes).map_err(|_| wrong())?;
    let usable = |token: &String| is_token(token);
    let token = [answer.token, answer.access_token].into_iter().flatten().find(usable);
    let token = token.ok_or_else(wrong)?;
    let mut lifetime = answer.expires_in.unwrap_or(LIFETIME).min(86_400);
    if let Some(issued) = answer.issued_at.and_then(|at| OffsetDateTime::parse(&at, &Rfc3339).ok())
    {
        // The token may come from a cache. A wrong clock here shortens its lifetime or leaves it as
        // it is.
        let age = (OffsetDateTime::now_utc() - issued).whole_seconds();
        lifetime = lifetime.saturating_sub(u64::try_from(age).unwrap_or_default());
    }
    let lifetime = lifetime.max(LIFETIME) - MARGIN;
    let expires = Instant::now() + Duration::from_secs(lifetime);
    let authorization = Authorization::bearer(&token, Some(expires))?;
    Ok(Grant { authorization, refresh: answer.refresh_token.filter(usable) })
}

/// Returns `true` if the text can stand in a header.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_end_in_time() {
        let seconds = |text: &str| {
            let grant = read(text.as_bytes()).unwrap();
            let left = grant.authorization.expires.unwrap() - Instant::now();
            left.as_secs() + 1
        };
        assert_eq!(seconds(r#"{"token": "x"}"#), LIFETIME - MARGIN);
        assert_eq!(seconds(r#"{"access_token": "x", "expires_in": 300}"#), 290);
        assert_eq!(seconds(r#"{"token": "x", "expires_in": 1}"#), LIFETIME - MARGIN);
        let old = r#"{"token": "x", "expires_in": 900, "issued_at": "2020-01-01T00:00:00Z"}"#;
        assert_eq!(seconds(old), LIFETIME - MARGIN);
        for wrong in ["", "{}", "[]", r#"{"token": ""}"#, r#"{"token": "a b"}"#] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let grant = read(br#"{"token": "x", "refresh_token": "r"}"#).unwrap();
        assert_eq!(grant.refresh.as_deref(), Some("r"));
    }

    #[test]
    fn refusals_speak() {
        assert_eq!(said(br#"{"details": "wrong\npassword"}"#), ": wrong password");
        assert_eq!(said(b"<html>"), "");
    }
}
