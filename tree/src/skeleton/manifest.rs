//! What an archive holds, as bytes.
//!
//! Each entry is its kind (one letter), its path, and what a directory or a link has beyond that. A
//! text has its length (4 bytes) in front; numbers are little-endian.
//!
//! | letter | stands for | and then |
//! | --- | --- | --- |
//! | `d` | a directory | mode, user, group (4 each), time: seconds (8), nanoseconds (4) |
//! | `l` | a symbolic link | its target |
//! | `h` | another name of a file | the other one |
//! | `n` | a device | |
//! | `f` | anything else | |

use std::io::{self, Read};

use tar::EntryType;

use crate::metadata::{FileKind, Owner, Timestamp};
use crate::pack::{Item, Plan, Role};
use crate::tar_reader::{TarEntry, TarReader, malformed};
use crate::unpack::bounded_time;

/// What an archive holds, but for the bytes of files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest(Vec<u8>);

/// An entry.
pub(super) struct Record<'a> {
    pub(super) path: &'a [u8],
    pub(super) kind: Kind,
    /// Of a link, else empty.
    pub(super) target: &'a [u8],
}

/// What an entry is.
pub(super) enum Kind {
    Directory(Attributes),
    Symlink,
    HardLink,
    Device,
    Other,
}

/// What matters of a directory.
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
    /// Fails where it is malformed, has more than `most` entries, or holds what no layer may.
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

    /// Takes bytes for a manifest that [`Manifest::as_bytes`] has given. Others make none that a
    /// skeleton takes.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// Returns it as bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Yields the entries; `None` where the bytes are none.
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

impl Plan<'_> {
    /// Returns what reading the archive would tell of what it holds.
    pub fn manifest(&self) -> Manifest {
        let mut bytes = Vec::new();
        for item in self.items() {
            self.put(item, &mut bytes);
        }
        Manifest(bytes)
    }

    fn put(&self, item: &Item, bytes: &mut Vec<u8>) {
        let (entry, metadata) = (&item.entry, &item.entry.metadata);
        let (letter, target) = match (item.role, metadata.kind) {
            (Role::Link(first), _) => (b'h', self.items()[first].entry.path.as_slice()),
            (_, FileKind::Directory) => (b'd', &[][..]),
            (_, FileKind::Symlink) => (b'l', entry.target.as_slice()),
            (_, FileKind::CharDevice { .. } | FileKind::BlockDevice { .. }) => (b'n', &[][..]),
            _ => (b'f', &[][..]),
        };
        bytes.push(letter);
        put_text(&entry.path, bytes);
        match letter {
            b'd' => {
                let mtime = Timestamp { nanoseconds: 0, ..metadata.mtime };
                put_attributes(
                    Attributes { mode: metadata.mode, owner: metadata.owner, mtime },
                    bytes,
                );
            }
            b'l' | b'h' => put_text(target, bytes),
            _ => {}
        }
    }
}

fn put_text(text: &[u8], bytes: &mut Vec<u8>) {
    // Names are no longer than some kibibytes.
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
    let letter = match entry.kind {
        EntryType::Directory => b'd',
        EntryType::Symlink => b'l',
        EntryType::Link => b'h',
        EntryType::Char | EntryType::Block => b'n',
        EntryType::Regular | EntryType::Continuous | EntryType::Fifo => b'f',
        _ => return Err(malformed("entry of a type that is not supported")),
    };
    bytes.push(letter);
    put_text(&entry.name, bytes);
    match letter {
        b'd' => {
            let owner = Owner { uid: entry.uid, gid: entry.gid };
            put_attributes(Attributes { mode: entry.mode, owner, mtime: entry.mtime }, bytes);
        }
        b'l' | b'h' => put_text(&entry.link, bytes),
        _ => {}
    }
    Ok(())
}

/// What of the bytes is still to be read.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn record(&mut self) -> Option<Record<'a>> {
        let letter = self.array::<1>()?[0];
        let path = self.text()?;
        let mut record = Record { path, kind: Kind::Other, target: &[] };
        record.kind = match letter {
            b'd' => Kind::Directory(self.attributes()?),
            b'l' => Kind::Symlink,
            b'h' => Kind::HardLink,
            b'n' => Kind::Device,
            b'f' => Kind::Other,
            _ => return None,
        };
        if matches!(record.kind, Kind::Symlink | Kind::HardLink) {
            record.target = self.text()?;
        }
        Some(record)
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
