//! Requests: redirects, retries, the choice of scheme.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_oci::json;
use reqwest::header::{AUTHORIZATION, HeaderMap, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::OnceCell;

use crate::auth::{AuthRequest, Authorization, Authorizations, Scopes};
use crate::body::Body;
use crate::client::Options;
use crate::connection_error::{ConnectionError, Place, Role};
use crate::endpoint::{Endpoint, authority_of, forbidden, is_loopback, same_origin};
use crate::error::{Problem, sanitize};
use crate::hosts::{Hosts, Scheme};
use crate::http::{HttpClients, Timeouts, Trust};
use crate::limits::{Gate, MinimumSpeed, PacedBody, UploadActivity, in_time};
use crate::retry::{Failure, backoff, retry_after};

/// The maximum number of redirects.
pub(crate) const REDIRECTS: usize = 10;

/// The maximum number of bytes that are read from an error answer.
const COMPLAINT: u64 = 64 << 10;

/// A request, which may be sent several times.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) endpoint: &'a Endpoint,
    /// The repository's name at the endpoint. Empty for requests without a repository.
    pub(crate) repository: &'a str,
    pub(crate) scopes: Scopes,
    pub(crate) method: Method,
    pub(crate) target: Target<'a>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
    /// The maximum number of attempts.
    pub(crate) attempts: u32,
}

/// The target of a request.
#[derive(Clone, Debug)]
pub(crate) enum Target<'a> {
    /// A path below the repository, such as `manifests/latest`.
    Path(&'a str),
    /// A URL from the registry.
    Url(Url),
}

type Found = Arc<OnceCell<Url>>;

/// The state that all requests of a client share.
#[derive(Debug)]
pub(crate) struct Transport {
    pub(crate) options: Options,
    clients: HttpClients,
    /// The clients for uploads. Their answers begin after the last byte was sent, so they have no
    /// read timeout.
    upload_clients: HttpClients,
    hosts: Hosts,
    authorizations: Authorizations,
    /// The probed base URLs, by authority and path of the endpoint.
    bases: Mutex<HashMap<(String, String), Found>>,
    /// The limits on downloads.
    pub(crate) downloads: Gate,
    /// The limits on uploads.
    pub(crate) uploads: Gate,
}

/// Logs a request with its answer. Leaves out the query, which may contain secrets.
pub(crate) fn log(method: &Method, url: &Url, answer: &reqwest::Result<Response>) {
    let place = format!("{}://{}{}", url.scheme(), authority_of(url), url.path());
    match answer {
        Ok(response) => {
            tracing::debug!(%method, url = %place, status = %response.status(), "request");
        }
        Err(error) => {
            tracing::debug!(%method, url = %place, is_connect = error.is_connect(), "request failed");
        }
    }
}

impl Transport {
    pub(crate) fn new(options: Options) -> Self {
        let connect = options.connect_timeout;
        let clients = |read| HttpClients::new(Timeouts { connect, read }, options.proxies.clone());
        Self {
            clients: clients(Some(options.read_timeout)),
            upload_clients: clients(None),
            hosts: Hosts::new(options.hosts.clone(), options.warnings.clone()),
            authorizations: Authorizations::default(),
            bases: Mutex::default(),
            downloads: Gate::new(options.downloads, options.per_registry),
            uploads: Gate::new(options.uploads, options.per_registry),
            options,
        }
    }

    /// Returns the endpoints for a registry's content in the order of requests. `by_name` selects
    /// those that resolve tags, otherwise those that serve content by digest.
    pub(crate) fn sources(&self, registry: &str, by_name: bool) -> Result<Vec<Endpoint>, Problem> {
        let host = self.hosts.of(registry)?;
        let mut endpoints = Vec::new();
        for mirror in &host.mirrors {
            if if by_name { mirror.resolves } else { mirror.pulls } {
                let own = self.hosts.of(&mirror.authority)?;
                endpoints.push(Endpoint::mirror(registry, mirror, &own)?);
            }
        }
        if !host.only_mirrors || endpoints.is_empty() {
            endpoints.push(Endpoint::upstream(registry, &host)?);
        }
        Ok(endpoints)
    }

