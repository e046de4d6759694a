//! Blobs: those that the registry has are not sent, those that it has in another repository are
//! mounted from there, and the rest is uploaded.

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

/// A blob to be uploaded.
#[derive(Clone)]
pub struct BlobUpload {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where its bytes are.
    pub source: BlobSource,
    /// Is told how far it is.
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
    /// Returns the upload of bytes in memory, which tells nobody how far it is.
    pub fn of_bytes(bytes: Bytes) -> Self {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        Self { digest, size, source: BlobSource::Bytes(bytes), sent: Arc::new(|_| ()) }
    }
}

/// How a blob came to be in a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pushed {
    /// It was there.
    Existed,
    /// The registry had it in this other repository.
    Mounted(Repository),
    /// It was sent.
    Sent,
}

impl Client {
    /// Tells whether a repository has a blob.
    ///
    /// # Errors
    /// Fails where the registry can't be asked.
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

    /// Brings a blob into a repository out of another of the same registry, without its bytes, and
    /// tells whether that could be done. What is of another registry is passed over.
    ///
    /// # Errors
    /// Fails where the registry can't be asked.
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

    /// Brings a blob into a repository unless it is there: out of one of the repositories `from`
    /// that are of the same registry, else by sending it.
    ///
    /// # Errors
    /// Fails where the registry refuses it, can't be reached, or the connection breaks too often.
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
            // An upload was begun instead: it is given up, that it doesn't lie around.
            Ok(response) => {
                // Nothing is deleted at another server's.
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
            // It may not be shown to us, or not be there, or mounting may be unknown.
            Err(problem @ Problem::Transport(_)) => Err(problem),
            Err(problem) => {
                tracing::debug!(%problem, from = %source, "blob can't be mounted");
                Ok(false)
            }
        }
    }

    /// Returns a request that is part of a push.
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
