//! The client and its options.

use std::sync::Arc;
use std::time::Duration;

use kiln_oci::{Digest, Reference, json, media_type};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, LINK};

use crate::auth::Scopes;
use crate::body::Body;
use crate::credentials::{Anonymous, Credentials};
use crate::document::{DOCUMENT_LIMIT, check_document};
use crate::endpoint::{Endpoint, authority_of, same_origin};
use crate::error::{Error, Problem};
use crate::hosts::HostSources;
use crate::http::Proxies;
use crate::limits::{Listing, MinimumSpeed, in_time};
use crate::repository::Repository;
use crate::transport::{Call, Target, Transport};
use crate::warnings::Warnings;

/// The options of a client.
#[derive(Clone, Debug)]
pub struct Options {
    /// The maximum number of concurrent downloads.
    pub downloads: usize,
    /// The maximum number of concurrent uploads.
    pub uploads: usize,
    /// The maximum number of concurrent downloads, and of uploads, per registry.
    pub per_registry: usize,
    /// The maximum number of attempts at a request.
    pub attempts: u32,
    /// The pause before the second attempt. It doubles with each further one.
    pub backoff: Duration,
    /// The time limit for connecting.
    pub connect_timeout: Duration,
    /// The time limit for each wait for bytes.
    pub read_timeout: Duration,
    /// The minimum speed of a server; `None` for no limit.
    pub pace: Option<MinimumSpeed>,
    /// The largest blob, in bytes, that one request uploads. An interruption of a larger one would
    /// cost too much.
    pub monolithic: u64,
    /// The number of bytes per request of a chunked upload.
    pub chunk: u64,
    /// The source of credentials.
    pub credentials: Arc<dyn Credentials>,
    /// The configuration files about registries.
    pub hosts: HostSources,
    /// The proxies for all requests.
    pub proxies: Proxies,
    /// The receiver of warnings about other tools' configuration files.
    pub warnings: Warnings,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            downloads: 12,
            uploads: 8,
            per_registry: 6,
            attempts: 5,
            backoff: Duration::from_millis(300),
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_mins(1),
            pace: Some(MinimumSpeed::default()),
            monolithic: 1 << 30,
            chunk: 64 << 20,
            credentials: Arc::new(Anonymous),
            hosts: HostSources::default(),
            proxies: Proxies::default(),
            warnings: Warnings::default(),
        }
    }
}

/// A client of any number of registries. Creating and cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
}