    /// Returns the endpoint of the registry itself.
    pub(crate) fn upstream(&self, registry: &str) -> Result<Endpoint, Problem> {
        Endpoint::upstream(registry, &*self.hosts.of(registry)?)
    }

    /// Returns the client for a token server of an endpoint. A token server on the endpoint's host
    /// has the endpoint's TLS settings unless its own are configured.
    pub(crate) fn client_of_tokens(
        &self,
        url: &Url,
        endpoint: &Endpoint,
    ) -> Result<reqwest::Client, Problem> {
        let is_on_host = endpoint.base("https")?.host_str() == url.host_str();
        if is_on_host && url.scheme() == "https" && !endpoint.serves(url) {
            let own = self.hosts.of(&authority_of(url))?;
            if own.trust == Trust::default() {
                return self.clients.secure(&endpoint.trust);
            }
        }
        self.client_of(url, endpoint)
    }

    fn client_of(&self, url: &Url, endpoint: &Endpoint) -> Result<reqwest::Client, Problem> {
        self.one_of(&self.clients, url, Some(endpoint))
    }

    /// Returns the client from `clients` for a URL. A URL of the endpoint has the endpoint's TLS
    /// settings; others have those of their host.
    fn one_of(
        &self,
        clients: &HttpClients,
        url: &Url,
        endpoint: Option<&Endpoint>,
    ) -> Result<reqwest::Client, Problem> {
        if url.scheme() != "https" {
            return clients.plain();
        }
        match endpoint.filter(|endpoint| endpoint.serves(url)) {
            Some(endpoint) => clients.secure(&endpoint.trust),
            None => clients.secure(&self.hosts.of(&authority_of(url))?.trust),
        }
    }

    /// Converts the error of a request without an answer.
    pub(crate) async fn unanswered(
        &self,
        url: &Url,
        place: Place,
        error: reqwest::Error,
    ) -> Problem {
        // The URLs of redirects contain signatures.
        let error = ConnectionError::new(&error.without_url(), place, self.clients.proxy_of(url));
        if error.is_without_tls() && self.speaks_plain_http(url).await {
            return error.speaks_plain_http().into();
        }
        error.into()
    }

    /// Returns `true` if a server that doesn't speak TLS answers plain HTTP.
    async fn speaks_plain_http(&self, url: &Url) -> bool {
        let plain = format!(
            "http://{}:{}/",
            url.host_str().unwrap_or_default(),
            url.port_or_known_default().unwrap_or_default()
        );
        let Ok(client) = self.clients.plain() else { return false };
        client.get(plain).send().await.is_ok()
    }

    /// Returns the client for a URL with the TLS settings of its host.
    pub(crate) fn client_for(&self, url: &Url) -> Result<reqwest::Client, Problem> {
        self.one_of(&self.clients, url, None)
    }

