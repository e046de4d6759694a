//! Sources elsewhere: files behind URLs, and repositories.
//!
//! What they hold isn't known before somebody has asked, so their vertices are ephemeral: users of
//! their content (`COPY`, `ADD`, bind mounts) are keyed by that content, and a step that takes one
//! as its root runs each time. Where the source itself says what it holds (`http.checksum`, a full
//! commit id), that is its key, and nobody is asked.
//!
//! Asking doesn't mean fetching. What was brought in is kept in a cache record, under a key of its
//! own that is made of the source, with what the server said of it as the record's description: a
//! file is asked for again with its entity tag, a repository for the commit of its reference.
//!
//! A worker brings each source in once: the frontend that reads a Dockerfile of a repository, and
//! the steps that copy from it, see the same commit.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_llb::op::SourceOp;
use kiln_registry::Client;
use kiln_solver::StepContext;
use kiln_store::LayerId;
use tokio::sync::OnceCell;

use super::git::{GitLimits, GitSource};
use super::http::HttpSource;
use crate::error::Result;
use crate::exec::secret::Secrets;
use crate::snapshots::Snapshots;

/// What sources elsewhere are given.
#[derive(Clone, Debug, Default)]
pub struct RemoteOptions {
    /// Most bytes of a file; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// The limits of the host's git.
    pub git: GitLimits,
    /// The addresses that the user has named as contexts. Secrets for git that name no host go to
    /// their hosts alone.
    pub contexts: Vec<String>,
    /// All of the environment of the host's git: where programs are, proxies.
    pub environment: Vec<(OsString, OsString)>,
    /// The socket of an SSH agent, where repositories may be fetched with it.
    pub ssh_agent: Option<PathBuf>,
    /// The file of hosts that the user knows; `None` for what ssh itself takes for it, which in a
    /// user namespace would be root's.
    pub known_hosts: Option<PathBuf>,
}

/// A source elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RemoteSource {
    /// A file behind a URL.
    Http(Box<HttpSource>),
    /// A repository.
    Git(Box<GitSource>),
}

/// What a source elsewhere held: a digest, or a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pin {
    /// The algorithm, as `sha256`.
    pub algorithm: String,
    /// The hexadecimal digits.
    pub hex: String,
}

impl Pin {
    /// Returns that of a commit, which tells its algorithm by its length.
    pub(crate) fn commit(hex: &str) -> Self {
        let algorithm = if hex.len() == 64 { "sha256" } else { "sha1" };
        Self { algorithm: algorithm.to_owned(), hex: hex.to_owned() }
    }

    /// Returns that of a file, `sha256:…`.
    pub(crate) fn digest(text: &str) -> Self {
        let (algorithm, hex) = text.split_once(':').unwrap_or(("sha256", text));
        Self { algorithm: algorithm.to_owned(), hex: hex.to_owned() }
    }
}

/// A source that was brought in.
#[derive(Clone, Debug)]
pub(crate) struct Loaded {
    /// Its files.
    pub(crate) layer: LayerId,
    /// What it held.
    pub(crate) pin: Pin,
}

impl RemoteSource {
    /// Returns what the source holds, where it says so itself.
    fn pin(&self) -> Option<Pin> {
        match self {
            Self::Http(source) => source.pin(),
            Self::Git(source) => source.pin(),
        }
    }

    /// Returns what stands for the source in keys, where the source says what it holds.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        match self {
            Self::Http(source) => source.key(),
            Self::Git(source) => source.key(),
        }
    }
}

/// Brings in sources elsewhere.
#[derive(Debug)]
pub(crate) struct Remotes {
    pub(super) snapshots: Snapshots,
    pub(super) client: Client,
    pub(super) secrets: Secrets,
    pub(super) options: RemoteOptions,
    loaded: Mutex<BTreeMap<String, Arc<OnceCell<Loaded>>>>,
}

impl Remotes {
    pub(crate) fn new(snapshots: Snapshots, secrets: Secrets, options: RemoteOptions) -> Self {
        let client = snapshots.blobs.client().clone();
        Self { snapshots, client, secrets, options, loaded: Mutex::default() }
    }

    /// Brings a source in, unless it is here.
    pub(crate) async fn load(
        &self,
        op: &SourceOp,
        source: &RemoteSource,
        context: &StepContext,
    ) -> Result<LayerId> {
        let cell = {
            let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(loaded.entry(format!("{op:?}")).or_default())
        };
        let layer = cell.get_or_try_init(|| async {
            match source {
                RemoteSource::Http(source) => source.load(self, context).await,
                RemoteSource::Git(source) => source.load(self, context).await,
            }
        });
        layer.await.map(|loaded| loaded.layer.clone())
    }

    /// Returns what a source held when it was brought in, or what it says itself that it holds.
    pub(crate) fn pin(&self, op: &SourceOp, source: &RemoteSource) -> Option<Pin> {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = loaded.get(&format!("{op:?}")).and_then(|cell| cell.get());
        loaded.map(|loaded| loaded.pin.clone()).or_else(|| source.pin())
    }
}
