//! Content digests: what a step can tell of a tree.
//!
//! A digest is made in three steps: the selections become lists of entries ([`select`]), the files
//! among them are hashed in parallel unless their hashes are remembered ([`contents`]), and all of
//! it goes, in order and with lengths in front, into one SHA-256.
//!
//! What enters, for each selection and each path that it selects:
//!
//! | what | why |
//! | --- | --- |
//! | the path below what was asked for; with wildcards the matched path too | names and places are what a copy makes |
//! | type, permission bits, owner as the view has it | so does it these |
//! | a file's size and BLAKE3 hash | its bytes |
//! | a link's target, a device's numbers, `security.capability` | what else a copy keeps |
//! | that nothing is there | so that its appearance is noticed |
//!
//! What doesn't: times, inode numbers, links between files, the path that was asked for (who asks
//! has it in the definition), the way there through links, and where the tree lies. The hashes of
//! files never leave the store, so that they need not be SHA-256; two trees with equal digests would
//! need a collision of either.

mod contents;
mod filter;
pub mod listing;
pub(crate) mod select;
#[cfg(test)]
mod tests;

use kiln_oci::Digest;
use kiln_oci::DigestHasher;

use crate::error::Result;
use crate::metadata::{FileKind, Metadata};
use crate::view::View;
use crate::walk::Entry;
use contents::Contents;
use listing::Listing;
use select::{Picked, Selected};

/// Changes with the form of the stream, so that digests of different forms never meet.
const FORM: &[u8] = b"kiln content digest 1";

/// What of a tree is digested.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// A path, or a pattern where `wildcard` is set. Links in its parents are followed inside the
    /// tree.
    pub path: String,
    /// Whether `path` is a pattern, as Go's `path.Match` reads them; its wildcards don't match
    /// through links.
    pub wildcard: bool,
    /// Whether a link at the end of `path` is followed.
    pub follow: bool,
    /// Only these are digested, of a directory; patterns match paths below it.
    pub include: Vec<String>,
    /// These are not.
    pub exclude: Vec<String>,
    /// Whether `exclude` is also about what `path` itself names: what its wildcards match, and a file
    /// (not a directory) that it names without any. What is excluded is not selected, and not missed.
    pub exclude_matches: bool,
}

/// Remembers the digests of files that have not changed.
pub trait FileDigests: Send + Sync {
    /// Returns the digests of the files that have this metadata, in their order, as far as they are
    /// known. Called from several threads, with some hundred files each time.
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>>;
    /// Remembers the digest of the file that has this metadata.
    fn put(&self, metadata: &Metadata, digest: [u8; 32]);
}

/// Digests what `selections` select of a tree: paths, types, modes, owners, sizes, link targets,
/// device numbers, `security.capability` and bytes; no times. In parallel, files whose digests are
/// remembered are not read.
///
/// # Errors
/// Fails where a file can't be read, links go in a circle, or a pattern is malformed. A path that
/// isn't there is part of the digest, not an error.
pub fn content_digest(
    view: View<'_>,
    selections: &[Selection],
    remembered: Option<&dyn FileDigests>,
) -> Result<Digest> {
    Ok(examine(view, selections, remembered)?.digest())
}

/// A selection in a view of a tree.
#[derive(Clone, Copy, Debug)]
pub struct Selecting<'a> {
    /// The view.
    pub view: View<'a>,
    /// The selection.
    pub selection: &'a Selection,
}

/// Tells whether two selections select the same entries of one directory. No file is read.
///
/// # Errors
/// Fails where a directory can't be read, links go in a circle, or a pattern is malformed.
pub fn selects_alike(one: Selecting<'_>, other: Selecting<'_>) -> Result<bool> {
    let one = select::select(one.view, one.selection)?;
    let other = select::select(other.view, other.selection)?;
    let is_entry = |a: &Picked, b: &Picked| a.above == b.above && a.entry.path == b.entry.path;
    let is_alike = |a: &Selected, b: &Selected| {
        let mut entries = a.entries.iter().zip(&b.entries);
        a.path == b.path
            && a.entries.len() == b.entries.len()
            && entries.all(|pair| is_entry(pair.0, pair.1))
    };
    Ok(one.len() == other.len() && one.iter().zip(&other).all(|pair| is_alike(pair.0, pair.1)))
}

