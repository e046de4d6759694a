//! `FileSend` with directories: the transfer of files to a directory of the client.
//!
//! The server lists all entries, the client requests the files that it wants, and the server sends
//! their contents, several files interleaved. The number of an entry is its place in the list, in
//! which every entry counts. The queue between the threads that read files and the stream is short,
//! so a slow client keeps files unread instead of their contents in memory.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::stream;
use kiln_tree::walk::{Entry, entries};
use kiln_tree::{Dir, FileKind, Metadata, View, Xattr};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tonic::metadata::MetadataMap;
use tonic::{Status, Streaming};

use super::Session;
use super::call::append;
use super::error::{Error, Result};
use super::messages::{Packet, PacketType, Stat};
use super::stat::{compare, device, nanoseconds, to_go};
use super::sync::COMPLAINT;

/// The method as clients list it.
pub(super) const METHOD: &str = "/moby.filesync.v1.FileSend/diffcopy";
/// The method as it is called.
pub(super) const PATH: &str = "/moby.filesync.v1.FileSend/DiffCopy";
/// The key of the number of an exporter.
pub(super) const EXPORTER: &str = "buildkit-attachable-exporter-id";

/// The number of bytes of a file in a packet. Receivers expect no more.
const PIECE: usize = 32 * 1024;
/// The number of packets that wait for a slow client.
const WAITING: usize = 32;
/// The number of threads that read files.
const READERS: usize = 4;

/// An entry of a directory that is sent to the client.
#[derive(Clone, Debug)]
pub struct OutgoingEntry {
    /// The path below the client's directory, without a leading slash.
    pub path: Vec<u8>,
    /// The type, mode, owner, size and time of the entry, and the inode by which files with several
    /// paths are recognized.
    pub metadata: Metadata,
    /// The target of a symbolic link; empty for other types.
    pub target: Vec<u8>,
    /// The extended attributes. Only those in `user.` and file capabilities are sent.
    pub xattrs: Vec<Xattr>,
    /// The source of a regular file's content.
    pub content: Content,
}

/// The source of a file's content.
#[derive(Clone, Debug)]
pub enum Content {
    /// No content: the entry is no regular file.
    None,
    /// The file at the entry's own path, or another one, in a directory.
    File(Arc<Dir>, Vec<u8>),
    /// The bytes themselves.
    Bytes(Bytes),
}

impl OutgoingEntry {
    /// Lists the entries that a view shows, without the root. `dir` is the directory of the view.
    ///
    /// # Errors
    /// Fails if the directory can't be read.
    pub fn list(dir: &Arc<Dir>, view: View<'_>) -> Result<Vec<Self>> {
        let found = entries(view, Path::new("/"))?.into_iter().skip(1);
        Ok(found.map(|entry| Self::of(dir, entry)).collect())
    }

    fn of(dir: &Arc<Dir>, entry: Entry) -> Self {
        let Entry { path, metadata, target, xattrs } = entry;
        let path = path.to_vec();
        let content = match metadata.kind {
            FileKind::File => Content::File(dir.clone(), path.clone()),
            _ => Content::None,
        };
        Self { path, metadata, target, xattrs, content }
    }

    /// Returns the packet that announces the entry. `link` is the first path of the same file.
    fn stat(&self, link: Option<&[u8]>) -> Stat {
        let Metadata { kind, mode, owner, size, mtime, .. } = self.metadata;
        // BuildKit sends sockets as regular files.
        let kind = if kind == FileKind::Socket { FileKind::File } else { kind };
        let (devmajor, devminor) = device(kind);
        let has_size =
            link.is_none() && matches!(self.metadata.kind, FileKind::File | FileKind::Symlink);
        let xattrs = self.xattrs.iter().filter(|(name, _)| is_sent(name));
        let xattrs = xattrs.filter_map(|(name, value)| {
            Some((String::from_utf8(name.clone()).ok()?, value.clone()))
        });
        Stat {
            path: self.path.clone(),
            mode: to_go(kind, mode),
            uid: owner.uid,
            gid: owner.gid,
            size: if has_size { size as i64 } else { 0 },
            mod_time: nanoseconds(mtime),
            linkname: link.unwrap_or(&self.target).to_vec(),
            devmajor,
            devminor,
            xattrs: xattrs.collect(),
        }
    }
}

