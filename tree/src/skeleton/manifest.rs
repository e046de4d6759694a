//! The entries of an archive in serialized form.
//!
//! Each entry consists of its type (one letter), its path, and further fields. A string is preceded
//! by its length (4 bytes). Numbers are little-endian. *Attributes* are mode, user, group (4 bytes
//! each) and time: seconds (8), nanoseconds (4).
//!
//! | letter | type | further fields |
//! | --- | --- | --- |
//! | `d` | a directory | attributes |
//! | `L` | a symbolic link | its target, attributes |
//! | `h` | a hard link | its target |
//! | `C`, `B` | a device | attributes, major and minor number (4 each) |
//! | `P` | a named pipe | attributes |
//! | `F` | a file | attributes, size (8), file capability |
//! | `l`, `n`, `f` | a link with its target, a device, another entry, as older versions wrote them | |

use std::io::{self, Read};
use std::os::fd::AsFd as _;
use std::path::Path;

use tar::EntryType;

use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::names;
use crate::pack::{CAPABILITY, Item, Plan, Role};
use crate::tar_reader::{TarEntry, TarReader, malformed};
use crate::unpack::bounded_time;

use super::WHITEOUT;

/// The entries of an archive, without the contents of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest(Vec<u8>);

/// An entry of an archive.
pub(super) struct Record<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: Kind,
    /// The target of a link; empty for other types.
    pub(super) target: &'a [u8],
    /// The further properties; `None` for directories, for hard links, and for entries written by
    /// older versions of kiln.
    pub(super) detail: Option<Detail<'a>>,
}

/// The type of an entry.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    Directory(Attributes),
    Symlink,
    HardLink,
    Device,
    Other,
}

/// The properties of an entry other than a directory or hard link.
#[derive(Clone, Copy)]
pub(super) struct Detail<'a> {
    pub(super) kind: FileKind,
    pub(super) attributes: Attributes,
    pub(super) size: u64,
    pub(super) capability: &'a [u8],
}

/// The mode, the owner and the time of an entry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) mtime: Timestamp,
}

impl Manifest {
    /// Reads an uncompressed tar up to its end marker.
    ///
    /// # Errors
    /// Fails if the tar is malformed, has more than `most` entries, or has an entry that layers
    /// can't contain.
    pub fn read(archive: &mut dyn Read, most: Option<u64>) -> io::Result<Self> {
        let mut reader = TarReader::new(archive);
        let (mut bytes, mut entries) = (Vec::new(), 0_u64);
        while let Some(entry) = reader.next()? {
            entries += 1;
            if most.is_some_and(|most| entries > most) {
                return Err(malformed("the archive exceeds the limit of entries"));
            }
            put(&entry, &mut bytes)?;
        }
        Ok(Self(bytes))
    }

    /// Returns the manifest for the output of [`Manifest::as_bytes`]. A skeleton rejects other
    /// bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns the manifest in serialized form.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns `true` if every entry has all properties.
    pub fn is_detailed(&self) -> bool {
        self.records().all(|record| {
            record.is_some_and(|record| {
                record.detail.is_some()
                    || matches!(record.kind, Kind::Directory(_) | Kind::HardLink)
            })
        })
    }

    /// Returns the paths of the entries, without deletions.
    pub fn paths(&self) -> impl Iterator<Item = &[u8]> {
        let is_deletion = |path: &[u8]| {
            path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().starts_with(WHITEOUT)
        };
        self.records().flatten().map(|record| record.path).filter(move |path| !is_deletion(path))
    }

    /// Restores the fractions of times in a tree that was unpacked from the archive, if the
    /// manifest has them. Tars don't.
    ///
    /// # Errors
    /// Fails if a time can't be set.
    pub fn refine(&self, tree: &Dir) -> Result<()> {
        for record in self.records().flatten() {
            let Some(detail) = record.detail else { continue };
            let mtime = detail.attributes.mtime;
            if mtime.nanoseconds != 0 {
                set_fraction(tree, &names::rooted(record.path), mtime)?;
            }
        }
        Ok(())
    }

