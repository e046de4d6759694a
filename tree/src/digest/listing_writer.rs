//! The writer of [`Listing`](super::listing::Listing)s.

use super::contents::Contents;
use super::listing::{FORM, HASH};
use crate::metadata::FileKind;
use crate::walk::Seen;

/// A listing in its compact format under construction. Entries are added in any order.
///
/// There may be a million entries, so they are encoded at once, with whole paths. The end sorts them
/// and replaces the paths' shared prefixes.
#[derive(Debug, Default)]
pub(super) struct Writer {
    bytes: Vec<u8>,
    rows: Vec<Row>,
}

/// The place of an entry in the bytes.
#[derive(Debug)]
struct Row {
    /// The offset of the path, which the rest of the entry follows.
    start: u64,
    selection: u32,
    path: u32,
    rest: u32,
}

impl Writer {
    /// Adds an entry of a selection. `matched` is the path that the selection's wildcards match, or
    /// empty, and `path` the path below the selected path. `contents` is the size and hash of a
    /// file.
    pub(super) fn add(&mut self, place: NewPlace<'_>, seen: &Seen<'_>, contents: Option<Contents>) {
        let bytes = &mut self.bytes;
        let start = bytes.len();
        let NewPlace { selection, matched, path } = place;
        if !matched.is_empty() {
            bytes.push(b'/');
            bytes.extend_from_slice(matched);
            if !path.is_empty() {
                bytes.push(b'/');
            }
        }
        bytes.extend_from_slice(path);
        let end = bytes.len();
        let metadata = &seen.metadata;
        bytes.push(letter(metadata.kind));
        for number in [metadata.mode, metadata.owner.uid, metadata.owner.gid] {
            put(bytes, number.into());
        }
        match metadata.kind {
            FileKind::File => {
                let Contents { size, hash } = contents.unwrap_or_default();
                put(bytes, size);
                bytes.extend_from_slice(&hash[..HASH]);
            }
            FileKind::Symlink => put_bytes(bytes, seen.target),
            FileKind::CharDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
                put(bytes, major.into());
                put(bytes, minor.into());
            }
            FileKind::Directory | FileKind::Fifo | FileKind::Socket => {}
        }
        put_bytes(bytes, seen.xattr(b"security.capability").unwrap_or_default());
        let (path, rest) = ((end - start) as u32, (bytes.len() - end) as u32);
        self.rows.push(Row { start: start as u64, selection, path, rest });
    }

    /// Returns the listing.
    pub(super) fn finish(self) -> Vec<u8> {
        let Self { bytes, mut rows } = self;
        let path = |row: &Row| &bytes[row.start as usize..][..row.path as usize];
        // The entries of a selection are in the order of a walk, which compares paths by component.
        rows.sort_by(|a, b| a.selection.cmp(&b.selection).then_with(|| path(a).cmp(path(b))));
        let mut listing = Vec::with_capacity(16 + rows.len() * 32);
        listing.push(FORM);
        put(&mut listing, rows.len() as u64);
        let mut last: &[u8] = b"";
        for row in &rows {
            let path = path(row);
            let shared = last.iter().zip(path).take_while(|(a, b)| a == b).count();
            put(&mut listing, row.selection.into());
            put(&mut listing, shared as u64);
            put_bytes(&mut listing, &path[shared..]);
            let rest = row.start as usize + path.len();
            listing.extend_from_slice(&bytes[rest..rest + row.rest as usize]);
            last = path;
        }
        listing
    }
}

/// The place of an entry that is added to a listing.
#[derive(Clone, Copy)]
pub(super) struct NewPlace<'a> {
    pub(super) selection: u32,
    pub(super) matched: &'a [u8],
    pub(super) path: &'a [u8],
}

fn letter(kind: FileKind) -> u8 {
    match kind {
        FileKind::File => b'f',
        FileKind::Directory => b'd',
        FileKind::Symlink => b'l',
        FileKind::Fifo => b'p',
        FileKind::Socket => b's',
        FileKind::CharDevice { .. } => b'c',
        FileKind::BlockDevice { .. } => b'b',
    }
}

fn put(bytes: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_bytes(bytes: &mut Vec<u8>, value: &[u8]) {
    put(bytes, value.len() as u64);
    bytes.extend_from_slice(value);
}