/// Returns `true` for an extended attribute that has a meaning outside of the store.
fn is_sent(name: &[u8]) -> bool {
    let own = [&b"user.overlay."[..], kiln_tree::records::PREFIX];
    name == b"security.capability"
        || (name.starts_with(b"user.") && !own.iter().any(|prefix| name.starts_with(prefix)))
}

impl Session {
    /// Sends entries to the directory of an exporter of the client, which is named by its place in
    /// the request. Existing files of the client are replaced, others are kept. `metadata` has
    /// additional keys of the call.
    ///
    /// # Errors
    /// Fails if the client receives no files, reports an error, breaks the protocol or disappears.
    pub async fn send_directory(
        &self,
        exporter: u32,
        mut entries: Vec<OutgoingEntry>,
        metadata: &[(&str, &str)],
    ) -> Result<()> {
        self.require(METHOD)?;
        let mut headers = MetadataMap::new();
        append(&mut headers, EXPORTER, &exporter.to_string())?;
        for (key, value) in metadata {
            append(&mut headers, key, value)?;
        }
        entries.sort_by(|one, two| compare(&one.path, &two.path));
        self.unless_closed(async {
            let (sender, mut packets) = mpsc::channel(WAITING);
            let packets = stream::poll_fn(move |context| packets.poll_recv(context));
            let call = self.stream(PATH, headers, packets);
            Transfer::new(entries).run(call, sender).await
        })
        .await
    }
}

/// The state of a transfer to the client.
struct Transfer {
    entries: Arc<Vec<OutgoingEntry>>,
    /// The numbers of the files that the client may request.
    offered: Vec<bool>,
}

impl Transfer {
    fn new(entries: Vec<OutgoingEntry>) -> Self {
        let offered = entries.iter().map(is_file).collect();
        Self { entries: Arc::new(entries), offered }
    }

    async fn run(
        mut self,
        call: impl Future<Output = Result<Streaming<Packet>, Status>>,
        packets: mpsc::Sender<Packet>,
    ) -> Result<()> {
        let (requests, queue) = mpsc::unbounded_channel();
        let tasks = self.start(queue, &packets);
        let mut answers = call.await.map_err(failed)?;
        let result = self.serve(tasks, requests, &mut answers).await;
        let last = match &result {
            Ok(()) => Packet::finish(),
            Err(Error::Receiver(_) | Error::Call { .. }) => return result,
            Err(error) => Packet::error(kiln_oci::error::chain(error)),
        };
        let end = async {
            // The receiving end is gone if the call has ended, which the loop reports.
            let _ = packets.send(last).await;
            drop(packets);
            while answers.message().await.map_err(failed)?.is_some() {}
            Ok(())
        };
        if result.is_ok() {
            return end.await;
        }
        // The error is the result even if the client doesn't read it.
        let _ = timeout(COMPLAINT, end).await;
        result
    }

