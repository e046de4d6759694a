//! Content digests: the parts of a tree that a step can observe.
//!
//! A digest is computed in three steps. The selections become lists of entries ([`select`]). The
//! files among them are hashed in parallel, unless their hashes are remembered ([`contents`]). All
//! data then goes into a single SHA-256, in order and prefixed by lengths.
//!
//! The input, for each selection and each path that it selects:
//!
//! | input | reason |
//! | --- | --- |
//! | the path below the selected path, and the match of wildcards | a copy creates these names |
//! | type, permission bits, owner as the view has it | a copy keeps them |
//! | a file's size and BLAKE3 hash | they identify its content |
//! | a link's target, a device's numbers, `security.capability` | a copy keeps them too |
//! | the absence of an entry | its later appearance changes the digest |
//!
//! Not part of the input are times, inode numbers, links between files, the selected path (the op's
//! definition contains it), the links on the way to it, and the location of the tree. The hashes of
//! files never leave the store, so they need not be SHA-256. Two different trees with equal digests
//! would require a collision of either hash.

mod contents;
mod filter;
pub(crate) mod listing;
pub(crate) mod select;
#[cfg(test)]
mod tests;

use kiln_oci::Digest;
use kiln_oci::DigestHasher;

use crate::error::Result;
use crate::metadata::Metadata;
use crate::view::View;
use crate::walk::Entry;
use contents::Contents;
pub(crate) use contents::is_settled;
pub use contents::{ContentHasher, WrittenFile, remember_written};
use listing::Listing;
use select::{Picked, Selected};

/// A prefix of the stream. It changes with the format, so that digests of different formats are
/// never equal.
const FORM: &[u8] = b"kiln content digest 1";

/// A selection of entries of a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// The path, or a pattern if `wildcard` is set. Links in its parents are followed inside the
    /// tree.
    pub path: String,
    /// `true` if `path` is a pattern of Go's `path.Match`. Its wildcards don't match through links.
    pub wildcard: bool,
    /// `true` to follow a link at the end of `path`.
    pub follow: bool,
    /// The patterns of entries to select in a directory; empty for all. They match paths below the
    /// directory.
    pub include: Vec<String>,
    /// The patterns of entries to leave out.
    pub exclude: Vec<String>,
    /// `true` to apply `exclude` also to the matches of the wildcards in `path` and, without
    /// wildcards, to a file (not a directory) at `path`. Excluded entries are neither selected nor
    /// reported as missing.
    pub exclude_matches: bool,
}

/// A memory of the digests of unchanged files.
pub trait FileDigests: Send + Sync {
    /// Returns the digests of the files with this metadata, in order, as far as they are known.
    /// Several threads call this, with some hundred files each time.
    fn get(&self, files: &[&Metadata]) -> Vec<Option<[u8; 32]>>;
    /// Stores the digest of the file with this metadata.
    fn put(&self, metadata: &Metadata, digest: [u8; 32]);
}

/// Digests the selected entries of a tree: paths, types, modes, owners, sizes, link targets, device
/// numbers, `security.capability` and contents, but no times. Runs in parallel, and doesn't read
/// files whose digests are remembered.
///
/// # Errors
/// Fails if a file can't be read, if links form a circle, or if a pattern is malformed. A path that
/// doesn't exist is part of the digest and not an error.
pub fn content_digest(
    view: View<'_>,
    selections: &[Selection],
    remembered: Option<&dyn FileDigests>,
) -> Result<Digest> {
    Ok(examine(view, selections, remembered)?.digest())
}

/// A selection, and the view to which it applies.
#[derive(Clone, Copy, Debug)]
pub struct Selecting<'a> {
    /// The view of the tree.
    pub view: View<'a>,
    /// The selection of entries in the view.
    pub selection: &'a Selection,
}

/// Returns `true` if two selections select the same entries of one directory. Reads no files.
///
/// # Errors
/// Fails if a directory can't be read, if links form a circle, or if a pattern is malformed.
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

/// Reads the selected entries, as [`content_digest`] does.
///
/// # Errors
/// See [`content_digest`].
pub fn examine(
    view: View<'_>,
    selections: &[Selection],
    remembered: Option<&dyn FileDigests>,
) -> Result<SelectedContents> {
    let mut selected = Vec::with_capacity(selections.len());
    for selection in selections {
        selected.push(select::select(view, selection)?);
    }
    let files = selected.iter().flatten().flat_map(|selected| &selected.entries);
    let files = files.map(|picked| &picked.entry).filter(|entry| entry.metadata.is_file());
    let contents = contents::read(view.dir, &files.collect::<Vec<_>>(), remembered)?;
    Ok(SelectedContents { selected, contents })
}

/// The entries that selections select, with the hashes of files.
pub struct SelectedContents {
    selected: Vec<Vec<Selected>>,
    /// The size and hash of each file, in order.
    contents: Vec<Contents>,
}

impl SelectedContents {
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

    /// Returns the input of the digest, entry by entry.
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

/// The stream of digested bytes. Data without a fixed length is prefixed by its length.
struct Stream(DigestHasher);

impl Stream {
    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds a selected path. `contents` yields the contents of its files in order.
    fn selected(&mut self, selected: &Selected, contents: &mut std::slice::Iter<'_, Contents>) {
        self.bytes(&selected.path);
        self.number(selected.entries.len() as u64);
        for picked in &selected.entries {
            let entry = &picked.entry;
            self.bytes(&picked.path());
            self.entry(entry);
            if entry.metadata.is_file() {
                // Each file has an element.
                let contents = contents.next().copied().unwrap_or_default();
                self.number(contents.size);
                self.0.update(&contents.hash);
            }
        }
    }

    fn entry(&mut self, entry: &Entry) {
        let metadata = &entry.metadata;
        let (kind, major, minor) = metadata.kind.letter();
        self.0.update(&[kind]);
        for number in [metadata.mode, metadata.owner.uid, metadata.owner.gid, major, minor] {
            self.0.update(&number.to_le_bytes());
        }
        self.bytes(&entry.target);
        self.bytes(entry.xattr(b"security.capability").unwrap_or_default());
    }
}