    /// Returns an iterator over the entries. It yields `None` if the bytes are malformed.
    pub(super) fn records(&self) -> impl Iterator<Item = Option<Record<'_>>> {
        let mut rest = Rest(&self.0);
        std::iter::from_fn(move || {
            let is_left = !rest.0.is_empty();
            is_left.then(|| {
                let record = rest.record();
                if record.is_none() {
                    rest.0 = &[];
                }
                record
            })
        })
    }
}

/// Sets the time of the entry at `path` if it has the same time without a fraction.
fn set_fraction(tree: &Dir, path: &Path, mtime: Timestamp) -> Result<()> {
    let Some(found) = tree.metadata(path, false)? else { return Ok(()) };
    let whole = Timestamp { nanoseconds: 0, ..mtime };
    if found.mtime != whole {
        return Ok(());
    }
    let Some((parent, name)) = tree.parent_of(path)? else { return Ok(()) };
    crate::Attributes { mtime: Some(mtime), ..crate::Attributes::default() }
        .apply_to_entry(parent.as_fd(), names::bytes(name), found.kind)
        .map_err(|errno| Error::io("set the time of", path, errno))
}

impl Plan<'_> {
    /// Returns the manifest that reading the archive would yield, but with times in full precision.
    pub fn manifest(&self) -> Manifest {
        let mut bytes = Vec::new();
        for item in self.items() {
            self.put(item, &mut bytes);
        }
        Manifest(bytes)
    }

    fn put(&self, item: &Item, bytes: &mut Vec<u8>) {
        let (entry, metadata) = (&item.entry, &item.entry.metadata);
        let Metadata { mode, owner, mut mtime, .. } = *metadata;
        if let Role::Link(first) = item.role {
            let target = self.items()[first].entry.path.to_vec();
            return put_record(b'h', &entry.path.to_vec(), &target, bytes);
        }
        if metadata.is_dir() {
            mtime.nanoseconds = 0;
        }
        let detail = Detail {
            kind: metadata.kind,
            attributes: Attributes { mode, owner, mtime },
            size: metadata.size,
            capability: entry.xattr(CAPABILITY).unwrap_or_default(),
        };
        put_entry(&entry.path.to_vec(), &entry.target, &detail, bytes);
    }
}

/// Appends an entry with its path and, if it is a link, its target.
fn put_entry(path: &[u8], target: &[u8], detail: &Detail<'_>, bytes: &mut Vec<u8>) {
    let letter = match detail.kind {
        FileKind::Directory => b'd',
        FileKind::Symlink => b'L',
        FileKind::CharDevice { .. } => b'C',
        FileKind::BlockDevice { .. } => b'B',
        FileKind::Fifo => b'P',
        FileKind::File | FileKind::Socket => b'F',
    };
    put_record(letter, path, target, bytes);
    put_attributes(detail.attributes, bytes);
    match detail.kind {
        FileKind::CharDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
            bytes.extend(major.to_le_bytes());
            bytes.extend(minor.to_le_bytes());
        }
        FileKind::File | FileKind::Socket => {
            bytes.extend(detail.size.to_le_bytes());
            put_text(detail.capability, bytes);
        }
        FileKind::Directory | FileKind::Symlink | FileKind::Fifo => {}
    }
}

/// Appends the common beginning of an entry.
fn put_record(letter: u8, path: &[u8], target: &[u8], bytes: &mut Vec<u8>) {
    bytes.push(letter);
    put_text(path, bytes);
    if matches!(letter, b'L' | b'h') {
        put_text(target, bytes);
    }
}

fn put_text(text: &[u8], bytes: &mut Vec<u8>) {
    // Names have at most a few kibibytes.
    bytes.extend((text.len() as u32).to_le_bytes());
    bytes.extend_from_slice(text);
}

