//! The entries of layers and their comparison.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::{fmt, io};

use anyhow::{Context, Result, bail};
use kiln_oci::{Digest, DigestHasher, HashingReader};
use kiln_store::{LayerBlob, Store};
use kiln_tree::{ArchiveLimits, TarEntry, TarReader, Timestamp};
use kiln_tree::{Dialect, EntryType};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::report::{EntryChange, EntryStatus};

/// An entry of a layer. Its content is kept as a digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) kind: EntryType,
    pub(super) link: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    size: u64,
    mtime: Timestamp,
    device: (u32, u32),
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    content: Option<Content>,
}

/// The digest of a file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Content {
    /// The digest of its bytes.
    Whole(Digest),
    /// The digest of the places of its holes and of the bytes between them. It stands for more zeros
    /// than kiln reads.
    Sparse(Digest),
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole(digest) => digest.fmt(f),
            Self::Sparse(digest) => write!(f, "{digest} (holes and what is between them)"),
        }
    }
}

/// The maximal size in bytes of the holes that are digested as zeros. More would take hours.
const MOST_ZEROS: u64 = 1 << 30;

/// The properties of an entry's encoding, which don't affect the extracted file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Form {
    pub(super) dialect: Dialect,
    pub(super) owner_names: (Vec<u8>, Vec<u8>),
}

/// A layer's entries in order, each with its name without leading and trailing slashes.
#[derive(Debug, Default)]
pub(super) struct LayerEntries {
    pub(super) entries: Vec<(Vec<u8>, Entry, Form)>,
}

/// The memory in bytes for each name that the limit of entries allows, on average. Without it, names
/// of maximal length would evade the limit.
const NAME: u64 = 128;
/// The memory in bytes that names may always use.
const LEAST_NAMES: u64 = 4 << 20;

/// A reader of layers that reads each layer once.
pub(super) struct LayerReader<'a> {
    store: &'a Store,
    limits: ArchiveLimits,
    known: HashMap<Digest, Arc<LayerEntries>>,
    /// The number of entries of all layers so far.
    count: u64,
    /// Bytes of their names.
    names: u64,
}

impl<'a> LayerReader<'a> {
    pub(super) fn new(store: &'a Store, limits: ArchiveLimits) -> Self {
        Self { store, limits, known: HashMap::new(), count: 0, names: 0 }
    }

    /// Returns the entries of a layer. Fails if the layer doesn't match its diff ID.
    pub(super) fn read(&mut self, diff_id: &Digest, blob: &LayerBlob) -> Result<Arc<LayerEntries>> {
        if let Some(known) = self.known.get(diff_id) {
            return Ok(Arc::clone(known));
        }
        let read = self.read_blob(diff_id, blob);
        let entries = Arc::new(read.with_context(|| format!("read layer {}", blob.digest))?);
        self.known.insert(*diff_id, Arc::clone(&entries));
        Ok(entries)
    }

    fn read_blob(&mut self, diff_id: &Digest, blob: &LayerBlob) -> Result<LayerEntries> {
        let file = self.store.content().open(&blob.digest)?;
        let (plain, _) = self.limits.decompress(file)?;
        let mut plain = HashingReader::new(plain);
        let mut reader = TarReader::new(&mut plain);
        let mut layer = LayerEntries::default();
        let mut buffer = vec![0; 128 << 10];
        while let Some(entry) = reader.next_entry()? {
            self.count += 1;
            self.names += (entry.name.len() + entry.link.len()) as u64;
            let exceeds = |most: u64| {
                self.count > most || self.names > most.saturating_mul(NAME).max(LEAST_NAMES)
            };
            if self.limits.max_entries.is_some_and(exceeds) {
                bail!("the layers exceed the limit of entries, or names as long as theirs are");
            }
            layer.entries.push(summarise(entry, &mut reader, &mut buffer)?);
        }
        io::copy(&mut plain, &mut io::sink())?;
        let (actual, _) = plain.finish();
        if actual != *diff_id {
            bail!("its config calls it {diff_id}, but it is {actual}");
        }
        Ok(layer)
    }
}

