//! Requests: redirects, retries, the choice of scheme.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::{OnceCell, Semaphore};

use crate::auth::{Token, Tokens};
use crate::client::Options;
use crate::endpoint::{base, forbidden, is_loopback, same_origin};
use crate::error::{Problem, retry_after, sanitize};
use crate::repository::Repository;
use crate::tls::HttpClients;

/// How many redirects are followed.
pub(crate) const REDIRECTS: usize = 10;

/// Most bytes of a registry's complaint that are read.
const COMPLAINT: u64 = 64 << 10;

/// What a request is for; tokens are asked for accordingly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Pull,
    Push,
}

/// A request, as often as it has to be made.
#[derive(Clone, Debug)]
pub(crate) struct Call<'a> {
    pub(crate) repository: &'a Repository,
    pub(crate) access: Access,
    pub(crate) method: Method,
    pub(crate) target: Target<'a>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Option<Bytes>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Target<'a> {
    /// Below the repository, as `manifests/latest`.
    Path(&'a str),
    /// Where the registry said.
    Url(Url),
}

/// What all requests of a client share.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) options: Options,
    pub(crate) clients: HttpClients,
    tokens: Tokens,
    bases: Mutex<HashMap<String, Arc<OnceCell<Url>>>>,
    /// Blobs under way.
    pub(crate) downloads: Arc<Semaphore>,
}

impl Transport {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            clients: HttpClients::new(options.connect_timeout, options.read_timeout),
            tokens: Tokens::default(),
            bases: Mutex::default(),
            downloads: Arc::new(Semaphore::new(options.downloads.max(1))),
            options,
        }
    }

    /// Makes a request until it succeeds, fails for good, or has failed too often.
    ///
    /// # Errors
    /// Every status other than success is an error.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response, Problem> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let (problem, pause) = match self.once(call).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) => {
                    let pause = retry_after(response.headers());
                    (complaint(response).await, pause)
                }
                Err(problem) => (problem, None),
            };
            if attempt >= self.options.attempts || !problem.is_transient() {
                return Err(problem);
            }
            tracing::debug!(%problem, attempt, "registry request failed, trying again");
            tokio::time::sleep(pause.unwrap_or_else(|| self.pause(attempt))).await;
        }
    }

    /// Returns how long to wait after so many failures: twice as long each time.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        let doubled = self.options.backoff.saturating_mul(1 << failures.saturating_sub(1).min(5));
        doubled.min(Duration::from_secs(10))
    }

    /// Makes a request once, and once more where it was refused for want of a token.
    async fn once(&self, call: &Call<'_>) -> Result<Response, Problem> {
        let origin = self.base(call.repository.registry()).await?;
        let actions = if call.access == Access::Push { "pull,push" } else { "pull" };
        let scope = format!("repository:{}:{actions}", call.repository.name());
        let url = match &call.target {
            Target::Url(url) => url.clone(),
            Target::Path(path) => {
                let path = format!("{}/{path}", call.repository.name());
                let wrong = |_| Problem::Document(format!("{path:?} is no path"));
                origin.join(&path).map_err(wrong)?
            }
        };
        let token = self.tokens.get(&origin, &scope).await;
        let response = self.follow(call, &origin, url.clone(), token.as_ref()).await?;
        let refused = response.status() == StatusCode::UNAUTHORIZED;
        if !refused || !same_origin(response.url(), &origin) {
            return Ok(response);
        }
        let what = (&origin, scope.as_str());
        self.tokens.answer(&self.clients, &response, what, token.as_ref()).await?;
        let token = self.tokens.get(&origin, &scope).await;
        self.follow(call, &origin, url, token.as_ref()).await
    }

    /// Makes a request and follows redirects. The token goes to the registry's origin only.
    async fn follow(
        &self,
        call: &Call<'_>,
        origin: &Url,
        mut url: Url,
        token: Option<&Token>,
    ) -> Result<Response, Problem> {
        for _ in 0..=REDIRECTS {
            let client = self.clients.of(url.scheme())?;
            let mut request = client.request(call.method.clone(), url.clone());
            request = request.headers(call.headers.clone());
            if let Some(token) = token
                && same_origin(&url, origin)
            {
                request = request.header(AUTHORIZATION, token.header());
            }
            if let Some(body) = &call.body {
                request = request.body(body.clone());
            }
            let response = request.send().await?;
            if !is_redirect(&response, &call.method) {
                return Ok(response);
            }
            url = redirect_target(&response)?;
        }
        Err(Problem::Redirect(format!("more than {REDIRECTS} redirects")))
    }

    /// Returns the registry's address.
    pub(crate) async fn base(&self, registry: &str) -> Result<Url, Problem> {
        let secure = base("https", registry)?;
        if !is_loopback(&secure) {
            return Ok(secure);
        }
        let cell = {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(bases.entry(registry.to_owned()).or_default())
        };
        let plain = base("http", registry)?;
        let found = cell.get_or_try_init(|| self.probe(&plain, &secure)).await;
        // Nobody is there (yet): the request itself will say so.
        Ok(found.cloned().unwrap_or(plain))
    }

    /// Finds out whether a registry on this machine speaks plain http or https; fails where it
    /// can't be reached.
    async fn probe(&self, plain: &Url, secure: &Url) -> Result<Url, Problem> {
        match self.clients.of("http")?.get(plain.clone()).send().await {
            // That is how servers answer who speaks plainly to a port of theirs that is secure.
            Ok(response) if response.status() == StatusCode::BAD_REQUEST => Ok(secure.clone()),
            Ok(_) => Ok(plain.clone()),
            Err(error) if error.is_connect() => Err(error.into()),
            Err(_) => Ok(secure.clone()),
        }
    }
}

pub(crate) fn is_redirect(response: &Response, method: &Method) -> bool {
    let status = response.status().as_u16();
    let repeatable = *method == Method::GET || *method == Method::HEAD;
    matches!(status, 307 | 308) || (repeatable && matches!(status, 301..=303))
}

/// Returns the address that a redirect or an upload leads to.
pub(crate) fn redirect_target(response: &Response) -> Result<Url, Problem> {
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let target = location.and_then(|location| response.url().join(location).ok());
    let target = target
        .ok_or_else(|| Problem::Redirect("the server leads on without saying where".to_owned()))?;
    match forbidden(response.url(), &target) {
        Some(problem) => Err(Problem::Redirect(problem)),
        None => Ok(target),
    }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_limited(mut response: Response, limit: u64) -> Result<Vec<u8>, Problem> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Problem::TooLarge(limit));
    }
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if (bytes.len() + chunk.len()) as u64 > limit {
            return Err(Problem::TooLarge(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// A registry's complaint (distribution specification, "Error Codes").
#[derive(Default, Deserialize)]
struct Complaint {
    #[serde(default)]
    errors: Vec<ComplaintError>,
}

#[derive(Deserialize)]
struct ComplaintError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

async fn complaint(response: Response) -> Problem {
    let status = response.status();
    let body = read_limited(response, COMPLAINT).await.unwrap_or_default();
    let complaint: Complaint = serde_json::from_slice(&body).unwrap_or_default();
    let first = complaint.errors.into_iter().next();
    let said = |error: ComplaintError| {
        if error.message.is_empty() { error.code } else { error.message }
    };
    let message = sanitize(&first.map(said).unwrap_or_default());
    match status.as_u16() {
        404 => Problem::NotFound,
        401 | 403 => Problem::Denied(message),
        429 => Problem::RateLimited(message),
        _ => Problem::Status { status, message },
    }
}
