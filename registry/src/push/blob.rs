//! Uploads of blobs. The client skips blobs that the registry has, mounts those that it has in
//! another repository, and sends the rest.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use kiln_oci::Digest;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};

use super::session::Session;
use crate::auth::Scopes;
use crate::body::{BlobSource, Body, Sent};
use crate::client::{Client, is_of};
use crate::endpoint::Endpoint;
use crate::error::{Error, Problem};
use crate::repository::Repository;
use crate::retry::Failure;
use crate::transport::{Call, Target};

/// A blob to upload.
#[derive(Clone)]
pub struct BlobUpload {
    /// The SHA-256 digest of the blob.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The source of the blob's bytes.
    pub source: BlobSource,
    /// The callback for progress.
    pub sent: Sent,
}

impl fmt::Debug for BlobUpload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digest, size, source, .. } = self;
        f.debug_struct("BlobUpload")
            .field("digest", digest)
            .field("size", size)
            .field("source", source)
            .finish_non_exhaustive()
    }
}

impl BlobUpload {
    /// Returns the upload of bytes in memory, without progress.
    pub fn of_bytes(bytes: Bytes) -> Self {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        Self { digest, size, source: BlobSource::Bytes(bytes), sent: Arc::new(|_| ()) }
    }
}

/// The way in which a blob got into a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// The repository had the blob already.
    Existed,
    /// The registry mounted the blob from this repository.
    Mounted(Repository),
    /// The client sent the blob's bytes.
    Sent,
}

impl Client {
    /// Returns `true` if a repository has a blob.
    ///
    /// # Errors
    /// Fails if the registry can't be reached.
    pub async fn has_blob(&self, repository: &Repository, digest: &Digest) -> Result<bool, Error> {
        let found = async {
            let endpoint = self.transport.upstream(repository.registry())?;
            let path = format!("blobs/{digest}");
            let call = self.push_call(&endpoint, repository, Method::HEAD, Target::Path(&path));
            match self.transport.send(&call).await {
                Ok(response) => Ok(is_of(&response, digest)),
                Err(problem) if problem.is_unhelpful_head() => Ok(false),
                Err(problem) => Err(problem),
            }
        };
        let found: Result<bool, Problem> = found.await;
        found.map_err(|problem| problem.of(repository, &format!("{repository}@{digest}")))
    }

    /// Mounts a blob from another repository of the same registry, without sending its bytes.
    /// Returns the source repository if that succeeded. Repositories of other registries are
    /// ignored.
    ///
    /// # Errors
    /// Fails if the registry can't be reached.
    pub async fn mount_blob(
        &self,
        repository: &Repository,
        digest: &Digest,
        from: &[Repository],
    ) -> Result<Option<Repository>, Error> {
        for source in from {
            if source.registry() != repository.registry() || source == repository {
                continue;
            }
            let mounted = self.mount(repository, digest, source).await;
            let fail = |problem: Problem| problem.of(repository, &format!("{repository}@{digest}"));
            if mounted.map_err(fail)? {
                return Ok(Some(source.clone()));
            }
        }
        Ok(None)
    }

    /// Pushes a blob unless the repository has it: mounts it from one of the repositories `from` of
    /// the same registry, or else sends it.
    ///
    /// # Errors
    /// Fails if the registry rejects the blob, can't be reached, or breaks the connection too
    /// often.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        upload: &BlobUpload,
        from: &[Repository],
    ) -> Result<Pushed, Error> {
        let _permit = self.transport.uploads.enter(repository.registry()).await;
        if self.has_blob(repository, &upload.digest).await? {
            return Ok(Pushed::Existed);
        }
        if let Some(source) = self.mount_blob(repository, &upload.digest, from).await? {
            return Ok(Pushed::Mounted(source));
        }
        let sent = async {
            let endpoint = self.transport.upstream(repository.registry())?;
            Session::new(self, &endpoint, repository, upload).run().await
        };
        let sent: Result<(), Problem> = sent.await;
        let name = format!("{repository}@{}", upload.digest);
        sent.map_err(|problem| problem.of(repository, &name))?;
        Ok(Pushed::Sent)
    }

    async fn mount(
        &self,
        repository: &Repository,
        digest: &Digest,
        source: &Repository,
    ) -> Result<bool, Problem> {
        let endpoint = self.transport.upstream(repository.registry())?;
        let path = format!("blobs/uploads/?mount={digest}&from={}", source.name());
        let mut call = self.push_call(&endpoint, repository, Method::POST, Target::Path(&path));
        call.scopes = call.scopes.and_pull(source.name());
        match self.transport.send(&call).await {
            Ok(response) if response.status() == StatusCode::CREATED => Ok(true),
            // The registry began an upload instead. Cancel it, so that it doesn't stay open.
            Ok(response) => {
                // Nothing is deleted on another server.
                if let Ok(url) = crate::transport::redirect_target(&response)
                    && endpoint.serves(&url)
                {
                    let target = Target::Url(url);
                    let cancel = self.push_call(&endpoint, repository, Method::DELETE, target);
                    let cancelled = self.transport.try_once(&Call { attempts: 1, ..cancel }).await;
                    if let Err(Failure { problem, .. }) = cancelled {
                        tracing::debug!(%problem, "the upload could not be given up");
                    }
                }
                Ok(false)
            }
            // The source may be hidden or missing, or the registry doesn't support mounts.
            Err(problem @ Problem::Transport(_)) => Err(problem),
            Err(problem) => {
                tracing::debug!(%problem, from = %source, "blob can't be mounted");
                Ok(false)
            }
        }
    }

    /// Returns the template of a request that is part of a push.
    pub(super) fn push_call<'a>(
        &self,
        endpoint: &'a Endpoint,
        repository: &'a Repository,
        method: Method,
        target: Target<'a>,
    ) -> Call<'a> {
        Call {
            endpoint,
            repository: repository.name(),
            scopes: Scopes::push(repository.name()),
            method,
            target,
            headers: HeaderMap::new(),
            body: Body::Empty,
            attempts: self.transport.options.attempts,
        }
    }
}
