//! Remote sources: files at URLs, and git repositories.
//!
//! Their content isn't known before a request to the server, so their vertices are ephemeral: steps
//! that use their content (`COPY`, `ADD`, bind mounts) have the content in their keys, and a step
//! that uses one as its root runs every time. If the source itself determines its content
//! (`http.checksum`, a full commit ID), that is its key, and no request is needed.
//!
//! A request need not download the content again. The layer of a source is stored in a cache record
//! whose key is a digest of the source. The record's description holds the server's metadata: a
//! file is requested with its entity tag, and a repository is asked for the commit of its
//! reference.
//!
//! A worker loads each source once. The frontend that reads a Dockerfile from a repository, and the
//! steps that copy from it, therefore see the same commit.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::BoxFuture;
use kiln_event::Reporter;
use kiln_images::Snapshots;
use kiln_llb::op::SourceOp;
use kiln_registry::Client;
use kiln_store::LayerId;
use tokio::io::AsyncRead;
use tokio::sync::OnceCell;

use super::git::{Found, GitLimits, GitSource};
use super::http::HttpSource;
use crate::error::Result;
use crate::exec::secret::Secrets;
use crate::machine::GitEnvironment;

/// The options of remote sources.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// The maximum size of a file in bytes. `None` for no limit.
    pub max_bytes: Option<u64>,
    /// The limits of the host's git.
    pub git: GitLimits,
    /// The addresses of the contexts that the user has named. Git secrets without a host in their
    /// name are sent only to the hosts of these.
    pub contexts: Vec<String>,
    /// The socket of the SSH agent that git may use.
    pub ssh_agent: Option<PathBuf>,
    /// The user agent of requests for files whose source names none; `None` for the client's own.
    pub user_agent: Option<String>,
    /// The files that come from the user instead of a server.
    pub uploads: Option<Arc<dyn Uploads>>,
}

/// The content of an upload.
pub type UploadReader = Box<dyn AsyncRead + Send + Unpin>;

/// The files that come from the user, under URLs of their own.
pub trait Uploads: fmt::Debug + Send + Sync {
    /// Returns `true` if a URL stands for an upload.
    fn has(&self, url: &str) -> bool;

    /// Opens an upload. It can be read once.
    ///
    /// # Errors
    /// Fails if there is no such upload.
    fn open<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<UploadReader>>;
}

/// The parsed op of a remote source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RemoteSource {
    /// A file at a URL.
    Http(Box<HttpSource>),
    /// A git repository at a commit.
    Git(Box<GitSource>),
}

/// The identity of a remote source's content: a digest or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The hash algorithm, as `sha256`.
    pub algorithm: String,
    /// The hash in hexadecimal digits.
    pub hex: String,
}

impl Pin {
    /// Returns the pin of a commit. The length of the commit ID determines the algorithm.
    pub(crate) fn commit(hex: &str) -> Self {
        let algorithm = if hex.len() == 64 { "sha256" } else { "sha1" };
        Self { algorithm: algorithm.to_owned(), hex: hex.to_owned() }
    }

    /// Returns the pin of a file's digest, `sha256:…`.
    pub(crate) fn digest(text: &str) -> Self {
        let (algorithm, hex) = text.split_once(':').unwrap_or(("sha256", text));
        Self { algorithm: algorithm.to_owned(), hex: hex.to_owned() }
    }
}

/// The result of loading a remote source.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// The layer with the source's files.
    pub(crate) layer: LayerId,
    /// The identity of the source's content.
    pub(crate) pin: Pin,
}

impl RemoteSource {
    /// Returns the identity of the content, if the source itself determines it.
    fn pin(&self) -> Option<Pin> {
        match self {
            Self::Http(source) => source.pin(),
            Self::Git(source) => source.pin(),
        }
    }

    /// Returns the part of keys that stands for the source, if the source determines its content.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        match self {
            Self::Http(source) => source.key(),
            Self::Git(source) => source.key(),
        }
    }
}

/// The loader of remote sources.
#[derive(Debug)]
pub(crate) struct Remotes {
    pub(super) snapshots: Snapshots,
    pub(super) client: Client,
    pub(super) secrets: Secrets,
    pub(super) git: GitEnvironment,
    pub(super) options: RemoteOptions,
    loaded: Mutex<BTreeMap<String, Arc<OnceCell<Loaded>>>>,
    /// The commits that references of repositories refer to, by repository and reference.
    references: Mutex<BTreeMap<String, Arc<OnceCell<Found>>>>,
}

impl Remotes {
    pub(crate) fn new(
        snapshots: Snapshots,
        secrets: Secrets,
        git: GitEnvironment,
        options: RemoteOptions,
    ) -> Self {
        let client = snapshots.blobs.client().clone();
        let (loaded, references) = (Mutex::default(), Mutex::default());
        Self { snapshots, client, secrets, git, options, loaded, references }
    }

    /// Loads a source unless this worker has loaded it before.
    pub(crate) async fn load(
        &self,
        op: &SourceOp,
        source: &RemoteSource,
        reporter: &Reporter,
    ) -> Result<LayerId> {
        let cell = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(loaded.entry(format!("{op:?}")).or_default())
        };
        let layer = cell.get_or_try_init(|| async {
            match source {
                RemoteSource::Http(source) => source.load(self, reporter).await,
                RemoteSource::Git(source) => source.load(self, reporter).await,
            }
        });
        layer.await.map(|loaded| loaded.layer.clone())
    }

    /// Returns the commit of a repository's reference. Calls `find` the first time.
    pub(super) async fn reference<F: Future<Output = Result<Found>>>(
        &self,
        name: String,
        find: impl FnOnce() -> F,
    ) -> Result<Found> {
        let cell = {
            let mut known = self.references.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(name).or_default())
        };
        cell.get_or_try_init(find).await.cloned()
    }

    /// Returns the identity of a source's content: of the loaded content, or else as the source
    /// itself determines it.
    pub(crate) fn pin(&self, op: &SourceOp, source: &RemoteSource) -> Option<Pin> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get(&format!("{op:?}")).and_then(|cell| cell.get());
        loaded.map(|loaded| loaded.pin.clone()).or_else(|| source.pin())
    }
}