/// A verified manifest or index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestResponse {
    /// The SHA-256 digest of `bytes`.
    pub digest: Digest,
    /// One of the media types of [`kiln_oci::media_type`].
    pub media_type: String,
    /// The document's bytes as received.
    pub bytes: Vec<u8>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Client {
    /// Creates a client. It does no I/O before the first request.
    pub fn new(options: Options) -> Self {
        Self { transport: Arc::new(Transport::new(options)) }
    }

    /// Returns the manifest or index that a reference names.
    ///
    /// # Errors
    /// Fails if the registry can't be reached, doesn't have the document, or sends neither a
    /// manifest nor an index. Fails if the document doesn't have the reference's digest.
    pub async fn resolve(&self, reference: &Reference) -> Result<ManifestResponse, Error> {
        let repository = Repository::from(reference);
        let found = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => {
                self.document(&repository, &digest.to_string(), Some(digest)).await
            }
            (None, tag) => self.document(&repository, tag.unwrap_or("latest"), None).await,
        };
        found.map_err(|problem| problem.of(&repository, reference))
    }

    /// Returns the digest of the document that a reference names. This is cheaper than
    /// [`Self::resolve`] if the registry sends digests in headers: it transfers no document, and
    /// Docker Hub doesn't count it as a pull.
    pub async fn resolve_digest(&self, reference: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        let repository = Repository::from(reference);
        let path = format!("manifests/{}", reference.tag().unwrap_or("latest"));
        let endpoints = self.transport.sources(repository.registry(), true);
        for (left, endpoint) in
            countdown(endpoints.map_err(|problem| problem.of(&repository, reference))?)
        {
            let name = endpoint.name(repository.name());
            let call = self.manifest_call(&endpoint, &name, Method::HEAD, &path, left);
            match self.transport.send(&call).await {
                Ok(response) => match announced(response.headers()) {
                    Some(digest) => return Ok(digest),
                    None => break,
                },
                Err(problem) if left > 0 => problem.log_mirror(&endpoint),
                // Some registries don't support `HEAD`, and its errors have no message. `GET`
                // follows.
                Err(problem @ Problem::Transport(_)) => {
                    return Err(problem.of(&repository, reference));
                }
                Err(_) => break,
            }
        }
        self.resolve(reference).await.map(|found| found.digest)
    }

    /// Returns the manifest or index with this digest.
    pub async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<ManifestResponse, Error> {
        let found = self.document(repository, &digest.to_string(), Some(*digest)).await;
        found.map_err(|problem| problem.of(repository, &format!("{repository}@{digest}")))
    }

    /// Returns the tags of a repository.
    ///
    /// # Errors
    /// Fails if the registry can't be reached or lists too many tags.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>, Error> {
        let read = |bytes: &[u8]| {
            #[derive(serde::Deserialize)]
            struct Page {
                tags: Option<Vec<String>>,
            }
            let page: Page = json::from_go(bytes)
                .map_err(|_| Problem::Document("the registry's answer lists no tags".to_owned()))?;
            Ok(page.tags.unwrap_or_default())
        };
        let tags = self.list(repository, "tags/list", read).await;
        tags.map_err(|problem| problem.of(repository, repository))
    }

    /// Returns the entries of a list in pages. `read` returns those of a page.
    pub(crate) async fn list(
        &self,
        repository: &Repository,
        path: &str,
        read: impl Fn(&[u8]) -> Result<Vec<String>, Problem>,
    ) -> Result<Vec<String>, Problem> {
        in_time(self.transport.options.pace, self.pages(repository, path, read)).await
    }

    async fn pages(
        &self,
        repository: &Repository,
        path: &str,
        read: impl Fn(&[u8]) -> Result<Vec<String>, Problem>,
    ) -> Result<Vec<String>, Problem> {
        let endpoint = self.transport.upstream(repository.registry())?;
        let mut list = Listing::default();
        let mut target = Target::Path(path);
        loop {
            let call = Call {
                endpoint: &endpoint,
                repository: repository.name(),
                scopes: Scopes::pull(repository.name()),
                method: Method::GET,
                target,
                headers: HeaderMap::new(),
                body: Body::Empty,
                attempts: self.transport.options.attempts,
            };
            let response = self.transport.send(&call).await?;
            let (url, next) = (response.url().clone(), next_page(&response)?);
            let bytes = self.transport.read(response, DOCUMENT_LIMIT).await?;
            list.add(url, bytes.len(), read(&bytes)?, next.is_some())?;
            match next {
                Some(url) => target = Target::Url(url),
                None => return Ok(list.into_entries()),
            }
        }
    }

    pub(crate) async fn document(
        &self,
        repository: &Repository,
        tag: &str,
        expected: Option<Digest>,
    ) -> Result<ManifestResponse, Problem> {
        let path = format!("manifests/{tag}");
        for (left, endpoint) in
            countdown(self.transport.sources(repository.registry(), expected.is_none())?)
        {
            let name = endpoint.name(repository.name());
            let call = self.manifest_call(&endpoint, &name, Method::GET, &path, left);
            match self.read_document(&call, expected).await {
                Err(problem) if left > 0 => problem.log_mirror(&endpoint),
                result => return result,
            }
        }
        Err(Problem::Config("there is nobody to ask".to_owned()))
    }

    async fn read_document(
        &self,
        call: &Call<'_>,
        expected: Option<Digest>,
    ) -> Result<ManifestResponse, Problem> {
        let response = self.transport.send(call).await?;
        let announced = announced(response.headers());
        let declared = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let declared = declared.map(str::to_owned);
        let bytes = self.transport.read(response, DOCUMENT_LIMIT).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected.or(announced)
            && expected != actual
        {
            return Err(Problem::Digest { expected, actual });
        }
        let media_type = check_document(&bytes, declared.as_deref()).map_err(Problem::Document)?;
        Ok(ManifestResponse { digest: actual, media_type, bytes })
    }

    /// Returns the request for a manifest. `left` is the number of endpoints after this one.
    fn manifest_call<'a>(
        &self,
        endpoint: &'a Endpoint,
        name: &'a str,
        method: Method,
        path: &'a str,
        left: usize,
    ) -> Call<'a> {
        Call {
            endpoint,
            repository: name,
            scopes: Scopes::pull(name),
            method,
            target: Target::Path(path),
            headers: accepted(),
            body: Body::Empty,
            attempts: self.attempts(left),
        }
    }

    /// Returns the number of attempts at an endpoint with `left` others after it.
    pub(crate) fn attempts(&self, left: usize) -> u32 {
        let attempts = self.transport.options.attempts;
        if left > 0 { attempts.min(2) } else { attempts }
    }
}

/// Returns the `Accept` headers for the supported documents. Registries hide others.
pub(crate) fn accepted() -> HeaderMap {
    let kinds = [
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST_LIST,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
    ];
    let mut headers = HeaderMap::new();
    for kind in kinds {
        headers.append(ACCEPT, HeaderValue::from_static(kind));
    }
    headers
}

/// Returns each item with the number of items after it.
pub(crate) fn countdown<T>(items: Vec<T>) -> impl Iterator<Item = (usize, T)> {
    let count = items.len();
    items.into_iter().enumerate().map(move |(number, item)| (count - number - 1, item))
}

/// Returns the URL of the next page from `Link: </v2/…>; rel="next"`. A registry behind a proxy may
/// use a wrong scheme or port in it; the request then goes to the origin that answered.
///
/// # Errors
/// Fails if the next page is on another host. Without it, the list would look complete.
fn next_page(response: &reqwest::Response) -> Result<Option<reqwest::Url>, Problem> {
    let link = response.headers().get(LINK).and_then(|link| link.to_str().ok());
    let parts = link.and_then(|link| link.trim().strip_prefix('<')?.split_once('>'));
    let Some((target, _)) = parts.filter(|(_, rest)| rest.contains("next")) else {
        return Ok(None);
    };
    let invalid = || Problem::Document("the registry's list goes on nowhere".to_owned());
    let url = response.url().join(target).map_err(|_| invalid())?;
    if same_origin(&url, response.url()) {
        return Ok(Some(url));
    }
    if url.host_str() != response.url().host_str() {
        let host = authority_of(&url);
        return Err(Problem::Redirect(format!("the registry's list goes on at {host}")));
    }
    let mut own = response.url().clone();
    own.set_path(url.path());
    own.set_query(url.query());
    Ok(Some(own))
}

/// Returns `true` if the announced digest is `digest`, or if the answer announces none.
pub(crate) fn is_of(response: &reqwest::Response, digest: &Digest) -> bool {
    announced(response.headers()).is_none_or(|announced| announced == *digest)
}

/// Returns the digest in the `Docker-Content-Digest` header.
pub(crate) fn announced(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
