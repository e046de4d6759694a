//! Files, secrets and agents that come from a client.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use kiln_event::Reporter;
use kiln_llb::op::SourceOp;
use kiln_store::{CLIENT_DIRECTORY, CacheMountGuard, PendingTree, Sharing, Store};
use kiln_tree::{Dir, FileDigests};
use kiln_worker::{
    AgentSources, ContextIndex, Error, LocalSources, Result, SecretSources, UploadReader, Uploads,
    patterns,
};
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::session::{
    Agent, Error as SessionError, Progress, Session, Sessions, SyncRequest, SyncTarget,
};

/// The time to wait for another session that a graph names.
const PATIENCE: Duration = Duration::from_secs(5);

/// The host in the URLs of uploads.
const UPLOAD_HOST: &str = "buildkit-session";

/// A directory that a client has sent. It is locked, or deleted later, while the build has it.
#[derive(Debug)]
enum Directory {
    /// A directory that stays for the client's next build, which then sends only changes.
    Kept(CacheMountGuard),
    /// A directory of this build alone.
    Own(PendingTree),
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(guard) => guard.path(),
            Self::Own(tree) => tree.fs(),
        }
    }

    fn open(&self) -> Result<Dir> {
        match self {
            Self::Kept(guard) => Ok(guard.open()?),
            Self::Own(tree) => Ok(tree.open()?),
        }
    }
}

/// The receiver of a directory.
type Received = Arc<OnceCell<Directory>>;

/// A request for the files of a client's directory.
#[derive(Clone, Debug, Default)]
pub(crate) struct FileRequest {
    /// The ID of the session, if it isn't the build's.
    pub(crate) session: String,
    /// The files.
    pub(crate) files: SyncRequest,
    /// The client's name for this directory among its directories of the same name. Requests of
    /// different purposes have different ones, so that they don't remove each other's files.
    pub(crate) hint: String,
    /// `true` if files with the same time and size may differ.
    pub(crate) is_distrustful: bool,
}

/// The sources of a session's client. A directory is received once in a build.
pub(crate) struct SessionSources {
    session: Option<Session>,
    sessions: Sessions,
    store: Store,
    runtime: Handle,
    directories: Mutex<HashMap<String, Received>>,
    agents: Mutex<HashMap<String, Agent>>,
}

impl fmt::Debug for SessionSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSources").finish_non_exhaustive()
    }
}

impl SessionSources {
    /// Returns the sources of a build. What a client sends goes into the store's temporary area. Must
    /// be called within a Tokio runtime.
    pub(crate) fn new(session: Option<Session>, sessions: Sessions, store: Store) -> Self {
        let (runtime, directories, agents) =
            (Handle::current(), Mutex::default(), Mutex::default());
        Self { session, sessions, store, runtime, directories, agents }
    }

    /// Returns the directory with the files of a request.
    ///
    /// # Errors
    /// Fails if the client doesn't send the files.
    async fn receive(&self, request: &FileRequest, reporter: &Reporter) -> Result<PathBuf> {
        let cell = {
            let mut known = self.directories.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(format!("{request:?}")).or_default())
        };
        let receive = || async {
            let session = self.session(&request.session).await?;
            let directory = self.open(session.shared_key(), request)?;
            let index = Arc::new(ContextIndex::new(self.store.clone()));
            let digests: Arc<dyn FileDigests> = Arc::clone(&index) as _;
            let into = SyncTarget { dir: Arc::new(directory.open()?), digests: Some(digests) };
            let title = format!("transferring {}:", request.files.dir_name);
            let mut part = reporter.part(&title, None);
            let mut before = 0;
            let progress = move |progress: Progress| {
                part.advance(progress.bytes.saturating_sub(before));
                before = progress.bytes;
            };
            // Clients without a key of their own share directories.
            let is_shared = session.shared_key().is_empty();
            let files = SyncRequest { is_shared, ..request.files.clone() };
            let synced = session.sync_directory(&files, into, progress).await;
            let synced = synced.map_err(|error| Error::Invalid(error.to_string()))?;
            index.save()?;
            reporter.status(&title, synced.received.bytes, None, true);
            Ok::<_, Error>(directory)
        };
        Ok(cell.get_or_try_init(receive).await?.path().to_owned())
    }

    /// Opens the directory that receives the files: the one of the client's last build, or an empty
    /// one.
    fn open(&self, shared_key: &str, request: &FileRequest) -> Result<Directory> {
        if request.is_distrustful {
            return Ok(Directory::Own(self.store.layers().begin()?));
        }
        let FileRequest { files, hint, .. } = request;
        let id = format!("{CLIENT_DIRECTORY}{:?} {hint:?} of {shared_key}", files.dir_name);
        let (mut guard, is_new) = self.store.cache_mounts().acquire(&id, Sharing::Private)?;
        if is_new {
            guard.ready()?;
        }
        Ok(Directory::Kept(guard))
    }

    /// Returns the store of the build.
    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// Returns another session that a graph names, or the build's own.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) async fn session(&self, other: &str) -> Result<Session> {
        let own = self.session.clone();
        if own.as_ref().is_some_and(|own| other.is_empty() || own.id() == other) {
            return own.ok_or_else(no_session);
        }
        match self.sessions.get(other, PATIENCE).await {
            Ok(session) => Ok(session),
            Err(_) => own.ok_or_else(no_session),
        }
    }
}

