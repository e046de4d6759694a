//! Records of the trees that copies create.
//!
//! A record lists all entries of a tree, and for each the identity of the file that it was copied
//! from. A later copy of the same sources compares itself with the record and writes only the
//! differences ([`super::difference`]). It reads neither the tree nor the sources for that.
//!
//! A source is the same if its device, inode, change time and size are the same. As in the index of
//! a context, this holds only if the source had been left alone for some time when it was copied.
//! The record has no identity of other files, so they always count as changed.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::digest::is_settled;
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};
use crate::names;
use crate::walk::Entry;

/// The beginning of a record. It changes with the format.
const FORM: &[u8] = b"kiln copy record 1\n";
/// The compression level. A record has some dozens of bytes for each entry and is written once.
const LEVEL: i32 = 1;
/// The length in bytes of the hash at the end of a record.
const HASH: usize = 32;
/// The number that stands for the absence of a first name.
const NONE: u32 = u32::MAX;

/// The identity of a source file when it was copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    ctime: Timestamp,
}

impl Identity {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self { device: metadata.device, inode: metadata.inode, ctime: metadata.ctime }
    }
}

/// The identities of the source files behind the entries of a tree under construction.
#[derive(Debug)]
pub struct CopiedFiles {
    /// The time when the copies began, in nanoseconds since 1970.
    began: i128,
    /// The identities, by hashes of the paths in the tree.
    files: HashMap<u64, Identity>,
    hasher: RandomState,
    is_complete: bool,
}

impl Default for CopiedFiles {
    fn default() -> Self {
        Self::new()
    }
}

impl CopiedFiles {
    /// Creates an empty collection. Call this before the sources are listed.
    pub fn new() -> Self {
        let began = SystemTime::now().duration_since(UNIX_EPOCH);
        let began = began.map_or(0, |since| since.as_nanos() as i128);
        Self { began, files: HashMap::new(), hasher: RandomState::new(), is_complete: true }
    }

    /// Adds the source of the entry at `path`, which replaces the source of an earlier copy.
    pub(super) fn add(&mut self, path: &Path, source: &Metadata) {
        let path = self.hasher.hash_one(relative(names::bytes(path)));
        if is_settled(source, self.began) {
            self.files.insert(path, Identity::of(source));
        } else {
            self.files.remove(&path);
        }
    }

    /// Notes that the tree has entries with unknown sources. It gets no record.
    pub(super) fn abandon(&mut self) {
        self.is_complete = false;
    }

    /// Returns the record of a finished tree with these entries, or `None` if the tree can't be
    /// compared with others: it has marks of deletions, or entries with unknown sources.
    pub(crate) fn record(&self, entries: &[Entry]) -> io::Result<Option<Vec<u8>>> {
        let has_mark = |entry: &Entry| {
            !matches!(
                crate::pack::overlay::deletion(entry),
                Ok(crate::pack::overlay::Deletion::None)
            )
        };
        if !self.is_complete || entries.iter().any(has_mark) || entries.len() >= NONE as usize {
            return Ok(None);
        }
        let mut packed = zstd::Encoder::new(Vec::new(), LEVEL)?;
        let mut hasher = blake3::Hasher::new();
        let mut firsts: HashMap<(u64, u64), u32> = HashMap::new();
        let (mut line, mut last) = (Vec::new(), Vec::new());
        for (number, entry) in entries.iter().enumerate() {
            let metadata = &entry.metadata;
            let mut first = NONE;
            if metadata.links > 1 && !metadata.is_dir() {
                let number = number as u32;
                first = *firsts.entry((metadata.device, metadata.inode)).or_insert(number);
            }
            let path = entry.path.to_vec();
            line.clear();
            let source = self.files.get(&self.hasher.hash_one(path.as_slice())).copied();
            write_entry(&mut line, &last, &path, metadata, first, source);
            hasher.update(&line);
            packed.write_all(&line)?;
            last = path;
        }
        packed.write_all(hasher.finalize().as_bytes())?;
        Ok(Some([FORM, &packed.finish()?].concat()))
    }
}

/// Returns a path without its leading slash.
fn relative(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"/").unwrap_or(path)
}

/// An entry of a record.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) path: Box<[u8]>,
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) mtime: Timestamp,
    pub(super) size: u64,
    /// The number of the entry with the first name of the same file, if the file may have several
    /// names.
    pub(super) first: Option<u32>,
    pub(super) source: Option<Identity>,
}

/// The entries of a tree, in the order of a walk, with the identities of their sources.
#[derive(Debug)]
pub struct CopyRecord {
    pub(super) entries: Vec<Recorded>,
}

impl CopyRecord {
    /// Parses a stored record. Returns `None` if it is damaged, or has another format.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let plain = zstd::decode_all(bytes.strip_prefix(FORM)?).ok()?;
        let (mut rest, hash) = plain.split_at_checked(plain.len().checked_sub(HASH)?)?;
        if blake3::hash(rest).as_bytes() != hash {
            return None;
        }
        let (mut entries, mut path) = (Vec::new(), Vec::new());
        while !rest.is_empty() {
            entries.push(read_entry(&mut rest, &mut path).ok()?);
        }
        Some(Self { entries })
    }

    /// Returns the number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns `true` if the record has no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// Appends an entry. Its path is written without what it shares with the path before.
