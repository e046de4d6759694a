//! Unpacking of a tar into a tree.
//!
//! The result is the same as that of containerd's apply. The archive is untrusted: the kernel
//! resolves its names and links inside the root, entries are created relative to the descriptor of
//! their parent and never through a link at their own name, and the data kept in memory is bounded
//! (`tar_reader`).

mod entry;

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Mode, OFlags, linkat, openat, symlinkat};
use rustix::io::Errno;
use tar::EntryType;

use crate::attributes::Attributes;
use crate::dir::{Dir, entry_names};
use crate::error::{Error, NOT_REGULAR, Result};
use crate::ids::Ids;
use crate::inspected::open_inspected;
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::tar_reader::{TarEntry, TarReader};
use crate::{edit, names, remove, resolve, walk};
pub(crate) use entry::bounded_time;
use entry::{copy_at, finish_open, make_directory};

/// The options for unpacking.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// `true` if `.wh.` entries delete, as in layers; `false` for `ADD`.
    pub whiteouts: bool,
    /// The owner of all entries; `None` for the owners in the archive.
    pub owner: Option<Owner>,
    /// The maximal total size of files in bytes; `None` for no limit.
    pub max_bytes: Option<u64>,
    /// The maximal number of files and directories, including parents without entries; `None` for
    /// no limit.
    pub max_entries: Option<u64>,
}

/// The size of an unpacked archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The number of entries.
    pub entries: u64,
    /// The total size of the files in bytes.
    pub bytes: u64,
}

/// The name of the mark that hides all entries of a directory in the layers below.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The memory in bytes for each directory within the limit of entries: the size of a remembered
/// directory with a path of average length. It prevents long paths from evading the limit.
const DIRECTORY: u64 = 128;

/// The minimal limit of memory for directories, in bytes.
const LEAST_NAMES: u64 = 4 << 20;

/// The number of bytes copied at a time.
const CHUNK: usize = 128 * 1024;

/// Unpacks an uncompressed tar into the root file system `dest`, with the semantics of the kernel
/// and containerd. Links of the tree are followed inside it, deletions are applied (on an overlay
/// mount the kernel turns them into whiteouts), and missing parents are created.
///
/// The archive is read up to its end marker. To digest the stream, the caller must read the rest of
/// it.
///
/// # Errors
/// Fails on archives that are malformed, lead outside or exceed the limits.
pub fn unpack(archive: &mut dyn Read, dest: &Dir, options: UnpackOptions) -> Result<Unpacked> {
    let mut reader = TarReader::new(archive);
    let mut unpacker = Unpacker {
        dest,
        options,
        done: Unpacked::default(),
        parent: None,
        stale: false,
        made: HashSet::new(),
        directories: Vec::new(),
        directory_bytes: 0,
        nodes: 0,
        buffer: vec![0; CHUNK],
    };
    loop {
        let last = unpacker.done.entries;
        let next = reader.next();
        let error = |error| Error::io("read", Path::new(&format!("entry {}", last + 1)), error);
        let Some(entry) = next.map_err(error)? else { break };
        unpacker.entry(&entry, &mut reader)?;
    }
    unpacker.finish()
}

struct Unpacker<'a> {
    dest: &'a Dir,
    options: UnpackOptions,
    done: Unpacked,
    /// The parent of the last entry, which the next entry usually shares.
    parent: Option<Parent>,
    /// `true` if the parent may have moved, because a directory or link was removed.
    stale: bool,
    /// The hashes of the real paths that came from this archive, and of their parents.
    made: HashSet<[u8; 16]>,
    /// The times of directories. They are set at the end, because creating entries changes them.
    directories: Vec<(PathBuf, Timestamp)>,
    /// The memory in bytes that these use.
    directory_bytes: u64,
    /// The number of entries and parents so far.
    nodes: u64,
    buffer: Vec<u8>,
}

struct Parent {
    /// The path, as in the archive.
    named: Vec<u8>,
    real: PathBuf,
    fd: OwnedFd,
}