fn put_attributes(attributes: Attributes, bytes: &mut Vec<u8>) {
    let Attributes { mode, owner, mtime } = attributes;
    for number in [mode & 0o7777, owner.uid, owner.gid] {
        bytes.extend(number.to_le_bytes());
    }
    let mtime = bounded_time(mtime);
    bytes.extend(mtime.seconds.to_le_bytes());
    bytes.extend(mtime.nanoseconds.to_le_bytes());
}

fn put(entry: &TarEntry, bytes: &mut Vec<u8>) -> io::Result<()> {
    if entry.name.contains(&0) || entry.link.contains(&0) {
        return Err(malformed("name with a NUL byte"));
    }
    let (major, minor) = entry.device;
    let kind = match entry.kind {
        EntryType::Directory => FileKind::Directory,
        EntryType::Symlink => FileKind::Symlink,
        EntryType::Link => {
            put_record(b'h', &entry.name, &entry.link, bytes);
            return Ok(());
        }
        EntryType::Char => FileKind::CharDevice { major, minor },
        EntryType::Block => FileKind::BlockDevice { major, minor },
        EntryType::Fifo => FileKind::Fifo,
        EntryType::Regular | EntryType::Continuous => FileKind::File,
        _ => return Err(malformed("entry of a type that is not supported")),
    };
    let owner = Owner { uid: entry.uid, gid: entry.gid };
    let capability = entry.xattrs.iter().find(|(name, _)| name == CAPABILITY);
    let detail = Detail {
        kind,
        attributes: Attributes { mode: entry.mode, owner, mtime: entry.mtime },
        size: entry.size,
        capability: capability.map(|(_, value)| value.as_slice()).unwrap_or_default(),
    };
    put_entry(&entry.name, &entry.link, &detail, bytes);
    Ok(())
}

/// The unread rest of a manifest.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn record(&mut self) -> Option<Record<'a>> {
        let letter = self.array::<1>()?[0];
        let path = self.text()?;
        let is_link = matches!(letter, b'L' | b'l' | b'h');
        let target = if is_link { self.text()? } else { &[] };
        let kind = match letter {
            b'd' => Kind::Directory(self.attributes()?),
            b'L' | b'l' => Kind::Symlink,
            b'h' => Kind::HardLink,
            b'C' | b'B' | b'n' => Kind::Device,
            b'F' | b'P' | b'f' => Kind::Other,
            _ => return None,
        };
        let detail = if letter.is_ascii_uppercase() {
            Some(self.detail(letter, target.len() as u64)?)
        } else {
            None
        };
        Some(Record { path, kind, target, detail })
    }

    fn detail(&mut self, letter: u8, size: u64) -> Option<Detail<'a>> {
        let attributes = self.attributes()?;
        let mut detail = Detail { kind: FileKind::File, attributes, size: 0, capability: &[] };
        match letter {
            b'C' | b'B' => {
                let (major, minor) = (self.number()?, self.number()?);
                detail.kind = if letter == b'B' {
                    FileKind::BlockDevice { major, minor }
                } else {
                    FileKind::CharDevice { major, minor }
                };
            }
            b'P' => detail.kind = FileKind::Fifo,
            b'L' => {
                // Links have no permissions of their own.
                detail.kind = FileKind::Symlink;
                detail.attributes.mode = 0o777;
                detail.size = size;
            }
            _ => {
                detail.size = u64::from_le_bytes(self.array()?);
                detail.capability = self.text()?;
            }
        }
        Some(detail)
    }

    fn attributes(&mut self) -> Option<Attributes> {
        let mode = self.number()?;
        let owner = Owner { uid: self.number()?, gid: self.number()? };
        let seconds = i64::from_le_bytes(self.array()?);
        let mtime = Timestamp { seconds, nanoseconds: self.number()? };
        Some(Attributes { mode, owner, mtime })
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }

    fn number(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }
}
