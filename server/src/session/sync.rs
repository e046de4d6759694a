//! `FileSync`: the transfer of a client's directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _};
use kiln_tree::{Dir, FileDigests};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status, Streaming};

use super::Session;
use super::call::append_all;
use super::error::{Error, Result, message};
use super::messages::Packet;
use super::receive::{Progress, Receiver, Synced};

/// The method as clients list it.
const METHOD: &str = "/moby.filesync.v1.FileSync/diffcopy";
/// The method as it is called.
const PATH: &str = "/moby.filesync.v1.FileSync/DiffCopy";

/// The number of packets between the stream and the thread that writes files.
const WAITING: usize = 64;

/// The time that the client has for the end of the stream after the last packet.
const GOODBYE: Duration = Duration::from_secs(10);
/// The time that the client has to read an error.
pub(super) const COMPLAINT: Duration = Duration::from_secs(1);

/// The part of a client's directory that a build needs. The client applies the patterns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SyncRequest {
    /// The name of the directory, for example `context`.
    pub dir_name: String,
    /// The patterns of the files to send; empty for all.
    pub include: Vec<String>,
    /// The patterns of the files to leave out, with `!` exceptions.
    pub exclude: Vec<String>,
    /// The paths to send with the targets of all links on the way, which wildcards may match.
    pub follow_paths: Vec<String>,
    /// `true` if the directory may have files of other clients. A file whose time is in whole seconds
    /// is then requested even if it looks the same: archives and checkouts give many files one time.
    pub is_shared: bool,
}

/// The destination of a transfer.
#[derive(Clone)]
pub struct SyncTarget {
    /// The directory. It may be empty or the result of an earlier transfer. Nothing else may change
    /// it.
    pub dir: Arc<Dir>,
    /// The memory that gets the hashes of the received files, so that the build need not read them
    /// again.
    pub digests: Option<Arc<dyn FileDigests>>,
}

impl From<Arc<Dir>> for SyncTarget {
    fn from(dir: Arc<Dir>) -> Self {
        Self { dir, digests: None }
    }
}

impl fmt::Debug for SyncTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncTarget").field("dir", &self.dir).finish_non_exhaustive()
    }
}

impl SyncRequest {
    fn metadata(&self) -> Result<MetadataMap> {
        let mut metadata = MetadataMap::new();
        append_all(&mut metadata, "dir-name", std::slice::from_ref(&self.dir_name))?;
        append_all(&mut metadata, "include-patterns", &self.include)?;
        append_all(&mut metadata, "exclude-patterns", &self.exclude)?;
        append_all(&mut metadata, "followpaths", &self.follow_paths)?;
        Ok(metadata)
    }
}

impl Session {
    /// Makes a directory equal to a directory of the client. Only changes travel: an entry is
    /// requested if its type, mode, owner, size, time, link or device numbers differ. Entries that
    /// the client doesn't send are removed. Extended attributes are ignored, as in contexts that
    /// are read in place.
    ///
    /// If this future is dropped, the thread that writes files stops soon after, and drops `into`
    /// then: attach a lock of the directory by [`Dir::keeping`]. `progress` is called often and
    /// should return quickly.
    ///
    /// # Errors
    /// Fails if the client has no such directory, breaks the protocol, reports an error or
    /// disappears, or if a file can't be written.
    pub async fn sync_directory(
        &self,
        request: &SyncRequest,
        into: impl Into<SyncTarget>,
        progress: impl FnMut(Progress) + Send + 'static,
    ) -> Result<Synced> {
        if !self.supports(METHOD) {
            return Err(Error::NoLocalSources);
        }
        let (metadata, is_shared) = (request.metadata()?, request.is_shared);
        let into = into.into();
        self.unless_closed(async {
            let (sender, packets) = mpsc::channel(WAITING);
            let (requests, mut requested) = mpsc::unbounded_channel();
            let writing = spawn_blocking(move || {
                Receiver::run(&into, packets, requests, is_shared, progress)
            });
            let requested = stream::poll_fn(move |context| requested.poll_recv(context));
            let requested = requested.flat_map(stream::iter);
            let call = self.stream(PATH, metadata, requested);
            let read = forward(call, sender).await;
            let written = writing.await.map_err(|_| Error::Interrupted)?;
            let mut rest = match (read, &written) {
                (Ok(rest), _) => rest,
                // The thread stopped because the packets did.
                (Err(status), Err(Error::Interrupted)) => {
                    return Err(failure(&request.dir_name, status));
                }
                (Err(_), _) => return written,
            };
            let patience = if written.is_ok() { GOODBYE } else { COMPLAINT };
            // The result doesn't depend on the end of the stream.
            let _ =
                timeout(patience, async { while let Ok(Some(_)) = rest.message().await {} }).await;
            written
        })
        .await
    }
}

/// Passes packets to the thread that writes files until that thread stops or the stream ends.
/// Returns the stream.
async fn forward(
    call: impl Future<Output = Result<Streaming<Packet>, Status>>,
    packets: mpsc::Sender<Packet>,
) -> Result<Streaming<Packet>, Status> {
    let mut stream = call.await?;
    loop {
        tokio::select! {
            () = packets.closed() => return Ok(stream),
            packet = stream.message() => match packet? {
                Some(packet) => drop(packets.send(packet).await),
                None => return Ok(stream),
            },
        }
    }
}

fn failure(name: &str, status: Status) -> Error {
    if status.code() == Code::NotFound {
        let message = message(&status).to_owned();
        return Error::NoSuchDirectory { name: name.to_owned(), message };
    }
    Error::call(format!("receive directory {name}"), status)
}