    /// Sends a request until it succeeds, fails permanently or has no attempts left.
    ///
    /// # Errors
    /// Every status other than a success is an error.
    pub(crate) async fn send(&self, call: &Call<'_>) -> Result<Response, Problem> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            let failure = match self.try_once(call).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let Failure { problem, pause } = failure;
            if attempt >= call.attempts || !problem.is_transient() {
                return Err(problem);
            }
            tracing::debug!(%problem, attempt, "registry request failed, trying again");
            tokio::time::sleep(pause.unwrap_or_else(|| self.pause(attempt))).await;
        }
    }

    /// Sends a request once. Every status other than a success is a failure.
    pub(crate) async fn try_once(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let response = self.once(call).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(failure(response, call.endpoint, self.options.pace).await)
    }

    /// Reads a body of at most `limit` bytes.
    pub(crate) async fn read(&self, response: Response, limit: u64) -> Result<Vec<u8>, Problem> {
        read_limited(response, limit, self.options.pace).await
    }

    /// Returns the pause after `failures` failures.
    pub(crate) fn pause(&self, failures: u32) -> Duration {
        backoff(self.options.backoff, failures)
    }

    /// Sends a request. Sends it again with authentication if the registry sends a challenge.
    async fn once(&self, call: &Call<'_>) -> Result<Response, Failure> {
        let base = self.base(call.endpoint).await?;
        let url = address(call, &base)?;
        let Call { endpoint, repository, scopes, .. } = call;
        let asking = AuthRequest { endpoint, base: &base, repository, scopes };
        let known = self.authorizations.get(&asking).await;
        let response = self.follow(call, &base, url.clone(), known.as_ref()).await?;
        let refused = response.status() == StatusCode::UNAUTHORIZED;
        if !refused || !same_origin(response.url(), &base) {
            return Ok(response);
        }
        let found = self.authorizations.answer(self, &asking, &response, known.as_ref()).await?;
        Ok(self.follow(call, &base, url, Some(&found)).await?)
    }

    /// Sends a request and follows redirects. Only the endpoint's origin receives the
    /// authorization.
    pub(crate) async fn follow(
        &self,
        call: &Call<'_>,
        base: &Url,
        mut url: Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Problem> {
        for _ in 0..=REDIRECTS {
            let clients = if call.body.is_part() { &self.upload_clients } else { &self.clients };
            let client = self.one_of(clients, &url, Some(call.endpoint))?;
            let mut request = client.request(call.method.clone(), url.clone());
            request = request.headers(call.headers.clone());
            if same_origin(&url, base) {
                request = request.headers(call.endpoint.headers.clone());
                if let Some(authorization) = authorization {
                    request = request.header(AUTHORIZATION, authorization.header());
                }
            }
            let pulse = UploadActivity::default();
            let sending = call.body.attach(request, &pulse).send();
            let response = match call.body {
                Body::Part { .. } => pulse.watch(self.options.read_timeout, sending).await?,
                _ => sending.await,
            };
            log(&call.method, &url, &response);
            let response = match response {
                Ok(response) => response,
                Err(error) => {
                    let place = place(call.endpoint, &url);
                    return Err(self.unanswered(&url, place, error).await);
                }
            };
            if !is_redirect(&response, &call.method) {
                return Ok(response);
            }
            url = redirect_target(&response)?;
        }
        Err(Problem::Redirect(format!("more than {REDIRECTS} redirects")))
    }

    /// Returns the base URL of an endpoint. Probes the scheme if the configuration leaves it open.
    pub(crate) async fn base(&self, endpoint: &Endpoint) -> Result<Url, Problem> {
        let (plain, secure) = (endpoint.base("http")?, endpoint.base("https")?);
        let plain_first = match endpoint.scheme {
            Scheme::Plain => return Ok(plain),
            Scheme::Secure => return Ok(secure),
            Scheme::Usual if !is_loopback(&secure) => return Ok(secure),
            Scheme::Usual => true,
            Scheme::Either => is_loopback(&secure),
        };
        let cell = {
            let mut bases = self.bases.lock().unwrap_or_else(PoisonError::into_inner);
            let key = (endpoint.authority.clone(), endpoint.path.clone());
            Arc::clone(bases.entry(key).or_default())
        };
        let probe = || async {
            if plain_first {
                self.probe_plain(&plain, &secure).await
            } else {
                self.probe_secure(endpoint, &plain, &secure).await
            }
        };
        let found = cell.get_or_try_init(probe).await;
        // No server answered the probe. The request itself will report that.
        Ok(found.cloned().unwrap_or(if plain_first { plain } else { secure }))
    }

    /// Probes whether a registry on this machine speaks plain HTTP or `https`. Fails if it can't be
    /// reached.
    async fn probe_plain(&self, plain: &Url, secure: &Url) -> Result<Url, Problem> {
        match self.clients.plain()?.get(plain.clone()).send().await {
            // Servers answer plain HTTP on an `https` port with this status.
            Ok(response) if response.status() == StatusCode::BAD_REQUEST => Ok(secure.clone()),
            Ok(_) => Ok(plain.clone()),
            Err(error) if error.is_connect() => Err(error.into()),
            Err(_) => Ok(secure.clone()),
        }
    }

    /// Probes whether a registry that is configured as insecure speaks `https` nevertheless.
    async fn probe_secure(
        &self,
        endpoint: &Endpoint,
        plain: &Url,
        secure: &Url,
    ) -> Result<Url, Problem> {
        if self.clients.secure(&endpoint.trust)?.get(secure.clone()).send().await.is_ok() {
            return Ok(secure.clone());
        }
        self.clients.plain()?.get(plain.clone()).send().await?;
        Ok(plain.clone())
    }
}

