//! Packing a tree into a tar.
//!
//! Packing has two halves. [`PackPlan::new`] looks at the whole tree, in parallel, and says what the
//! entries are, in their order; [`PackPlan::write`] streams them. Who wants to read files ahead, or
//! to compress in parallel, takes the entries and writes [`PackEntry::header`] and the content
//! itself, padded to 512 bytes, and [`END`] in the end.
//!
//! The bytes are a function of the tree: entries sorted by path components, a PAX header only where
//! a field doesn't fit, numeric owners only, modification times in whole seconds (as containerd has
//! them), no other times. There is no entry for the root. Sockets are left out.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write};
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::path::{Path, PathBuf};

use rustix::fs::readlinkat;
use rustix::io::Errno;

use crate::attributes::{self, Xattr};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::names;
use crate::scan::{Found, Rules, scan};
use crate::tar_header::{self, BLOCK, Fields};
use crate::view::View;

/// How deletions are kept in a tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whiteouts {
    /// The tree is an overlay's upper directory: character devices 0/0 and `trusted.overlay.*` (or
    /// `user.overlay.*`) attributes become `.wh.` entries. Of the extended attributes
    /// `security.capability` alone is packed, as containerd and BuildKit do with layers.
    Overlay,
    /// There are none. The extended attributes `security.capability` and `user.*` are packed.
    None,
}

/// How to pack.
#[derive(Clone, Copy, Debug)]
pub struct PackOptions {
    /// How deletions are kept.
    pub whiteouts: Whiteouts,
    /// Times later than this are set to this (`SOURCE_DATE_EPOCH`).
    pub clamp_mtime: Option<Timestamp>,
}

/// What was packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// How many entries.
    pub entries: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// What ends a tar.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Says in a directory that it hides what is below it in other layers.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// Bytes read from a file at a time.
const CHUNK: usize = 256 * 1024;

/// Writes the tree below `dir` to `sink` as a tar whose bytes are a function of its content:
/// entries sorted by path, PAX headers only where needed, numeric owners, no access times.
///
/// # Errors
/// Fails where a file can't be read, or `sink` fails.
pub fn pack(dir: &Dir, sink: &mut dyn Write, options: PackOptions) -> Result<Packed> {
    PackPlan::new(dir, options)?.write(dir, sink)
}

/// What a tar of a tree holds.
#[derive(Clone, Debug, Default)]
pub struct PackPlan {
    entries: Vec<PackEntry>,
}

/// An entry of a tar.
#[derive(Clone, Debug)]
pub struct PackEntry {
    /// Its name, without slashes around it.
    name: Vec<u8>,
    kind: EntryKind,
    mode: u32,
    owner: Owner,
    mtime: i64,
    xattrs: Vec<Xattr>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum EntryKind {
    /// With its size.
    File(u64),
    Directory,
    /// With what it holds.
    Symlink(Vec<u8>),
    /// With the name of the entry that it is another name for.
    HardLink(Vec<u8>),
    Fifo,
    CharDevice(u32, u32),
    BlockDevice(u32, u32),
}

impl PackPlan {
    /// Looks at all of a tree.
    ///
    /// # Errors
    /// Fails where something can't be read.
    pub fn new(dir: &Dir, options: PackOptions) -> Result<Self> {
        let layer = options.whiteouts == Whiteouts::Overlay;
        let look = |dir: BorrowedFd<'_>, name: &[u8], metadata: &Metadata| {
            Looked::new((dir, name), metadata, layer)
        };
        let found = scan(View::of(dir), Path::new("/"), Rules::default(), look)?;
        let mut plan = Self { entries: Vec::with_capacity(found.len()) };
        let mut linked = HashMap::new();
        for entry in found {
            plan.add(entry, options, &mut linked);
        }
        // Whiteouts sort otherwise than the names that they hide.
        plan.entries.sort_by(|a, b| names::compare(a.place(), b.place()));
        Ok(plan)
    }

    fn add(
        &mut self,
        entry: Found<Looked>,
        options: PackOptions,
        linked: &mut HashMap<(u64, u64), Vec<u8>>,
    ) {
        let Found { path: name, metadata, extra: looked, .. } = entry;
        if looked.whiteout {
            let at = name.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
            let (parent, hidden) = name.split_at(at);
            self.entries.push(PackEntry::whiteout([parent, b".wh.", hidden].concat()));
            return;
        }
        let mut kind = match metadata.kind {
            FileKind::Socket => return,
            FileKind::File => EntryKind::File(metadata.size),
            FileKind::Directory => EntryKind::Directory,
            FileKind::Symlink => EntryKind::Symlink(looked.target),
            FileKind::Fifo => EntryKind::Fifo,
            FileKind::CharDevice { major, minor } => EntryKind::CharDevice(major, minor),
            FileKind::BlockDevice { major, minor } => EntryKind::BlockDevice(major, minor),
        };
        if metadata.links > 1 && !metadata.is_dir() {
            match linked.get(&(metadata.device, metadata.inode)) {
                Some(first) => kind = EntryKind::HardLink(first.clone()),
                None => drop(linked.insert((metadata.device, metadata.inode), name.clone())),
            }
        }
        if looked.opaque {
            self.entries.push(PackEntry::whiteout(names::join(&name, OPAQUE)));
        }
        let mtime = options.clamp_mtime.map_or(metadata.mtime, |clamp| metadata.mtime.min(clamp));
        self.entries.push(PackEntry {
            name,
            kind,
            mode: metadata.mode,
            owner: metadata.owner,
            mtime: mtime.seconds,
            xattrs: looked.xattrs,
        });
    }