fn summarise(
    entry: TarEntry,
    reader: &mut TarReader<'_>,
    buffer: &mut [u8],
) -> io::Result<(Vec<u8>, Entry, Form)> {
    let is_file = matches!(entry.kind, EntryType::Regular | EntryType::Continuous);
    let content = if is_file { Some(digest(&entry, reader, buffer)?) } else { None };
    let is_device = matches!(entry.kind, EntryType::Char | EntryType::Block);
    let has_link = matches!(entry.kind, EntryType::Symlink | EntryType::Link);
    let summary = Entry {
        kind: if is_file { EntryType::Regular } else { entry.kind },
        link: match entry.kind {
            EntryType::Link => normal(&entry.link),
            _ if has_link => entry.link,
            _ => Vec::new(),
        },
        mode: entry.mode,
        owner: (entry.uid, entry.gid),
        size: if is_file { entry.size } else { 0 },
        mtime: entry.mtime,
        device: if is_device { entry.device } else { (0, 0) },
        xattrs: entry.xattrs.into_iter().collect(),
        content,
    };
    let form = Form { dialect: entry.dialect, owner_names: entry.owner_names };
    Ok((normal(&entry.name), summary, form))
}

/// Returns the digest of a file's content. Holes count as zeros.
fn digest(entry: &TarEntry, reader: &mut TarReader<'_>, buffer: &mut [u8]) -> io::Result<Content> {
    let mut hasher = DigestHasher::new();
    let Some(segments) = &entry.segments else {
        loop {
            match reader.read(buffer)? {
                0 => return Ok(Content::Whole(hasher.finish())),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    let stored: u64 = segments.iter().map(|segment| segment.length).sum();
    let is_whole = entry.size - stored.min(entry.size) <= MOST_ZEROS;
    let hole = |hasher: &mut DigestHasher, length: u64| match (is_whole, length) {
        (true, length) => zeros(hasher, length),
        (false, 0) => {}
        (false, length) => hasher.update(format!("hole of {length} bytes").as_bytes()),
    };
    let mut at = 0;
    for segment in segments {
        hole(&mut hasher, segment.offset.saturating_sub(at));
        let mut left = segment.length;
        while left > 0 {
            let wanted = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            match reader.read(&mut buffer[..wanted])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => {
                    hasher.update(&buffer[..length]);
                    left -= length as u64;
                }
            }
        }
        at = segment.offset + segment.length;
    }
    hole(&mut hasher, entry.size.saturating_sub(at));
    let digest = hasher.finish();
    Ok(if is_whole { Content::Whole(digest) } else { Content::Sparse(digest) })
}

fn zeros(hasher: &mut DigestHasher, mut count: u64) {
    const ZEROS: [u8; 4096] = [0; 4096];
    while count > 0 {
        let part = count.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..part as usize]);
        count -= part;
    }
}

/// Returns a name without `.`, double slashes, and leading or trailing slashes; empty for the root.
pub(super) fn normal(name: &[u8]) -> Vec<u8> {
    let parts = name.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."));
    parts.collect::<Vec<_>>().join(&b'/')
}

/// Returns the differences between two sets of entries, sorted by name.
pub(super) fn compare<'a>(
    a: &BTreeMap<&'a [u8], &'a Entry>,
    b: &BTreeMap<&'a [u8], &'a Entry>,
) -> Vec<EntryChange> {
    let mut names: Vec<&[u8]> = a.keys().chain(b.keys()).copied().collect();
    names.sort_unstable();
    names.dedup();
    let mut changes = Vec::new();
    for name in names {
        let (status, what) = match (a.get(name), b.get(name)) {
            (Some(a), Some(b)) if a == b => continue,
            (Some(a), Some(b)) => (EntryStatus::Changed, differences(a, b)),
            (Some(_), None) => (EntryStatus::Removed, BTreeMap::new()),
            (None, _) => (EntryStatus::Added, BTreeMap::new()),
        };
        changes.push(EntryChange { path: shown(name), status, what });
    }
    changes
}