/// Reads what [`content_digest`] digests.
///
/// # Errors
/// As [`content_digest`].
pub fn examine(
    view: View<'_>,
    selections: &[Selection],
    remembered: Option<&dyn FileDigests>,
) -> Result<Examined> {
    let mut selected = Vec::with_capacity(selections.len());
    for selection in selections {
        selected.push(select::select(view, selection)?);
    }
    let files = selected.iter().flatten().flat_map(|selected| &selected.entries);
    let files = files.map(|picked| &picked.entry).filter(|entry| entry.metadata.is_file());
    let contents = contents::read(view.dir, &files.collect::<Vec<_>>(), remembered)?;
    Ok(Examined { selected, contents })
}

/// What selections select of a tree, and what is in it.
pub struct Examined {
    selected: Vec<Vec<Selected>>,
    /// Of each file, in order.
    contents: Vec<Contents>,
}

impl Examined {
    /// Returns the content digest.
    pub fn digest(&self) -> Digest {
        let mut contents = self.contents.iter();
        let mut stream = Stream(DigestHasher::new());
        stream.bytes(FORM);
        stream.number(self.selected.len() as u64);
        for selected in &self.selected {
            stream.number(selected.len() as u64);
            for selected in selected {
                stream.selected(selected, &mut contents);
            }
        }
        stream.0.finish()
    }

    /// Returns what the digest is made of, file by file.
    pub fn listing(&self) -> Listing<'_> {
        let mut contents = self.contents.iter();
        let mut entries = Vec::new();
        for (number, selected) in self.selected.iter().enumerate() {
            for Selected { path: matched, entries: picked } in selected {
                for picked in picked {
                    let entry = &picked.entry;
                    let contents = if entry.metadata.is_file() { contents.next() } else { None };
                    let contents = contents.map(|contents| (contents.size, contents.hash));
                    let place = listing::Place::of(number, matched, picked.path().into());
                    entries.push(listing::ListedEntry::of(place, entry, contents));
                }
            }
        }
        Listing::of(entries)
    }
}

/// The bytes that are digested. Whatever has no fixed length has its length in front.
struct Stream(DigestHasher);

impl Stream {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Takes in a selected path, with the contents of its files in order.
    fn selected(&mut self, selected: &Selected, contents: &mut std::slice::Iter<'_, Contents>) {
        self.bytes(&selected.path);
        self.number(selected.entries.len() as u64);
        for picked in &selected.entries {
            let entry = &picked.entry;
            self.bytes(&picked.path());
            self.entry(entry);
            if entry.metadata.is_file() {
                // There is one for each file.
                let contents = contents.next().copied().unwrap_or_default();
                self.number(contents.size);
                self.0.update(&contents.hash);
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let metadata = &entry.metadata;
        let (kind, major, minor) = match metadata.kind {
            FileKind::File => (b'f', 0, 0),
            FileKind::Directory => (b'd', 0, 0),
            FileKind::Symlink => (b'l', 0, 0),
            FileKind::Fifo => (b'p', 0, 0),
            FileKind::Socket => (b's', 0, 0),
            FileKind::CharDevice { major, minor } => (b'c', major, minor),
            FileKind::BlockDevice { major, minor } => (b'b', major, minor),
        };
        self.0.update(&[kind]);
        for number in [metadata.mode, metadata.owner.uid, metadata.owner.gid, major, minor] {
            self.0.update(&number.to_le_bytes());
        }
        self.bytes(&entry.target);
        self.bytes(entry.xattr(b"security.capability").unwrap_or_default());
    }
}