    /// Returns the entries, in their order.
    pub fn entries(&self) -> &[PackEntry] {
        &self.entries
    }

    /// Writes the tar, a piece of a file at a time.
    ///
    /// # Errors
    /// Fails where a file can't be read or isn't as large as it was, or `sink` fails.
    pub fn write(&self, dir: &Dir, sink: &mut dyn Write) -> Result<Packed> {
        let mut buffer = vec![0; CHUNK];
        let mut bytes = END.len() as u64;
        for entry in &self.entries {
            let header = entry.header();
            let failed = |error| Error::io("write", &entry.path(), error);
            sink.write_all(&header).map_err(failed)?;
            bytes += header.len() as u64;
            let Some(size) = entry.content().filter(|size| *size > 0) else { continue };
            let mut file = entry.open(dir)?;
            let mut left = size;
            while left > 0 {
                let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                let read = file
                    .read(&mut buffer[..wanted])
                    .map_err(|error| Error::io("read", &entry.path(), error))?;
                if read == 0 {
                    return Err(Error::invalid(entry.path(), "became smaller while it was packed"));
                }
                sink.write_all(&buffer[..read]).map_err(failed)?;
                left -= read as u64;
            }
            let padded = size.next_multiple_of(BLOCK as u64);
            sink.write_all(&END[..(padded - size) as usize]).map_err(failed)?;
            bytes += padded;
        }
        sink.write_all(&END).map_err(|error| Error::io("write", Path::new("/"), error))?;
        Ok(Packed { entries: self.entries.len() as u64, bytes })
    }
}

impl PackEntry {
    /// A whiteout, as containerd writes it.
    fn whiteout(name: Vec<u8>) -> Self {
        let (kind, owner) = (EntryKind::File(0), Owner::default());
        Self { name, kind, mode: 0, owner, mtime: 0, xattrs: Vec::new() }
    }

    /// Returns what it is sorted by: a directory's opaque whiteout is the first in it.
    fn place(&self) -> &[u8] {
        self.name.strip_suffix(OPAQUE).unwrap_or(&self.name)
    }

    /// Returns its path from the root of the tree.
    pub fn path(&self) -> PathBuf {
        Path::new("/").join(names::path(&self.name))
    }

    /// Returns how many bytes of content follow the header, for a file.
    pub fn content(&self) -> Option<u64> {
        match self.kind {
            EntryKind::File(size) => Some(size),
            _ => None,
        }
    }

    /// Opens the content of a file.
    pub fn open(&self, dir: &Dir) -> Result<File> {
        dir.open_file(&self.path())
    }

    /// Returns the header, the extended one before it where it is needed.
    pub fn header(&self) -> Vec<u8> {
        let (kind, link, size, device): (u8, &[u8], u64, (u32, u32)) = match &self.kind {
            EntryKind::File(size) => (b'0', b"", *size, (0, 0)),
            EntryKind::HardLink(target) => (b'1', target, 0, (0, 0)),
            EntryKind::Symlink(target) => (b'2', target, 0, (0, 0)),
            EntryKind::CharDevice(major, minor) => (b'3', b"", 0, (*major, *minor)),
            EntryKind::BlockDevice(major, minor) => (b'4', b"", 0, (*major, *minor)),
            EntryKind::Directory => (b'5', b"", 0, (0, 0)),
            EntryKind::Fifo => (b'6', b"", 0, (0, 0)),
        };
        let slashed;
        let name = if kind == b'5' {
            slashed = [&self.name[..], b"/"].concat();
            &slashed
        } else {
            &self.name
        };
        tar_header::encode(&Fields {
            name,
            kind,
            link,
            mode: self.mode,
            uid: self.owner.uid,
            gid: self.owner.gid,
            size,
            mtime: self.mtime,
            device,
            xattrs: &self.xattrs,
        })
    }
}

/// What is found out about an entry while its directory is open.
#[derive(Debug, Default)]
struct Looked {
    target: Vec<u8>,
    whiteout: bool,
    opaque: bool,
    xattrs: Vec<Xattr>,
}

impl Looked {
    fn new(
        entry: (BorrowedFd<'_>, &[u8]),
        metadata: &Metadata,
        layer: bool,
    ) -> Result<Self, Errno> {
        let (dir, name) = entry;
        let mut looked = Self::default();
        // Reading attributes needs a path, since opening would need a right to read the file. The
        // way through /proc leads to this very directory.
        let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
        path.extend_from_slice(name);
        match metadata.kind {
            FileKind::Symlink => {
                looked.target = readlinkat(dir, names::path(name), Vec::new())?.into_bytes();
            }
            FileKind::CharDevice { major: 0, minor: 0 } if layer => looked.whiteout = true,
            FileKind::File if layer => {
                looked.xattrs = attributes::capability(&path)?;
                // The form that whiteouts have where an overlay lies in an overlay.
                looked.whiteout =
                    metadata.size == 0 && attributes::overlay_mark(&path, "whiteout")?.is_some();
            }
            FileKind::Directory if layer => {
                looked.xattrs = attributes::capability(&path)?;
                looked.opaque =
                    attributes::overlay_mark(&path, "opaque")?.is_some_and(|value| value == b"y");
            }
            FileKind::File | FileKind::Directory => {
                looked.xattrs = attributes::xattrs_at(&path)?;
                looked.xattrs.retain(|(name, _)| {
                    name == b"security.capability"
                        || name.starts_with(b"user.") && !attributes::is_overlay_xattr(name)
                });
            }
            _ => {}
        }
        Ok(looked)
    }
}

#[cfg(test)]
#[path = "pack_tests.rs"]
mod tests;
