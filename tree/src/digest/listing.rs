//! The input of a content digest, entry by entry, small enough to store.
//!
//! A digest shows that trees differ, but not where. A listing has an item for each entry with the
//! input of the digest, except that only the beginning of a file's hash is stored. Two listings
//! therefore show which files differ. Sorted paths share prefixes, so each path is stored as the
//! length of the prefix that it shares with the one before, and its remaining bytes. An entry takes
//! about twenty bytes, and fewer compressed.
//!
//! ```text
//! listing   form (1 byte)  count  entry…
//! entry     selection  shared  rest (length, bytes)  kind (1 byte)  mode  uid  gid  detail
//!           capability (length, bytes)
//! detail    file: size, hash (6 bytes) · link: target (length, bytes) · device: major, minor
//! ```
//!
//! Numbers are LEB128. As in the digest, paths are relative to the selected path, since equal
//! digests have equal listings whatever path is selected. To show them, prepend the selected path.
//! With wildcards, paths are relative to the root and begin with a slash.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// The version of the format.
pub(super) const FORM: u8 = 1;
/// The number of bytes of a file's hash that are stored, enough to distinguish two versions of a
/// file.
pub(super) const HASH: usize = 6;
/// The maximal number of entries of a listing. Larger listings are never written.
const MAX_ENTRIES: u64 = 100_000_000;

/// The entries of a digest's input, sorted by place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing<'a> {
    entries: Vec<ListedEntry<'a>>,
}

/// An entry of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ListedEntry<'a> {
    place: Place<'a>,
    kind: u8,
    mode: u32,
    uid: u32,
    gid: u32,
    detail: Detail<'a>,
    capability: Cow<'a, [u8]>,
}

/// The place of an entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place<'a> {
    /// The number of the selection that selects the entry.
    pub selection: u32,
    /// The path below the selected path, or a path from the root with a leading slash.
    pub path: Cow<'a, [u8]>,
}

impl Place<'_> {
    fn into_owned(self) -> Place<'static> {
        Place { selection: self.selection, path: self.path.into_owned().into() }
    }
}

/// The data of an entry that depends on its type.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Detail<'a> {
    Nothing,
    File { size: u64, hash: [u8; HASH] },
    Link(Cow<'a, [u8]>),
    Device(u32, u32),
}

/// The difference between the entries of two listings at the same path. If there are several, the
/// first in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The path is only in the new listing.
    Added,
    /// The path is only in the old listing.
    Removed,
    /// The types: `file`, `directory`, `link`, `fifo`, `socket`, `device`.
    Type(&'static str, &'static str),
    /// The content of a file, with its sizes in bytes.
    Content(u64, u64),
    /// The target of a link.
    Target(Vec<u8>, Vec<u8>),
    /// The permission bits, with setuid, setgid and sticky.
    Mode(u32, u32),
    /// The user IDs and group IDs.
    Owner((u32, u32), (u32, u32)),
    /// The device's major and minor numbers.
    Device((u32, u32), (u32, u32)),
    /// The capability of a file (`security.capability`).
    Capability,
}

impl ListedEntry<'_> {
    fn type_name(&self) -> &'static str {
        match self.kind {
            b'f' => "file",
            b'd' => "directory",
            b'l' => "link",
            b'p' => "fifo",
            b's' => "socket",
            _ => "device",
        }
    }

    /// Returns the difference from `new`, an item with the same path.
    fn difference(&self, new: &ListedEntry<'_>) -> Option<Difference> {
        if self.kind != new.kind {
            return Some(Difference::Type(self.type_name(), new.type_name()));
        }
        match (&self.detail, &new.detail) {
            (old, new) if old == new => {}
            (Detail::File { size: old, .. }, Detail::File { size: new, .. }) => {
                return Some(Difference::Content(*old, *new));
            }
            (Detail::Link(old), Detail::Link(new)) => {
                return Some(Difference::Target(old.to_vec(), new.to_vec()));
            }
            (Detail::Device(a, b), Detail::Device(c, d)) => {
                return Some(Difference::Device((*a, *b), (*c, *d)));
            }
            _ => return Some(Difference::Type(self.type_name(), new.type_name())),
        }
        if self.mode != new.mode {
            return Some(Difference::Mode(self.mode, new.mode));
        }
        if (self.uid, self.gid) != (new.uid, new.gid) {
            return Some(Difference::Owner((self.uid, self.gid), (new.uid, new.gid)));
        }
        (self.capability != new.capability).then_some(Difference::Capability)
    }
}