    /// Answers the client's requests until the client has all files.
    async fn serve(
        &mut self,
        mut tasks: JoinSet<Result<()>>,
        requests: mpsc::UnboundedSender<u32>,
        answers: &mut Streaming<Packet>,
    ) -> Result<()> {
        loop {
            let answer = tokio::select! {
                Some(done) = tasks.join_next() => {
                    done.map_err(|_| Error::Interrupted)??;
                    continue;
                }
                answer = answers.message() => answer.map_err(failed)?,
            };
            let Some(answer) = answer else {
                return Err(Error::Protocol("the stream ended before the transfer did".to_owned()));
            };
            match PacketType::try_from(answer.r#type) {
                Ok(PacketType::Request) => {
                    self.check(answer.id)?;
                    // The threads live until the queue ends.
                    let _ = requests.send(answer.id);
                }
                Ok(PacketType::Finish) => break,
                Ok(PacketType::Error) => return Err(Error::Receiver(answer.text())),
                _ => return Err(Error::Protocol(format!("a packet of type {}", answer.r#type))),
            }
        }
        drop(requests);
        while let Some(done) = tasks.join_next().await {
            done.map_err(|_| Error::Interrupted)??;
        }
        Ok(())
    }

    /// Starts the tasks that announce entries and read files.
    fn start(
        &self,
        queue: mpsc::UnboundedReceiver<u32>,
        packets: &mpsc::Sender<Packet>,
    ) -> JoinSet<Result<()>> {
        let queue = Arc::new(Mutex::new(queue));
        let mut tasks = JoinSet::new();
        let (entries, list) = (self.entries.clone(), packets.clone());
        tasks.spawn(async move {
            announce(&entries, &list).await;
            Ok(())
        });
        for _ in 0..READERS {
            let (entries, queue) = (self.entries.clone(), queue.clone());
            let packets = packets.clone();
            tasks.spawn_blocking(move || send_files(&entries, &queue, &packets));
        }
        tasks
    }

    /// Checks that the client may request a file. Each file is sent once.
    fn check(&mut self, id: u32) -> Result<()> {
        match self.offered.get_mut(id as usize) {
            Some(offered) if *offered => {
                *offered = false;
                Ok(())
            }
            _ => Err(Error::Protocol(format!("invalid file id {id}"))),
        }
    }
}

fn failed(status: Status) -> Error {
    Error::call("send files to the client", status)
}

/// Returns `true` for an entry that the client takes for a regular file.
fn is_file(entry: &OutgoingEntry) -> bool {
    matches!(entry.metadata.kind, FileKind::File | FileKind::Socket)
}

/// Sends the list of entries. Stops if the call has ended.
async fn announce(entries: &[OutgoingEntry], packets: &mpsc::Sender<Packet>) {
    let mut first: HashMap<(u64, u64), &[u8]> = HashMap::new();
    for entry in entries {
        let Metadata { device, inode, links, .. } = entry.metadata;
        let mut link = None;
        if entry.metadata.is_file() && links > 1 {
            link = first.get(&(device, inode)).copied();
            first.entry((device, inode)).or_insert(&entry.path);
        }
        if packets.send(Packet::stat(Some(entry.stat(link)))).await.is_err() {
            return;
        }
    }
    // The receiving end is gone if the call has ended.
    let _ = packets.send(Packet::stat(None)).await;
}

/// Sends requested files until the queue ends, or the call has ended.
fn send_files(
    entries: &[OutgoingEntry],
    queue: &Mutex<mpsc::UnboundedReceiver<u32>>,
    packets: &mpsc::Sender<Packet>,
) -> Result<()> {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).blocking_recv();
        let Some(id) = next else { return Ok(()) };
        let Some(entry) = entries.get(id as usize) else { continue };
        let send = |piece| packets.blocking_send(Packet::data(id, piece)).is_ok();
        if !send_content(&entry.content, send)? || !send(Bytes::new()) {
            return Ok(());
        }
    }
}

/// Sends a file in pieces. Returns `false` if the call has ended.
fn send_content(content: &Content, send: impl Fn(Bytes) -> bool) -> Result<bool> {
    match content {
        Content::None => Ok(true),
        Content::Bytes(bytes) => {
            let pieces = (0..bytes.len()).step_by(PIECE);
            Ok(pieces.map(|at| bytes.slice(at..bytes.len().min(at + PIECE))).all(send))
        }
        Content::File(dir, path) => {
            let path = Path::new(OsStr::from_bytes(path));
            let sent = send_file(dir.open_file(path)?, send);
            sent.map_err(|source| {
                kiln_tree::Error::Io { action: "read", path: path.to_path_buf(), source }.into()
            })
        }
    }
}

fn send_file(mut file: File, send: impl Fn(Bytes) -> bool) -> io::Result<bool> {
    loop {
        let mut piece = Vec::with_capacity(PIECE);
        if (&mut file).take(PIECE as u64).read_to_end(&mut piece)? == 0 {
            return Ok(true);
        }
        if !send(piece.into()) {
            return Ok(false);
        }
    }
}
