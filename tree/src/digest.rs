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
mod listing_writer;
pub(crate) mod select;
mod survey;
#[cfg(test)]
mod tests;

use kiln_oci::Digest;
use kiln_oci::DigestHasher;

use crate::error::Result;
use crate::metadata::Metadata;
use crate::view::View;
use crate::walk::Seen;
use contents::Contents;
pub(crate) use contents::is_settled;
pub use contents::{ContentHasher, WrittenFile, remember_written};
use listing_writer::{NewPlace, Writer};
use select::{Picked, Selected};
use survey::Survey;

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
    let mut surveys = Vec::with_capacity(selections.len());
    for selection in selections {
        surveys.push(select::survey(view, selection)?);
    }
    let contents = contents::read(view.dir, &surveys, remembered)?;
    Ok(SelectedContents { surveys, contents })
}

/// The entries that selections select, with the hashes of files.
pub struct SelectedContents {
    surveys: Vec<Vec<Survey>>,
    /// The size and hash of each file, in order.
    contents: Vec<Contents>,
}

impl SelectedContents {
    /// Returns the content digest.
    pub fn digest(&self) -> Digest {
        let mut contents = self.contents.iter();
        let mut stream = Stream { hasher: DigestHasher::new(), buffer: Vec::new() };
        stream.bytes(FORM);
        stream.number(self.surveys.len() as u64);
        for surveys in &self.surveys {
            stream.number(surveys.len() as u64);
            for survey in surveys {
                stream.survey(survey, &mut contents);
            }
        }
        stream.finish()
    }

    /// Returns the input of the digest, entry by entry, as a [`Listing`](crate::Listing) in its
    /// compact format.
    pub fn listing(&self) -> Vec<u8> {
        let mut contents = self.contents.iter();
        let mut writer = Writer::default();
        for (number, surveys) in self.surveys.iter().enumerate() {
            for survey in surveys {
                let mut entries = survey.entries();
                while let Some(surveyed) = entries.next() {
                    let is_file = surveyed.seen.metadata.is_file();
                    let contents = if is_file { contents.next() } else { None };
                    let (selection, matched) = (number as u32, survey.path.as_slice());
                    let place = NewPlace { selection, matched, path: surveyed.path };
                    writer.add(place, &surveyed.seen, contents.copied());
                }
            }
        }
        writer.finish()
    }
}

/// The number of bytes that are digested at once.
const BUFFERED: usize = 32 << 10;

/// The stream of digested bytes. Data without a fixed length is prefixed by its length.
struct Stream {
    hasher: DigestHasher,
    buffer: Vec<u8>,
}

impl Stream {
    fn raw(&mut self, bytes: &[u8]) {
        if self.buffer.len() + bytes.len() > BUFFERED {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u64) {
        self.raw(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.raw(bytes);
    }

    /// Adds a selected path. `contents` yields the contents of its files in order.
    fn survey(&mut self, survey: &Survey, contents: &mut std::slice::Iter<'_, Contents>) {
        self.bytes(&survey.path);
        self.number(survey.len() as u64);
        let mut entries = survey.entries();
        while let Some(surveyed) = entries.next() {
            self.bytes(surveyed.path);
            self.entry(&surveyed.seen);
            if surveyed.seen.metadata.is_file() {
                // Each file has an element.
                let contents = contents.next().copied().unwrap_or_default();
                self.number(contents.size);
                self.raw(&contents.hash);
            }
        }
    }

    fn entry(&mut self, entry: &Seen<'_>) {
        let metadata = &entry.metadata;
        let (kind, major, minor) = metadata.kind.letter();
        self.raw(&[kind]);
        for number in [metadata.mode, metadata.owner.uid, metadata.owner.gid, major, minor] {
            self.raw(&number.to_le_bytes());
        }
        self.bytes(entry.target);
        self.bytes(entry.xattr(b"security.capability").unwrap_or_default());
    }

    fn finish(mut self) -> Digest {
        self.hasher.update(&self.buffer);
        self.hasher.finish()
    }
}