/// Returns the URL of a call.
fn address(call: &Call<'_>, base: &Url) -> Result<Url, Problem> {
    let path = match &call.target {
        Target::Url(url) => return Ok(url.clone()),
        Target::Path(path) => path,
    };
    // The endpoint's path may contain a part of its name for the repository.
    let name =
        call.repository.strip_prefix(call.endpoint.path.strip_prefix("/v2/").unwrap_or_default());
    let name = name.unwrap_or(call.repository);
    let path = if name.is_empty() { (*path).to_owned() } else { format!("{name}/{path}") };
    let mut url =
        base.join(&path).map_err(|_| Problem::Document(format!("{path:?} is no path")))?;
    if let Some(registry) = &call.endpoint.mirror_of {
        url.query_pairs_mut().append_pair("ns", registry);
    }
    Ok(url)
}

/// Returns `true` if this is the answer of an `https` server to plain HTTP.
fn wants_https(status: StatusCode, url: &Url, body: &[u8]) -> bool {
    let body = body.get(..body.len().min(1024)).unwrap_or_default();
    status == StatusCode::BAD_REQUEST
        && url.scheme() == "http"
        && String::from_utf8_lossy(body).contains("HTTPS")
}

pub(crate) fn is_redirect(response: &Response, method: &Method) -> bool {
    let status = response.status().as_u16();
    let repeatable = *method == Method::GET || *method == Method::HEAD;
    matches!(status, 307 | 308) || (repeatable && matches!(status, 301..=303))
}

/// Returns the URL in the `Location` header of a redirect or an upload.
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
async fn read_limited(
    mut response: Response,
    limit: u64,
    pace: Option<MinimumSpeed>,
) -> Result<Vec<u8>, Problem> {
    if response.content_length().is_some_and(|length| length > limit) {
        return Err(Problem::TooLarge(limit));
    }
    let read = async {
        let (mut bytes, mut body) = (Vec::new(), PacedBody::new(pace));
        while let Some(chunk) = body.chunk(&mut response).await? {
            if (bytes.len() + chunk.len()) as u64 > limit {
                return Err(Problem::TooLarge(limit));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    };
    in_time(pace, read).await
}

/// The body of a registry's error (distribution specification, "Error Codes").
#[derive(Default, Deserialize)]
struct ErrorResponse {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// Returns the role of a URL's server for error messages.
fn place(endpoint: &Endpoint, url: &Url) -> Place {
    if endpoint.serves(url) {
        return endpoint.place();
    }
    Place { host: authority_of(url), role: Role::Redirect, has_trust: false }
}

/// Returns the problem of a refused request, and the pause that the server requests.
pub(crate) async fn failure(
    response: Response,
    endpoint: &Endpoint,
    pace: Option<MinimumSpeed>,
) -> Failure {
    let pause = retry_after(response.headers());
    Failure { problem: complaint(response, endpoint, pace).await, pause }
}

/// Returns the problem of a refused request, with the registry's message.
async fn complaint(response: Response, endpoint: &Endpoint, pace: Option<MinimumSpeed>) -> Problem {
    let (status, url) = (response.status(), response.url().clone());
    let body = read_limited(response, COMPLAINT, pace).await.unwrap_or_default();
    if wants_https(status, &url, &body) {
        return ConnectionError::https_only(place(endpoint, &url)).into();
    }
    let complaint: ErrorResponse = json::from_go(&body).unwrap_or_default();
    let first = complaint.errors.into_iter().next();
    let said = |error: ErrorEntry| {
        if error.message.is_empty() { error.code } else { error.message }
    };
    let message = sanitize(&first.map(said).unwrap_or_default());
    match status.as_u16() {
        404 => Problem::NotFound(message),
        401 | 403 => Problem::Denied(format!("{message} ({status})").trim_start().to_owned()),
        429 => Problem::RateLimited(message),
        _ => Problem::Status { status, message },
    }
}