impl Unpacker<'_> {
    fn entry(&mut self, entry: &TarEntry, reader: &mut TarReader<'_>) -> Result<()> {
        self.done.entries += 1;
        self.nodes += 1;
        self.done.bytes = self.done.bytes.saturating_add(entry.size);
        self.check_limits(&entry.name)?;
        self.dest.take_room(stored(entry))?;
        if entry.name.contains(&0) || entry.link.contains(&0) {
            return Err(Error::invalid(names::path(&entry.name), "name with a NUL byte"));
        }
        let path = names::rooted(&entry.name);
        let Some((parent, name)) = names::split(&path) else { return self.root(entry) };
        let parent = self.enter(names::bytes(parent))?;
        let (name, path) = (names::bytes(name), parent.real.join(name));
        let made = self.make(&parent, name, entry, &path, reader);
        self.parent = (!std::mem::take(&mut self.stale)).then_some(parent);
        made
    }

    /// Checks the limits on disk space and memory.
    fn check_limits(&self, name: &[u8]) -> Result<()> {
        let beyond = |done: u64, limit: Option<u64>| limit.is_some_and(|limit| done > limit);
        let max_entries = self.options.max_entries;
        let max_names = max_entries.map(|most| most.saturating_mul(DIRECTORY).max(LEAST_NAMES));
        let problem = if beyond(self.nodes, max_entries) {
            "the archive exceeds the limit of entries"
        } else if beyond(self.done.bytes, self.options.max_bytes) {
            "the archive exceeds the limit of bytes"
        } else if beyond(self.directory_bytes, max_names) {
            "the archive exceeds the limit of directories"
        } else {
            return Ok(());
        };
        Err(Error::invalid(names::path(name), problem))
    }

    /// Handles an entry for the root. It changes nothing, except that Docker's `ADD` applies the
    /// attributes of an entry called `/` or `..`, but not `.`.
    fn root(&self, entry: &TarEntry) -> Result<()> {
        if self.options.whiteouts || names::is_dot(&entry.name) {
            return Ok(());
        }
        let root = Path::new("/");
        if entry.kind != EntryType::Directory {
            return Err(Error::invalid(root, "the root can't be replaced"));
        }
        finish_open(self.dest.as_fd(), entry, &self.attributes(entry))
            .map_err(|errno| Error::io("unpack", root, errno))
    }

    fn attributes(&self, entry: &TarEntry) -> Attributes {
        Attributes {
            mode: Some(entry.mode),
            owner: Some(self.options.owner.unwrap_or(Owner { uid: entry.uid, gid: entry.gid })),
            mtime: Some(bounded_time(entry.mtime)),
        }
    }

    /// Opens the parent directory of an entry, and creates it if it doesn't exist.
    fn enter(&mut self, named: &[u8]) -> Result<Parent> {
        if let Some(parent) = self.parent.take().filter(|parent| parent.named == named) {
            return Ok(parent);
        }
        let path = names::path(named);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        // Usually there is no link on the way, and the name is the real path.
        let below = named.strip_prefix(b"/").unwrap_or(named);
        if let Ok(fd) = walk::open_without_links(self.dest.as_fd(), below, flags) {
            return Ok(Parent { named: named.to_vec(), real: path.to_path_buf(), fd });
        }
        let real = self.dest.real_path(path)?;
        let fd = match resolve::open(self.dest.as_fd(), &real, flags, Mode::empty()) {
            Err(Errno::NOENT) => {
                if !self.options.whiteouts {
                    self.check_no_dangling_link(path)?;
                }
                let attributes = Attributes { mode: Some(0o755), ..Attributes::default() };
                self.nodes += self.dest.mkdir_all(&real, &attributes)?.len() as u64;
                self.check_limits(named)?;
                resolve::open(self.dest.as_fd(), &real, flags, Mode::empty())
            }
            result => result,
        };
        let fd = fd.map_err(|errno| Error::at("open", path, errno))?;
        Ok(Parent { named: named.to_vec(), real, fd })
    }

    /// Checks that no link on the way to `path` is dangling. Docker's `ADD` rejects such links. For
    /// layers, their targets are created.
    fn check_no_dangling_link(&self, path: &Path) -> Result<()> {
        for path in path.ancestors() {
            if self.dest.metadata(path, false)?.is_some() {
                return match self.dest.metadata(path, true)? {
                    Some(_) => Ok(()),
                    None => Err(Error::NotFound { path: path.to_path_buf() }),
                };
            }
        }
        Ok(())
    }

    fn make(
        &mut self,
        parent: &Parent,
        name: &[u8],
        entry: &TarEntry,
        path: &Path,
        reader: &mut TarReader<'_>,
    ) -> Result<()> {
        if self.options.whiteouts
            && let Some(hidden) = name.strip_prefix(b".wh.")
        {
            return self.whiteout(parent, name, hidden);
        }
        // Devices can't be created in a user namespace, and are left out there. For layers, this happens
        // before existing entries are removed, as in containerd; for archives, afterwards, as in
        // Docker's `ADD`.
        let is_device = matches!(entry.kind, EntryType::Char | EntryType::Block);
        let is_left_out = is_device && Ids::current().leaves_devices_out();
        if is_left_out && self.options.whiteouts {
            return Ok(());
        }
        let error = |errno| Error::io("unpack", path, errno);
        let dir = parent.fd.as_fd();
        self.make_room(dir, name, entry).map_err(error)?;
        if is_left_out {
            return Ok(());
        }
        let attributes = self.attributes(entry);
        match entry.kind {
            EntryType::Directory => {
                make_directory(dir, name, entry, &attributes).map_err(error)?;
                let size = names::bytes(path).len() + size_of::<(PathBuf, Timestamp)>();
                self.directory_bytes += size as u64;
                self.directories.push((path.to_path_buf(), bounded_time(entry.mtime)));
            }
            EntryType::Regular | EntryType::Continuous => {
                let file = File::from(edit::create(dir, name).map_err(error)?);
                self.content(&file, entry, reader)
                    .map_err(|source| Error::io("unpack", path, source))?;
                finish_open(file.as_fd(), entry, &attributes).map_err(error)?;
            }
            EntryType::Symlink => {
                symlinkat(names::path(&entry.link), dir, names::path(name))
                    .and_then(|()| attributes.apply_to_entry(dir, name, FileKind::Symlink))
                    .map_err(error)?;
            }
            EntryType::Link => self.hard_link(dir, name, entry, &attributes)?,
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let (major, minor) = entry.device;
                let kind = match entry.kind {
                    EntryType::Char => FileKind::CharDevice { major, minor },
                    EntryType::Block => FileKind::BlockDevice { major, minor },
                    _ => FileKind::Fifo,
                };
                edit::make_node(dir, name, kind, &attributes).map_err(error)?;
            }
            kind => {
                let kind = char::from(kind.as_byte()).escape_default().to_string();
                return Err(Error::invalid(
                    path,
                    format!("entries of type {kind:?} are not supported"),
                ));
            }
        }
        self.remember(path);
        Ok(())
    }

    /// Removes an existing entry that is in the way. A directory is kept if the new entry is a
    /// directory.
    fn make_room(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &TarEntry,
    ) -> Result<(), Errno> {
        let found = match Metadata::of_entry(dir, name) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if !(found.is_dir() && entry.kind == EntryType::Directory) {
            remove::remove_all(dir, name)?;
            self.stale = found.is_dir() || found.is_symlink();
        }
        Ok(())
    }

    /// Creates a hard link. The parents of the target may be links inside the root. The target
    /// itself isn't followed if it is a link.
    fn hard_link(
        &mut self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        entry: &TarEntry,
        attributes: &Attributes,
    ) -> Result<()> {
        let target = names::rooted(&entry.link);
        let error = |errno| Error::at("link", &target, errno);
        let Some((from, old)) = self.dest.parent_of(&target)? else {
            return Err(Error::io("link", &target, Errno::PERM));
        };
        linkat(&from, old, dir, names::path(name), AtFlags::empty()).map_err(error)?;
        let found = Metadata::of_entry(dir, name).map_err(error)?;
        let mut attributes = *attributes;
        if attributes.owner == Some(found.owner) {
            // Even setting the same owner would clear `security.capability`.
            attributes.owner = None;
        }
        if !found.is_file() {
            return attributes.apply_to_entry(dir, name, found.kind).map_err(error);
        }
        let find = |flags| openat(dir, names::path(name), flags | OFlags::NOFOLLOW, Mode::empty());
        let opened = open_inspected(OFlags::RDONLY, FileKind::is_file, find).map_err(error)?;
        let file = opened.ok_or_else(|| Error::invalid(&target, NOT_REGULAR))?;
        finish_open(file.as_fd(), entry, &attributes).map_err(error)
    }

    fn content(
        &mut self,
        file: &File,
        entry: &TarEntry,
        reader: &mut TarReader<'_>,
    ) -> io::Result<()> {
        let Some(segments) = &entry.segments else {
            return copy_at(file, 0, entry.size, reader, &mut self.buffer);
        };
        for segment in segments {
            copy_at(file, segment.offset, segment.length, reader, &mut self.buffer)?;
        }
        file.set_len(entry.size)
    }

    fn whiteout(&mut self, parent: &Parent, name: &[u8], hidden: &[u8]) -> Result<()> {
        let path = parent.real.join(names::path(name));
        let error = |errno| Error::io("remove", &path, errno);
        self.stale = true;
        if name == OPAQUE {
            return self.make_opaque(&parent.real).map_err(error);
        }
        if hidden.is_empty() || hidden == b"." || hidden == b".." {
            return Err(Error::invalid(&path, "whiteout of nothing"));
        }
        remove::remove_all(parent.fd.as_fd(), hidden).map_err(error)
    }

    /// Removes the entries of a directory that didn't come from this archive.
    fn make_opaque(&self, path: &Path) -> Result<(), Errno> {
        let mut pending = vec![path.to_path_buf()];
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        while let Some(path) = pending.pop() {
            let dir = resolve::open(self.dest.as_fd(), &path, flags, Mode::empty())?;
            for name in entry_names(dir.as_fd())? {
                let path = path.join(names::path(&name));
                if !self.made.contains(&hash(&path)) {
                    remove::remove_all(dir.as_fd(), &name)?;
                } else if Metadata::of_entry(dir.as_fd(), &name)?.is_dir() {
                    pending.push(path);
                }
            }
        }
        Ok(())
    }

    fn remember(&mut self, path: &Path) {
        if self.options.whiteouts {
            for path in path.ancestors() {
                if !self.made.insert(hash(path)) {
                    break;
                }
            }
        }
    }

    fn finish(self) -> Result<Unpacked> {
        // The order matters: the last entry for a directory decides.
        for (path, mtime) in &self.directories {
            // A later entry may have removed or replaced the directory, or a directory above it.
            let below = names::bytes(path).strip_prefix(b"/").unwrap_or(names::bytes(path));
            let flags = OFlags::PATH | OFlags::DIRECTORY;
            match walk::open_without_links(self.dest.as_fd(), below, flags) {
                Ok(_) => {
                    let attributes = Attributes { mtime: Some(*mtime), ..Attributes::default() };
                    self.dest.set_attributes(path, &attributes)?;
                }
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                Err(errno) => return Err(Error::io("unpack", path, errno)),
            }
        }
        Ok(self.done)
    }
}

/// Returns the number of bytes of a file that the archive has. Holes take no room.
fn stored(entry: &TarEntry) -> u64 {
    let segments = entry.segments.as_ref();
    segments.map_or(entry.size, |all| all.iter().map(|segment| segment.length).sum())
}

fn hash(path: &Path) -> [u8; 16] {
    let mut hash = [0; 16];
    hash.copy_from_slice(&blake3::hash(names::bytes(path)).as_bytes()[..16]);
    hash
}

#[cfg(test)]
mod tests;