impl Listing<'_> {
    /// Returns the paths that differ, in order, with their differences. If a directory was added or
    /// removed, its contents are left out.
    pub fn differences(&self, new: &Listing<'_>) -> Vec<(Place<'static>, Difference)> {
        let mut found: Vec<(Place<'static>, Difference)> = Vec::new();
        let (mut old, mut new) = (self.entries.iter().peekable(), new.entries.iter().peekable());
        loop {
            let order = match (old.peek(), new.peek()) {
                (None, None) => break,
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(old), Some(new)) => old.place.cmp(&new.place),
            };
            let (entry, difference) = match order {
                Ordering::Less => (old.next(), Some(Difference::Removed)),
                Ordering::Greater => (new.next(), Some(Difference::Added)),
                Ordering::Equal => {
                    let (old, new) = (old.next(), new.next());
                    let pair = old.zip(new);
                    (new, pair.and_then(|(old, new)| old.difference(new)))
                }
            };
            if let (Some(entry), Some(difference)) = (entry, difference) {
                found.push((entry.place.clone().into_owned(), difference));
            }
        }
        without_parts(found)
    }

    /// Parses a listing in its compact format. Returns `None` for any other bytes.
    pub fn decode(bytes: &[u8]) -> Option<Listing<'static>> {
        let mut reader = Reader(bytes);
        if reader.take(1)? != [FORM] {
            return None;
        }
        let count = reader.number().filter(|count| *count <= MAX_ENTRIES)?;
        let mut entries: Vec<ListedEntry<'static>> = Vec::new();
        for _ in 0..count {
            let last = entries.last().map_or(&b""[..], |entry| &entry.place.path);
            let entry = reader.entry(last)?;
            entries.push(entry);
        }
        reader.0.is_empty().then_some(Listing { entries })
    }
}

