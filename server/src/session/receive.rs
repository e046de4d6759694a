//! The receiver of a directory, in a thread of its own.
//!
//! The client lists the entries of its directory in the order of a walk. The receiver walks over
//! the directory on the disk at the same time, compares the two lists, removes what is gone, makes
//! directories, links and devices at once, and requests the files that differ. The client sends
//! their contents at any time after, several files interleaved.
//!
//! # Invariants
//!
//! - Paths are relative and clean, and come in strictly ascending order after their directory. So a
//!   path is resolved below directories that this transfer has made or compared, and
//!   [`EntryWriter`] follows no links on the way.
//! - A changed file is removed and created anew, so its other names keep the old content, and a
//!   transfer that stops at any time never leaves a mixture of two contents under one name.
//! - A file gets its time after its content. If the server is killed, the next transfer finds a
//!   file with another time or size, and requests it again. No state is kept beside the directory.
//! - Hard links are made after all files, and lead only to earlier files. Times of directories are
//!   set last.
//! - At most [`IN_FLIGHT`] files are requested at a time, and each once. At most [`OPEN`] of them
//!   are open.
//!
//! A file that changes while the client reads it has the content that was sent, which may be
//! shorter or longer than announced. Its size then differs, or the client's file has another time,
//! and the next transfer requests it again.

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kiln_tree::{
    Attributes, ContentHasher, Dir, EntryWriter, FileDigests, FileKind, Metadata, Timestamp,
    WrittenFile, remember_written,
};
use tokio::sync::mpsc::{Receiver as Packets, UnboundedSender};

use super::error::{Error, Result};
use super::existing::{Existing, Found};
use super::messages::{Packet, PacketType};
use super::stat::{Incoming, Order, compare};
use super::sync::SyncTarget;

/// The maximal number of files that are requested and not yet complete.
const IN_FLIGHT: usize = 1024;
/// The maximal number of requests that are sent together. A client's HTTP/2 library may refuse to
/// buffer many small messages on their own.
const BATCH: usize = 64;
/// The maximal number of open files. Clients interleave four.
const OPEN: usize = 64;
/// The maximal number of entries of a directory tree.
const MOST_ENTRIES: u32 = 4_000_000;
/// The maximal length of all paths and link targets of a directory tree together, in bytes.
const MOST_BYTES: usize = 512 << 20;

/// The number of complete files whose hashes are stored together.
const WRITTEN: usize = 1 << 15;

/// The number of bytes of disk space that are reserved at a time. What the client announces doesn't
/// count: it costs the client nothing.
const RESERVED: u64 = 4 << 20;

/// The progress of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// The number of bytes of files received so far.
    pub bytes: u64,
    /// The number of files received completely so far.
    pub files: u64,
}

/// The result of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Synced {
    /// The number of entries in the directory and below.
    pub entries: u64,
    /// The files that were transferred.
    pub received: Progress,
    /// `true` if anything in the directory has changed, apart from times of directories.
    pub has_changed: bool,
}

/// A directory of the transfer.
struct Directory {
    path: Vec<u8>,
    mtime: Timestamp,
    /// `true` if the directory has another time on the disk.
    is_touched: bool,
}

/// A file that differs from the one on the disk.
struct Wanted {
    path: Vec<u8>,
    attributes: Attributes,
    /// The number of the directory that contains the file; `None` for the root.
    directory: Option<usize>,
    /// `true` if an entry has to be removed first.
    replaces: bool,
}

/// A requested file.
struct Transfer {
    wanted: Wanted,
    /// The file, once its first piece has arrived.
    file: Option<Partial>,
}

/// A file that is being written.
struct Partial {
    file: File,
    hasher: ContentHasher,
}

/// Another name of an earlier file.
struct HardLink {
    path: Vec<u8>,
    target: Vec<u8>,
    directory: Option<usize>,
    /// The device and inode of the entry on the disk.
    found: Option<(u64, u64)>,
}

