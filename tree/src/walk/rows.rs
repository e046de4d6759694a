//! The entries of a directory in a compact form.
//!
//! A context may have a million entries. An [`Entry`](super::Entry) takes about 250 bytes with its
//! name, and most walks only look at each entry once. So a walk keeps its entries in rows of 80
//! bytes, with all names of a directory in one buffer. What few entries have (targets, extended
//! attributes, numbers of devices) is apart.

use crate::attributes::Xattr;
use crate::metadata::{FileKind, Metadata, Owner, Timestamp};

/// The entries of a directory, or a range of them, in order.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    list: Vec<Row>,
    names: Vec<u8>,
    rare: Vec<Rare>,
    /// The device of the first entry, which is that of nearly all others.
    device: u64,
    files: u32,
    hidden: u32,
}

/// The data that every entry has.
#[derive(Debug)]
struct Row {
    size: u64,
    inode: u64,
    blocks: u64,
    modified: i64,
    changed: i64,
    modified_nanoseconds: u32,
    changed_nanoseconds: u32,
    uid: u32,
    gid: u32,
    links: u32,
    /// The end of the name in the buffer.
    name: u32,
    /// The index of the rare data plus one; zero without rare data.
    rare: u32,
    mode: u16,
    kind: u8,
    is_hidden: bool,
}

/// The data that few entries have.
#[derive(Debug)]
struct Rare {
    kind: FileKind,
    device: u64,
    links: u64,
    target: Box<[u8]>,
    xattrs: Vec<Xattr>,
}

/// An entry of a walk, borrowed from its row.
#[derive(Clone, Debug)]
pub(crate) struct Seen<'a> {
    /// The name; empty for the root.
    pub(crate) name: &'a [u8],
    /// The metadata, with the owner according to the view.
    pub(crate) metadata: Metadata,
    /// The target of a symbolic link; empty for other types.
    pub(crate) target: &'a [u8],
    /// The extended attributes, sorted by name.
    pub(crate) xattrs: &'a [Xattr],
    /// `true` if the entry is excluded, and shown only if an entry below it is.
    pub(crate) is_hidden: bool,
}

impl Seen<'_> {
    /// Returns the value of the extended attribute `name`, if the entry has it.
    pub(crate) fn xattr(&self, name: &[u8]) -> Option<&[u8]> {
        let found = self.xattrs.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }
}

impl Rows {
    /// Returns an empty list with room for `count` entries.
    pub(super) fn with_capacity(count: usize) -> Self {
        Self { list: Vec::with_capacity(count), ..Self::default() }
    }

    /// Adds an entry.
    pub(super) fn push(&mut self, seen: &Seen<'_>) {
        let Metadata { kind, mode, owner, size, mtime, ctime, device, inode, links, blocks } =
            seen.metadata;
        if self.list.is_empty() {
            self.device = device;
        }
        self.names.extend_from_slice(seen.name);
        let number = number(kind);
        let is_rare = number == RARE
            || device != self.device
            || !seen.target.is_empty()
            || !seen.xattrs.is_empty()
            || u32::try_from(links).is_err();
        if is_rare {
            let (target, xattrs) = (seen.target.into(), seen.xattrs.to_vec());
            self.rare.push(Rare { kind, device, links, target, xattrs });
        }
        self.files += u32::from(kind.is_file());
        self.hidden += u32::from(seen.is_hidden);
        self.list.push(Row {
            size,
            inode,
            blocks,
            modified: mtime.seconds,
            changed: ctime.seconds,
            modified_nanoseconds: mtime.nanoseconds,
            changed_nanoseconds: ctime.nanoseconds,
            uid: owner.uid,
            gid: owner.gid,
            links: links as u32,
            name: self.names.len() as u32,
            rare: if is_rare { self.rare.len() as u32 } else { 0 },
            mode: mode as u16,
            kind: number,
            is_hidden: seen.is_hidden,
        });
    }