/// Removes the entries of directories that were added or removed as a whole.
fn without_parts(found: Vec<(Place<'static>, Difference)>) -> Vec<(Place<'static>, Difference)> {
    let is_whole =
        |difference: &Difference| matches!(difference, Difference::Added | Difference::Removed);
    let whole: BTreeMap<Place<'static>, Difference> =
        found.iter().filter(|(_, it)| is_whole(it)).cloned().collect();
    let is_part = |(place, difference): &(Place<'static>, Difference)| {
        let Place { selection, path } = place;
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let parents = slashes.map(|(end, _)| end).chain((!path.is_empty()).then_some(0));
        let mut parents =
            parents.map(|end| Place { selection: *selection, path: path[..end].to_vec().into() });
        is_whole(difference) && parents.any(|parent| whole.get(&parent) == Some(difference))
    };
    found.into_iter().filter(|one| !is_part(one)).collect()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn small(&mut self) -> Option<u32> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    fn entry(&mut self, last: &[u8]) -> Option<ListedEntry<'static>> {
        let selection = self.small()?;
        let shared = usize::try_from(self.number()?).ok()?;
        let mut path = last.get(..shared)?.to_vec();
        path.extend_from_slice(self.bytes()?);
        let kind = *self.take(1)?.first()?;
        let (mode, uid, gid) = (self.small()?, self.small()?, self.small()?);
        let detail = match kind {
            b'f' => {
                let size = self.number()?;
                Detail::File { size, hash: self.take(HASH)?.try_into().ok()? }
            }
            b'l' => Detail::Link(self.bytes()?.to_vec().into()),
            b'c' | b'b' => Detail::Device(self.small()?, self.small()?),
            b'd' | b'p' | b's' => Detail::Nothing,
            _ => return None,
        };
        let capability = self.bytes()?.to_vec().into();
        let place = Place { selection, path: path.into() };
        Some(ListedEntry { place, kind, mode, uid, gid, detail, capability })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::{Dir, Selection, View};

    fn listing(root: &Path, paths: &[&str]) -> Listing<'static> {
        let dir = Dir::open(root).unwrap();
        let select = |path: &&str| Selection { path: (*path).to_owned(), ..Selection::default() };
        let selections: Vec<Selection> = paths.iter().map(select).collect();
        let examined = super::super::examine(View::of(&dir), &selections, None).unwrap();
        Listing::decode(&examined.listing()).unwrap()
    }

    #[test]
    fn differences_are_told_to_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::create_dir_all(at("d/gone/deep")).unwrap();
        for name in ["d/a", "d/b", "d/gone/x", "d/gone/deep/y", "d/kind", "d-mode"] {
            std::fs::write(at(name), "old").unwrap();
        }
        symlink("old", at("d/link")).unwrap();
        let mode = |name: &str, mode| {
            std::fs::set_permissions(at(name), PermissionsExt::from_mode(mode)).unwrap();
        };
        mode("d-mode", 0o644);
        let old = listing(temp.path(), &["/"]);
        assert!(old.differences(&old).is_empty());

        std::fs::write(at("d/b"), "newer").unwrap();
        std::fs::remove_dir_all(at("d/gone")).unwrap();
        std::fs::remove_file(at("d/link")).unwrap();
        symlink("new", at("d/link")).unwrap();
        std::fs::remove_file(at("d/kind")).unwrap();
        std::fs::create_dir(at("d/kind")).unwrap();
        std::fs::create_dir(at("more")).unwrap();
        std::fs::write(at("more/x"), "").unwrap();
        mode("d-mode", 0o664);
        let found = old.differences(&listing(temp.path(), &["/"]));
        let expected = [
            ("d-mode", Difference::Mode(0o644, 0o664)),
            ("d/b", Difference::Content(3, 5)),
            ("d/gone", Difference::Removed),
            ("d/kind", Difference::Type("file", "directory")),
            ("d/link", Difference::Target(b"old".to_vec(), b"new".to_vec())),
            ("more", Difference::Added),
        ];
        let found: Vec<(&str, Difference)> = found
            .iter()
            .map(|(place, what)| (std::str::from_utf8(&place.path).unwrap(), what.clone()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn places_are_below_what_is_asked_for() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for name in ["d", "e"] {
            std::fs::create_dir(at(name)).unwrap();
            std::fs::write(at(name).join("f"), name).unwrap();
        }
        std::fs::write(at("same"), "d").unwrap();
        let different = |old: &[&str], new: &[&str]| {
            let found = listing(temp.path(), old).differences(&listing(temp.path(), new));
            let places = found.into_iter().map(|(place, _)| {
                (place.selection, String::from_utf8(place.path.into_owned()).unwrap())
            });
            places.collect::<Vec<_>>()
        };
        assert_eq!(different(&["/d/f"], &["/same"]), []);
        assert_eq!(different(&["/d", "/e"], &["/d", "/d"]), [(1, "f".to_owned())]);
        assert_eq!(different(&["/e"], &["/none"]), [(0, String::new())], "and what is in it");
        let matched = Selection { wildcard: true, path: "/[d]".to_owned(), ..Selection::default() };
        let dir = Dir::open(temp.path()).unwrap();
        let examined = super::super::examine(View::of(&dir), &[matched], None).unwrap();
        let read = Listing::decode(&examined.listing()).unwrap();
        let paths: Vec<&[u8]> = read.entries.iter().map(|entry| &*entry.place.path).collect();
        assert_eq!(paths, [&b"/d"[..], b"/d/f"]);
    }

    #[test]
    fn owners_and_capabilities_count() {
        let entry = |uid, capability: &'static [u8]| ListedEntry {
            place: Place { selection: 0, path: b"f".into() },
            kind: b'f',
            mode: 0o755,
            uid,
            gid: 0,
            detail: Detail::File { size: 1, hash: [1; HASH] },
            capability: capability.into(),
        };
        let listing = |entry| Listing { entries: vec![entry] };
        let old = listing(entry(0, b""));
        let found = |new| old.differences(&listing(new)).pop().map(|(_, what)| what);
        assert_eq!(found(entry(7, b"")), Some(Difference::Owner((0, 0), (7, 0))));
        assert_eq!(found(entry(0, b"c")), Some(Difference::Capability));
        assert_eq!(found(entry(0, b"")), None);
    }

    #[test]
    fn damaged_listings_are_none() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join("f"), "x").unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let whole = Selection { path: "/".to_owned(), ..Selection::default() };
        let bytes = super::super::examine(View::of(&dir), &[whole], None).unwrap().listing();
        for length in 0..bytes.len() {
            assert_eq!(Listing::decode(&bytes[..length]), None, "{length}");
        }
        assert_eq!(Listing::decode(&[FORM, 0xff, 0xff, 0xff, 0xff, 0x0f]), None);
        assert_eq!(Listing::decode(&[bytes.as_slice(), b"x"].concat()), None);
    }
}