/// The state of a transfer.
pub(super) struct Receiver<'a, P> {
    dir: &'a Dir,
    writer: EntryWriter<'a>,
    existing: Existing,
    order: Order,
    directories: Vec<Directory>,
    /// The files that are not requested yet, with their numbers.
    wanted: VecDeque<(u32, Wanted)>,
    requested: HashMap<u32, Transfer>,
    open: usize,
    /// The number of bytes that may be written before more disk space is reserved.
    room: u64,
    links: Vec<HardLink>,
    /// The requests that are sent together.
    batch: Vec<Packet>,
    requests: UnboundedSender<Vec<Packet>>,
    /// The number of the next entry.
    next: u32,
    /// The length of all paths so far.
    bytes: usize,
    is_listed: bool,
    has_changed: bool,
    /// The destination of the files' hashes.
    digests: Option<Arc<dyn FileDigests>>,
    /// The complete files whose hashes aren't stored yet.
    written: Vec<WrittenFile>,
    /// `true` if a time in whole seconds doesn't identify a file.
    is_shared: bool,
    received: Progress,
    progress: P,
}

impl<'a, P: FnMut(Progress)> Receiver<'a, P> {
    /// Receives a directory. The last packet that it sends ends the transfer, or has the error.
    ///
    /// # Errors
    /// Fails as [`Session::sync_directory`](super::Session::sync_directory) does.
    pub(super) fn run(
        into: &'a SyncTarget,
        mut packets: Packets<Packet>,
        requests: UnboundedSender<Vec<Packet>>,
        is_shared: bool,
        progress: P,
    ) -> Result<Synced> {
        let answers = requests.clone();
        let digests = into.digests.clone();
        let result = Self::new(&into.dir, requests, progress)
            .and_then(|receiver| Self { digests, is_shared, ..receiver }.receive(&mut packets));
        let last = match &result {
            Ok(_) => Packet::finish(),
            Err(error) => Packet::error(kiln_oci::error::chain(error)),
        };
        // The receiving end is gone if the call has ended.
        let _ = answers.send(vec![last]);
        result
    }

    fn new(dir: &'a Dir, requests: UnboundedSender<Vec<Packet>>, progress: P) -> Result<Self> {
        Ok(Self {
            dir,
            writer: EntryWriter::new(dir),
            existing: Existing::list(dir)?,
            order: Order::default(),
            directories: Vec::new(),
            wanted: VecDeque::new(),
            requested: HashMap::new(),
            open: 0,
            room: 0,
            links: Vec::new(),
            batch: Vec::new(),
            requests,
            next: 0,
            bytes: 0,
            is_listed: false,
            has_changed: false,
            digests: None,
            written: Vec::new(),
            is_shared: false,
            received: Progress::default(),
            progress,
        })
    }

    fn receive(mut self, packets: &mut Packets<Packet>) -> Result<Synced> {
        while !(self.is_listed && self.wanted.is_empty() && self.requested.is_empty()) {
            let packet = if let Ok(packet) = packets.try_recv() {
                packet
            } else {
                self.flush();
                packets.blocking_recv().ok_or(Error::Interrupted)?
            };
            self.handle(packet)?;
            self.request();
        }
        self.finish()?;
        let (entries, received) = (self.next.into(), self.received);
        Ok(Synced { entries, received, has_changed: self.has_changed })
    }