fn write_entry(
    line: &mut Vec<u8>,
    last: &[u8],
    path: &[u8],
    metadata: &Metadata,
    first: u32,
    source: Option<Identity>,
) {
    let shared = last.iter().zip(path).take_while(|(one, other)| one == other).count();
    for length in [shared, path.len() - shared] {
        line.extend((length as u32).to_le_bytes());
    }
    line.extend(&path[shared..]);
    let (kind, major, minor) = metadata.kind.letter();
    line.push(kind);
    let owner = metadata.owner;
    for number in [metadata.mode, owner.uid, owner.gid, major, minor, first] {
        line.extend(number.to_le_bytes());
    }
    write_time(line, metadata.mtime);
    // The size of a directory depends on the file system.
    let size = if metadata.is_dir() { 0 } else { metadata.size };
    line.extend(size.to_le_bytes());
    line.push(u8::from(source.is_some()));
    if let Some(source) = source {
        line.extend(source.device.to_le_bytes());
        line.extend(source.inode.to_le_bytes());
        write_time(line, source.ctime);
    }
}

fn write_time(line: &mut Vec<u8>, time: Timestamp) {
    line.extend(time.seconds.to_le_bytes());
    line.extend(time.nanoseconds.to_le_bytes());
}

fn read_entry(rest: &mut &[u8], path: &mut Vec<u8>) -> io::Result<Recorded> {
    let shared = read_u32(rest)? as usize;
    let length = read_u32(rest)? as usize;
    path.truncate(shared);
    let (name, after) = rest.split_at_checked(length).ok_or(io::ErrorKind::UnexpectedEof)?;
    path.extend(name);
    *rest = after;
    let [letter] = read(rest)?;
    let (mode, uid, gid) = (read_u32(rest)?, read_u32(rest)?, read_u32(rest)?);
    let kind = FileKind::of_letter(letter, read_u32(rest)?, read_u32(rest)?);
    let kind = kind.ok_or(io::ErrorKind::InvalidData)?;
    let first = Some(read_u32(rest)?).filter(|first| *first != NONE);
    let mtime = read_time(rest)?;
    let size = read_u64(rest)?;
    let source = if read(rest)? == [0] {
        None
    } else {
        let (device, inode) = (read_u64(rest)?, read_u64(rest)?);
        Some(Identity { device, inode, ctime: read_time(rest)? })
    };
    let (path, owner) = (path.as_slice().into(), Owner { uid, gid });
    Ok(Recorded { path, kind, mode, owner, mtime, size, first, source })
}

fn read<const LENGTH: usize>(rest: &mut &[u8]) -> io::Result<[u8; LENGTH]> {
    let mut bytes = [0; LENGTH];
    rest.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_u32(rest: &mut &[u8]) -> io::Result<u32> {
    read(rest).map(u32::from_le_bytes)
}

fn read_u64(rest: &mut &[u8]) -> io::Result<u64> {
    read(rest).map(u64::from_le_bytes)
}

fn read_time(rest: &mut &[u8]) -> io::Result<Timestamp> {
    let seconds = i64::from_le_bytes(read(rest)?);
    Ok(Timestamp { seconds, nanoseconds: read_u32(rest)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, inode: u64) -> Entry {
        let ctime = Timestamp { seconds: 1000, nanoseconds: 5 };
        let kind = if path.ends_with('d') { FileKind::Directory } else { FileKind::File };
        let metadata = Metadata { ctime, inode, links: 2, size: 7, ..Metadata::nothing(kind) };
        let path = path.as_bytes().to_vec().into();
        Entry { path, metadata, target: Vec::new(), xattrs: Vec::new() }
    }

    #[test]
    fn records_are_read_as_they_were_written() {
        let mut copied = CopiedFiles::new();
        let entries = [entry("", 1), entry("d", 2), entry("d/a", 3), entry("d/b", 3)];
        copied.add(Path::new("/d/a"), &entries[2].metadata);
        let young = Timestamp { seconds: i64::MAX / 2, nanoseconds: 0 };
        copied.add(Path::new("/d/b"), &Metadata { ctime: young, ..entries[3].metadata.clone() });
        let bytes = copied.record(&entries).unwrap().unwrap();
        let record = CopyRecord::from_bytes(&bytes).unwrap();
        let paths: Vec<&[u8]> = record.entries.iter().map(|entry| &*entry.path).collect();
        assert_eq!(paths, [&b""[..], b"d", b"d/a", b"d/b"]);
        let firsts: Vec<_> = record.entries.iter().map(|entry| entry.first).collect();
        assert_eq!(firsts, [Some(0), None, Some(2), Some(2)]);
        assert_eq!(record.entries[2].source, Some(Identity::of(&entries[2].metadata)));
        assert_eq!(record.entries[3].source, None, "the file may still change unnoticed");
        assert_eq!((record.entries[1].size, record.entries[2].size), (0, 7));
    }

    #[test]
    fn damaged_records_are_not_believed() {
        let bytes = CopiedFiles::new().record(&[entry("d", 1)]).unwrap().unwrap();
        assert!(CopyRecord::from_bytes(&bytes).is_some());
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            if let Some(record) = CopyRecord::from_bytes(&damaged) {
                // A frame's header has bits without a meaning.
                assert_eq!(&*record.entries[0].path, b"d");
            }
            assert!(CopyRecord::from_bytes(&bytes[..place]).is_none());
        }
    }

    #[test]
    fn what_can_not_be_compared_has_no_record() {
        let mark = FileKind::CharDevice { major: 0, minor: 0 };
        let deletion = Entry { metadata: Metadata::nothing(mark), ..entry("x", 1) };
        assert_eq!(CopiedFiles::new().record(&[deletion]).unwrap(), None);
        let mut copied = CopiedFiles::new();
        copied.abandon();
        assert_eq!(copied.record(&[entry("x", 1)]).unwrap(), None);
    }
}
