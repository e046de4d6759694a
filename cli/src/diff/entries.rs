//! The entries of layers and their comparison.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln_oci::{Digest, DigestHasher, HashingReader};
use kiln_store::{LayerBlob, Store};
use kiln_tree::tar_reader::{Dialect, EntryType};
use kiln_tree::{ArchiveLimits, TarEntry, TarReader, Timestamp};
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
    content: Option<Digest>,
}

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

/// A reader of layers that reads each layer once.
pub(super) struct LayerReader<'a> {
    store: &'a Store,
    limits: ArchiveLimits,
    known: HashMap<Digest, Arc<LayerEntries>>,
    /// The number of entries of all layers so far.
    count: u64,
}

impl<'a> LayerReader<'a> {
    pub(super) fn new(store: &'a Store, limits: ArchiveLimits) -> Self {
        Self { store, limits, known: HashMap::new(), count: 0 }
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
            if self.limits.max_entries.is_some_and(|most| self.count > most) {
                bail!("the layers exceed the limit of entries");
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
fn digest(entry: &TarEntry, reader: &mut TarReader<'_>, buffer: &mut [u8]) -> io::Result<Digest> {
    let mut hasher = DigestHasher::new();
    let Some(segments) = &entry.segments else {
        loop {
            match reader.read(buffer)? {
                0 => return Ok(hasher.finish()),
                length => hasher.update(&buffer[..length]),
            }
        }
    };
    let mut at = 0;
    for segment in segments {
        zeros(&mut hasher, segment.offset.saturating_sub(at));
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
    zeros(&mut hasher, entry.size.saturating_sub(at));
    Ok(hasher.finish())
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
        return crate::progress::clean_text(&text);
    }
    name.escape_ascii().to_string()
}

/// Returns a copy of a hard link's target for the path of the link.
pub(super) fn follow(entry: &Entry, target: &Entry) -> Entry {
    Entry { mtime: target.mtime, xattrs: entry.xattrs.clone(), ..target.clone() }
}