    fn handle(&mut self, packet: Packet) -> Result<()> {
        match PacketType::try_from(packet.r#type) {
            Ok(PacketType::Stat) if self.is_listed => {
                Err(Error::Protocol("an entry after the end of the list".to_owned()))
            }
            Ok(PacketType::Stat) => match packet.stat {
                Some(stat) => {
                    self.bytes += stat.path.len() + stat.linkname.len();
                    self.entry(Incoming::new(stat)?)
                }
                None => self.end_of_list(),
            },
            Ok(PacketType::Data) => self.data(packet.id, &packet.data),
            Ok(PacketType::Error) => Err(Error::Sender(packet.text())),
            Ok(PacketType::Finish) => Err(Error::Protocol("an unexpected end".to_owned())),
            Ok(PacketType::Request) => Err(Error::Protocol("an unexpected request".to_owned())),
            Err(_) => Err(Error::Protocol(format!("a packet of type {}", packet.r#type))),
        }
    }

    /// Requests files up to the limit.
    fn request(&mut self) {
        while self.requested.len() < IN_FLIGHT
            && let Some((id, wanted)) = self.wanted.pop_front()
        {
            self.batch.push(Packet::request(id));
            if self.batch.len() >= BATCH {
                self.flush();
            }
            self.requested.insert(id, Transfer { wanted, file: None });
        }
    }

    /// Sends the requests so far.
    fn flush(&mut self) {
        if !self.batch.is_empty() {
            // The receiving end is gone if the call has ended, and then the packets end, too.
            let _ = self.requests.send(std::mem::take(&mut self.batch));
        }
    }

    /// Handles the next entry of the client's list.
    fn entry(&mut self, incoming: Incoming) -> Result<()> {
        let id = self.next;
        if id >= MOST_ENTRIES || self.bytes > MOST_BYTES {
            return Err(Error::Protocol("the directory has too many entries".to_owned()));
        }
        self.next += 1;
        self.remove_until(Some(&incoming.path))?;
        let directory = self.order.accept(&incoming.path)?;
        let found = self.existing.take(&incoming.path);
        if incoming.is_hard_link() {
            return self.hard_link(incoming, directory, found);
        }
        if let Some(found) = &found
            && found.link.is_none()
            && incoming.is_same(&found.metadata, &found.target)
            && !(self.is_shared && incoming.has_coarse_time())
        {
            if incoming.kind == FileKind::Directory {
                let is_touched = found.metadata.mtime != incoming.mtime;
                self.enter(incoming, is_touched);
            }
            return Ok(());
        }
        self.has_changed = true;
        self.change(id, incoming, directory, found.as_ref())
    }

    /// Makes an entry that differs from the one on the disk, or requests it.
    fn change(
        &mut self,
        id: u32,
        incoming: Incoming,
        directory: Option<usize>,
        found: Option<&Found>,
    ) -> Result<()> {
        let attributes = incoming.attributes();
        let was_dir = found.is_some_and(|found| found.metadata.is_dir());
        if incoming.kind == FileKind::Directory && was_dir {
            self.writer.set_attributes(&incoming.path, incoming.kind, &attributes)?;
            self.enter(incoming, true);
            return Ok(());
        }
        if was_dir {
            self.existing.skip_below(&incoming.path);
        }
        let is_file = incoming.kind == FileKind::File;
        if found.is_some() && (was_dir || !is_file) {
            self.writer.remove(&incoming.path)?;
        }
        self.touch(directory);
        let path = &incoming.path;
        match incoming.kind {
            FileKind::File => {
                let replaces = found.is_some() && !was_dir;
                let wanted = Wanted { path: incoming.path, attributes, directory, replaces };
                self.wanted.push_back((id, wanted));
            }
            FileKind::Directory => {
                self.writer.make_dir(path, &attributes)?;
                self.enter(incoming, true);
            }
            FileKind::Symlink => {
                let target = Path::new(OsStr::from_bytes(&incoming.link));
                self.writer.symlink(target, path, &attributes)?;
            }
            kind => self.writer.make_node(path, kind, &attributes)?,
        }
        Ok(())
    }

    /// Keeps a hard link until all files are there.
    fn hard_link(
        &mut self,
        incoming: Incoming,
        directory: Option<usize>,
        found: Option<Found>,
    ) -> Result<()> {
        let Incoming { path, link: target, .. } = incoming;
        if compare(&target, &path).is_ge() {
            return Err(unknown_link(&path, &target));
        }
        let mut inode = None;
        if let Some(Found { metadata, .. }) = found {
            if metadata.is_dir() {
                self.existing.skip_below(&path);
            }
            inode = Some((metadata.device, metadata.inode));
        }
        self.links.push(HardLink { path, target, directory, found: inode });
        Ok(())
    }

    fn end_of_list(&mut self) -> Result<()> {
        self.is_listed = true;
        self.remove_until(None)
    }

    /// Removes the entries on the disk before `next`, or all that are left.
    fn remove_until(&mut self, next: Option<&[u8]>) -> Result<()> {
        while let Some(gone) = self.existing.before(next) {
            self.writer.remove(&gone)?;
            self.existing.skip_below(&gone);
            self.has_changed = true;
            let directory = self.order.directory_of(&gone);
            self.touch(directory);
        }
        Ok(())
    }

    /// Opens the directory that was accepted last.
    fn enter(&mut self, incoming: Incoming, is_touched: bool) {
        self.order.enter(self.directories.len());
        let (path, mtime) = (incoming.path, incoming.mtime);
        self.directories.push(Directory { path, mtime, is_touched });
    }

    /// Remembers that a directory's time has to be set.
    fn touch(&mut self, directory: Option<usize>) {
        if let Some(directory) = directory.and_then(|number| self.directories.get_mut(number)) {
            directory.is_touched = true;
        }
    }

    /// Writes a piece of a file. An empty piece ends the file.
    fn data(&mut self, id: u32, data: &Bytes) -> Result<()> {
        let Some(transfer) = self.requested.get_mut(&id) else {
            return Err(Error::Protocol(format!("data of file {id}, which was not requested")));
        };
        let wanted = &transfer.wanted;
        let mut partial = match transfer.file.take() {
            Some(partial) => partial,
            None if self.open >= OPEN => {
                return Err(Error::Protocol("too many files at the same time".to_owned()));
            }
            None => {
                self.open += 1;
                if wanted.replaces {
                    self.writer.remove(&wanted.path)?;
                }
                let mode = wanted.attributes.mode.unwrap_or_default();
                let file = self.writer.create_file(&wanted.path, mode)?;
                Partial { file, hasher: ContentHasher::default() }
            }
        };
        if data.is_empty() {
            let file = &partial.file;
            let metadata = self.writer.finish_file(file, &wanted.path, &wanted.attributes)?;
            let directory = wanted.directory;
            self.written.push(WrittenFile { metadata, hash: partial.hasher.finish() });
            self.requested.remove(&id);
            self.touch(directory);
            self.open -= 1;
            self.received.files += 1;
            if self.written.len() >= WRITTEN {
                self.remember();
            }
        } else {
            let length = data.len() as u64;
            if self.room < length {
                self.dir.take_room(RESERVED.max(length))?;
                self.room += RESERVED.max(length);
            }
            self.room -= length;
            partial.file.write_all(data).map_err(|source| {
                let path = Path::new(OsStr::from_bytes(&wanted.path)).to_path_buf();
                kiln_tree::Error::Io { action: "write", path, source }
            })?;
            partial.hasher.update(data);
            transfer.file = Some(partial);
            self.received.bytes += length;
        }
        (self.progress)(self.received);
        Ok(())
    }

    /// Stores the hashes of complete files, so that the build need not read them again.
    fn remember(&mut self) {
        let written = std::mem::take(&mut self.written);
        if let Some(digests) = &self.digests {
            remember_written(&written, digests.as_ref());
        }
    }

    /// Makes hard links, and sets the times of directories.
    fn finish(&mut self) -> Result<()> {
        for link in std::mem::take(&mut self.links) {
            let target = self.writer.metadata(&link.target).ok().flatten();
            let target = target.filter(Metadata::is_file);
            let target = target.ok_or_else(|| unknown_link(&link.path, &link.target))?;
            if link.found == Some((target.device, target.inode)) {
                continue;
            }
            self.has_changed = true;
            if link.found.is_some() {
                self.writer.remove(&link.path)?;
            }
            self.writer.hard_link(&link.target, &link.path)?;
            self.touch(link.directory);
        }
        for directory in self.directories.iter().rev().filter(|directory| directory.is_touched) {
            let attributes = Attributes { mtime: Some(directory.mtime), ..Attributes::default() };
            self.writer.set_attributes(&directory.path, FileKind::Directory, &attributes)?;
        }
        self.remember();
        Ok(())
    }
}

fn unknown_link(path: &[u8], target: &[u8]) -> Error {
    let (path, target) = (String::from_utf8_lossy(path), String::from_utf8_lossy(target));
    Error::Protocol(format!("invalid link {path} to unknown path: {target:?}"))
}
