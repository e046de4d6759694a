//! Uploads of manifests and indexes.

use bytes::Bytes;
use kiln_oci::{Digest, Reference};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};

use crate::auth::Scopes;
use crate::body::Body;
use crate::client::{Client, accepted, is_of};
use crate::error::{Error, Problem};
use crate::repository::Repository;
use crate::transport::{Call, Target};

impl Client {
    /// Uploads a manifest or index under the reference's tag, or under its digest if it has no tag.
    /// The registry must have everything that the document names.
    ///
    /// # Errors
    /// Fails if the registry rejects the document, stores it under another digest, or if the
    /// reference has another digest.
    pub async fn push_manifest(
        &self,
        reference: &Reference,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Digest, Error> {
        let repository = Repository::from(reference);
        let digest = Digest::of(&bytes);
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            return Err(Problem::Digest { expected, actual: digest }.of(&repository, reference));
        }
        let tag = reference.tag().map_or_else(|| digest.to_string(), str::to_owned);
        let pushed = self.put_manifest(&repository, &tag, media_type, bytes).await;
        let stored = pushed.map_err(|problem| problem.of(&repository, reference))?;
        match stored.filter(|stored| *stored != digest) {
            Some(actual) => {
                Err(Problem::Digest { expected: digest, actual }.of(&repository, reference))
            }
            None => Ok(digest),
        }
    }

    /// Returns `true` if a repository has a manifest or index with this digest.
    ///
    /// # Errors
    /// Fails if the registry can't be reached.
    pub async fn has_manifest(
        &self,
        repository: &Repository,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let path = format!("manifests/{digest}");
        let found = async {
            let endpoint = self.transport.upstream(repository.registry())?;
            let call = Call {
                endpoint: &endpoint,
                repository: repository.name(),
                scopes: Scopes::push(repository.name()),
                method: Method::HEAD,
                target: Target::Path(&path),
                headers: accepted(),
                body: Body::Empty,
                attempts: self.transport.options.attempts,
            };
            match self.transport.send(&call).await {
                Ok(response) => Ok(is_of(&response, digest)),
                Err(problem) if problem.is_unhelpful_head() => Ok(false),
                Err(problem) => Err(problem),
            }
        };
        let found: Result<bool, Problem> = found.await;
        found.map_err(|problem| problem.of(repository, &format!("{repository}@{digest}")))
    }

    async fn put_manifest(
        &self,
        repository: &Repository,
        tag: &str,
        media_type: &str,
        bytes: Bytes,
    ) -> Result<Option<Digest>, Problem> {
        let endpoint = self.transport.upstream(repository.registry())?;
        let wrong = |_| Problem::Document(format!("{media_type:?} is no media type"));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(media_type).map_err(wrong)?);
        let call = Call {
            endpoint: &endpoint,
            repository: repository.name(),
            scopes: Scopes::push(repository.name()),
            method: Method::PUT,
            target: Target::Path(&format!("manifests/{tag}")),
            headers,
            body: Body::Bytes(bytes),
            attempts: self.transport.options.attempts,
        };
        let response = self.transport.send(&call).await?;
        let stored = response.headers().get("docker-content-digest");
        Ok(stored.and_then(|value| value.to_str().ok()?.parse().ok()))
    }
}