/// Returns the properties in which two entries of the same name differ.
fn differences(a: &Entry, b: &Entry) -> BTreeMap<String, [String; 2]> {
    let mut what = BTreeMap::new();
    let mut add = |name: &str, a: String, b: String| {
        if a != b {
            what.insert(name.to_owned(), [a, b]);
        }
    };
    add("type", kind(a.kind), kind(b.kind));
    add("mode", format!("{:04o}", a.mode), format!("{:04o}", b.mode));
    let owner = |entry: &Entry| format!("{}:{}", entry.owner.0, entry.owner.1);
    add("owner", owner(a), owner(b));
    add("mtime", time(a.mtime), time(b.mtime));
    let link = |entry: &Entry| shown(&entry.link);
    add("link", link(a), link(b));
    let device = |entry: &Entry| format!("{}:{}", entry.device.0, entry.device.1);
    add("device", device(a), device(b));
    if a.content.is_some() && b.content.is_some() {
        add("size", a.size.to_string(), b.size.to_string());
        let content = |entry: &Entry| entry.content.map_or(String::new(), |c| c.to_string());
        add("content", content(a), content(b));
    }
    for name in a.xattrs.keys().chain(b.xattrs.keys()) {
        let value = |entry: &Entry| {
            let value = entry.xattrs.get(name).map(|value| hex(value));
            value.unwrap_or_else(|| "none".to_owned())
        };
        add(&format!("xattr {}", shown(name)), value(a), value(b));
    }
    what
}

fn kind(kind: EntryType) -> String {
    let name = match kind {
        EntryType::Regular => "file",
        EntryType::Link => "hard link",
        EntryType::Symlink => "symbolic link",
        EntryType::Char => "character device",
        EntryType::Block => "block device",
        EntryType::Directory => "directory",
        EntryType::Fifo => "fifo",
        _ => "other",
    };
    name.to_owned()
}

fn time(time: Timestamp) -> String {
    let whole = i128::from(time.seconds) * 1_000_000_000 + i128::from(time.nanoseconds);
    let date = OffsetDateTime::from_unix_timestamp_nanos(whole).ok();
    let text = date.and_then(|date| date.format(&Rfc3339).ok());
    text.unwrap_or_else(|| time.seconds.to_string())
}

/// Returns the first 64 bytes of a value in hexadecimal digits.
fn hex(value: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::from("0x");
    for byte in value.iter().take(64) {
        // Writing to a string can't fail.
        let _ = write!(text, "{byte:02x}");
    }
    if value.len() > 64 {
        text.push('…');
    }
    text
}

/// Returns a name for display. Escapes bytes that aren't printable text.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    if text.chars().all(|c| !c.is_control() && c != char::REPLACEMENT_CHARACTER) {
        return text.into_owned();
    }
    name.escape_ascii().to_string()
}

/// Returns a copy of a hard link's target for the path of the link.
pub(super) fn follow(entry: &Entry, target: &Entry) -> Entry {
    Entry { mtime: target.mtime, xattrs: entry.xattrs.clone(), ..target.clone() }
}

#[cfg(test)]
impl LayerEntries {
    /// Reads the entries of a tar.
    pub(super) fn of_tar(mut tar: &[u8]) -> Self {
        let (mut reader, mut layer) = (TarReader::new(&mut tar), Self::default());
        while let Some(entry) = reader.next_entry().unwrap() {
            layer.entries.push(summarise(entry, &mut reader, &mut [0; 1000]).unwrap());
        }
        layer
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;

    #[test]
    fn holes_of_200_gib_are_not_read() {
        let temp = tempfile::tempdir().unwrap();
        let content = |size: u64, data: u64, sparse: bool| {
            let file = std::fs::File::create(temp.path().join("f")).unwrap();
            file.set_len(size).unwrap();
            file.write_all_at(b"data", data).unwrap();
            let mut tar = std::process::Command::new("tar");
            tar.arg("-C").arg(temp.path()).args(sparse.then_some("-S"));
            let tar = tar.args(["-c", "f"]).output().unwrap().stdout;
            LayerEntries::of_tar(&tar).entries[0].1.content.unwrap()
        };
        let small = content(1 << 20, 100_000, true);
        assert_eq!(small, content(1 << 20, 100_000, false), "holes are zeros");
        assert!(matches!(small, Content::Whole(_)));
        let large = content(200 << 30, 100 << 30, true);
        assert_eq!(large, content(200 << 30, 100 << 30, true));
        assert_ne!(large, content(200 << 30, 101 << 30, true));
        assert_ne!(large, content(201 << 30, 100 << 30, true));
        assert!(large.to_string().ends_with("(holes and what is between them)"));
    }
}
