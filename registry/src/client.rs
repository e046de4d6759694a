//! The client.

use std::sync::Arc;
use std::time::Duration;

use kiln_oci::{Digest, Reference, media_type};
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::document::{DOCUMENT_LIMIT, check_document};
use crate::error::{Error, Problem};
use crate::repository::Repository;
use crate::transport::{Access, Call, Target, Transport, read_limited};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many blobs are under way at once.
    pub downloads: usize,
    /// How often a request is tried.
    pub attempts: u32,
    /// The pause before the second try; it doubles with each further one.
    pub backoff: Duration,
    /// How long making a connection may take.
    pub connect_timeout: Duration,
    /// How long nothing may arrive.
    pub read_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            downloads: 6,
            attempts: 5,
            backoff: Duration::from_millis(300),
            connect_timeout: Duration::from_secs(20),
            read_timeout: Duration::from_mins(1),
        }
    }
}

/// A client of registries. Cheap to make, and to clone.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) transport: Arc<Transport>,
}

/// A manifest or index, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestResponse {
    /// The digest of `bytes`.
    pub digest: Digest,
    /// One of the media types of [`kiln_oci::media_type`].
    pub media_type: String,
    /// The document as it came.
    pub bytes: Vec<u8>,
}

impl Default for Client {
    fn default() -> Self {
        Self::new(Options::default())
    }
}

impl Client {
    /// Returns a client. Nothing happens yet.
    pub fn new(options: Options) -> Self {
        Self { transport: Arc::new(Transport::new(options)) }
    }

    /// Returns the manifest or index that a reference leads to.
    ///
    /// # Errors
    /// Fails where the registry can't be asked or doesn't have it, and where what it has is no
    /// manifest or index, or not the one that the reference is pinned to.
    pub async fn resolve(&self, reference: &Reference) -> Result<ManifestResponse, Error> {
        let repository = Repository::from(reference);
        let found = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => {
                self.document(&repository, &digest.to_string(), Some(digest)).await
            }
            (None, tag) => self.document(&repository, tag.unwrap_or("latest"), None).await,
        };
        found.map_err(|problem| problem.of(reference))
    }

    /// Returns the digest of what a reference leads to. Cheaper than [`Self::resolve`] where the
    /// registry tells digests without the documents: it needs no bytes, and Docker Hub doesn't
    /// count it as a pull.
    pub async fn resolve_digest(&self, reference: &Reference) -> Result<Digest, Error> {
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        let repository = Repository::from(reference);
        let path = format!("manifests/{}", reference.tag().unwrap_or("latest"));
        let call = manifest_call(&repository, Method::HEAD, &path);
        match self.transport.send(&call).await {
            Ok(response) => {
                if let Some(digest) = announced(response.headers()) {
                    return Ok(digest);
                }
            }
            // Some registries know no HEAD; the whole answer says more than an empty one.
            Err(Problem::Transport(error)) => return Err(Problem::from(error).of(reference)),
            Err(problem @ Problem::NotFound) => return Err(problem.of(reference)),
            Err(_) => {}
        }
        self.resolve(reference).await.map(|found| found.digest)
    }

    /// Returns a manifest or index by digest.
    pub async fn manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<ManifestResponse, Error> {
        let found = self.document(repository, &digest.to_string(), Some(*digest)).await;
        found.map_err(|problem| problem.of(&format!("{repository}@{digest}")))
    }

    async fn document(
        &self,
        repository: &Repository,
        tag: &str,
        expected: Option<Digest>,
    ) -> Result<ManifestResponse, Problem> {
        let path = format!("manifests/{tag}");
        let response = self.transport.send(&manifest_call(repository, Method::GET, &path)).await?;
        let announced = announced(response.headers());
        let declared = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let declared = declared.map(str::to_owned);
        let bytes = read_limited(response, DOCUMENT_LIMIT).await?;
        let actual = Digest::of(&bytes);
        if let Some(expected) = expected.or(announced)
            && expected != actual
        {
            return Err(Problem::Digest { expected, actual });
        }
        let media_type = check_document(&bytes, declared.as_deref()).map_err(Problem::Document)?;
        Ok(ManifestResponse { digest: actual, media_type, bytes })
    }
}

fn manifest_call<'a>(repository: &'a Repository, method: Method, path: &'a str) -> Call<'a> {
    let mut headers = HeaderMap::new();
    for accepted in [
        media_type::OCI_INDEX,
        media_type::DOCKER_MANIFEST_LIST,
        media_type::OCI_MANIFEST,
        media_type::DOCKER_MANIFEST,
    ] {
        headers.append(ACCEPT, HeaderValue::from_static(accepted));
    }
    let target = Target::Path(path);
    Call { repository, access: Access::Pull, method, target, headers, body: None }
}

/// Returns the digest that a registry announces.
fn announced(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