    /// Frees the memory that no entry uses.
    pub(super) fn shrink(&mut self) {
        self.list.shrink_to_fit();
        self.names.shrink_to_fit();
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the number of regular files.
    pub(super) fn files(&self) -> usize {
        self.files as usize
    }

    /// Returns the number of excluded entries.
    pub(super) fn hidden(&self) -> usize {
        self.hidden as usize
    }

    /// Returns `true` if an entry is shown whether or not an entry below it is.
    pub(super) fn has_shown(&self) -> bool {
        self.list.len() > self.hidden as usize
    }

    /// Returns `true` if an entry is a directory. `index` is less than the length.
    pub(super) fn is_directory(&self, index: usize) -> bool {
        self.list[index].kind == number(FileKind::Directory)
    }

    /// Returns `true` if an entry is a regular file. `index` is less than the length.
    pub(crate) fn is_file(&self, index: usize) -> bool {
        self.list[index].kind == number(FileKind::File)
    }

    /// Returns `true` if an entry is excluded. `index` is less than the length.
    pub(super) fn is_hidden(&self, index: usize) -> bool {
        self.list[index].is_hidden
    }

    /// Returns the inode number of an entry. `index` is less than the length.
    pub(crate) fn inode(&self, index: usize) -> u64 {
        self.list[index].inode
    }

    /// Returns the name of an entry. `index` is less than the length.
    pub(crate) fn name(&self, index: usize) -> &[u8] {
        let start = index.checked_sub(1).map_or(0, |before| self.list[before].name);
        &self.names[start as usize..self.list[index].name as usize]
    }

    /// Returns an entry. `index` is less than the length.
    pub(crate) fn get(&self, index: usize) -> Seen<'_> {
        let row = &self.list[index];
        let rare = row.rare.checked_sub(1).map(|rare| &self.rare[rare as usize]);
        let metadata = Metadata {
            kind: rare.map_or_else(|| kind(row.kind), |rare| rare.kind),
            mode: row.mode.into(),
            owner: Owner { uid: row.uid, gid: row.gid },
            size: row.size,
            mtime: Timestamp { seconds: row.modified, nanoseconds: row.modified_nanoseconds },
            ctime: Timestamp { seconds: row.changed, nanoseconds: row.changed_nanoseconds },
            device: rare.map_or(self.device, |rare| rare.device),
            inode: row.inode,
            links: rare.map_or(row.links.into(), |rare| rare.links),
            blocks: row.blocks,
        };
        Seen {
            name: self.name(index),
            metadata,
            target: rare.map_or(&[], |rare| &rare.target),
            xattrs: rare.map_or(&[], |rare| &rare.xattrs),
            is_hidden: row.is_hidden,
        }
    }
}

/// The number of types that the rare data hold.
const RARE: u8 = u8::MAX;

/// Returns the number of a type, or [`RARE`].
fn number(kind: FileKind) -> u8 {
    match kind {
        FileKind::File => 0,
        FileKind::Directory => 1,
        FileKind::Symlink => 2,
        FileKind::Fifo => 3,
        FileKind::Socket => 4,
        FileKind::CharDevice { .. } | FileKind::BlockDevice { .. } => RARE,
    }
}

/// Returns the type with a number.
fn kind(number: u8) -> FileKind {
    match number {
        1 => FileKind::Directory,
        2 => FileKind::Symlink,
        3 => FileKind::Fifo,
        4 => FileKind::Socket,
        _ => FileKind::File,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_rows() {
        let metadata = |kind, number: u64| Metadata {
            kind,
            mode: 0o7777,
            owner: Owner { uid: u32::MAX, gid: 7 },
            size: u64::MAX - number,
            mtime: Timestamp { seconds: -1, nanoseconds: 999_999_999 },
            ctime: Timestamp { seconds: i64::MAX, nanoseconds: number as u32 },
            device: 5 + number / 7,
            inode: u64::MAX,
            links: if number == 8 { u64::MAX } else { 2 },
            blocks: number,
        };
        let device = |major| FileKind::CharDevice { major, minor: 9 };
        let block = FileKind::BlockDevice { major: u32::MAX, minor: 0 };
        let kinds = [FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::Fifo];
        let more = [FileKind::Socket, device(0), block, FileKind::File, FileKind::File];
        let xattrs = vec![(b"user.a".to_vec(), b"1".to_vec())];
        let mut rows = Rows::with_capacity(1);
        let mut expected = Vec::new();
        for (number, kind) in kinds.into_iter().chain(more).enumerate() {
            expected.push(Seen {
                name: &b"abcdefghi"[number..],
                metadata: metadata(kind, number as u64),
                target: if kind == FileKind::Symlink { b"to" } else { b"" },
                xattrs: if number % 2 == 0 { &xattrs } else { &[] },
                is_hidden: number == 1,
            });
        }
        for seen in &expected {
            rows.push(seen);
        }
        rows.shrink();
        let seen: Vec<_> = (0..rows.len()).map(|index| rows.get(index)).collect();
        assert_eq!(format!("{seen:?}"), format!("{expected:?}"));
        assert_eq!((rows.files(), rows.has_shown(), size_of::<Row>()), (3, true, 72));
        assert_eq!(seen[0].xattr(b"user.a"), Some(&b"1"[..]));
    }
}