fn no_session() -> Error {
    Error::Invalid("the build has no session that could send files".to_owned())
}

impl LocalSources for SessionSources {
    fn has(&self, _: &str) -> bool {
        true
    }

    fn directory<'a>(
        &'a self,
        name: &'a str,
        source: &'a SourceOp,
        reporter: &'a Reporter,
    ) -> BoxFuture<'a, Result<PathBuf>> {
        Box::pin(async move {
            let attribute = |name: &str| source.attrs.get(name).cloned().unwrap_or_default();
            let files = SyncRequest {
                dir_name: name.to_owned(),
                include: patterns(&source.attrs, "local.includepattern")?,
                exclude: patterns(&source.attrs, "local.excludepatterns")?,
                follow_paths: patterns(&source.attrs, "local.followpaths")?,
                is_shared: false,
            };
            let request = FileRequest {
                session: attribute("local.session"),
                files,
                hint: attribute("local.sharedkeyhint"),
                is_distrustful: attribute("local.differ") == "none",
            };
            self.receive(&request, reporter).await
        })
    }
}

impl Uploads for SessionSources {
    fn has(&self, url: &str) -> bool {
        upload(url).is_some()
    }

    fn open<'a>(&'a self, url: &'a str) -> BoxFuture<'a, Result<UploadReader>> {
        Box::pin(async move {
            let path = upload(url).unwrap_or_default();
            let session = self.session("").await?;
            let upload = session.upload(path, UPLOAD_HOST).await;
            let upload = upload.map_err(|error| Error::Invalid(error.to_string()))?;
            Ok(Box::new(upload) as UploadReader)
        })
    }
}

/// Returns the path of an upload's URL.
fn upload(url: &str) -> Option<&str> {
    let rest = url.strip_prefix("http://")?.strip_prefix(UPLOAD_HOST)?;
    rest.starts_with('/').then_some(rest)
}

impl SecretSources for SessionSources {
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>> {
        let Some(session) = &self.session else { return Ok(None) };
        let found = tokio::task::block_in_place(|| self.runtime.block_on(session.secret(id)));
        found.map_err(|error| Error::Invalid(format!("secret {id}: {error}")))
    }
}

impl AgentSources for SessionSources {
    fn socket(&self, id: &str) -> Result<Option<PathBuf>> {
        let Some(session) = &self.session else { return Ok(None) };
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(id) {
            return Ok(Some(agent.socket().to_owned()));
        }
        let directory = self.store.temp_dir()?;
        let agent =
            tokio::task::block_in_place(|| self.runtime.block_on(session.agent(id, &directory)));
        let agent = match agent {
            // A client without agents. A step may not require one.
            Err(SessionError::Unsupported { .. }) => return Ok(None),
            agent => agent.map_err(|error| Error::Invalid(format!("ssh agent {id}: {error}")))?,
        };
        let socket = agent.socket().to_owned();
        agents.insert(id.to_owned(), agent);
        Ok(Some(socket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uploads_have_urls_of_their_own() {
        assert_eq!(upload("http://buildkit-session/abc"), Some("/abc"));
        for url in ["https://buildkit-session/a", "http://buildkit-session.example/a", "http://a/"]
        {
            assert_eq!(upload(url), None, "{url}");
        }
    }
}
