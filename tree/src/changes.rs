//! The differences between an upper directory and the tar of its layer.
//!
//! If a step opens a file for writing, overlayfs copies it up, even if the step then changes
//! nothing. So the upper directory of a step holds more than the step changed. It also says less
//! than a layer must say: a replaced directory is marked as opaque, without the names of the
//! deleted entries. [`Changes::find`] compares the directory with the layers below it and records
//! the differences between the directory and the tar of the layer. [`crate::Plan::of_changes`]
//! applies them. The rules are BuildKit's, so that both builders pack the same bytes:
//!
//! - An [unchanged](is_unchanged) entry is left out. An unchanged directory is in the tar only if
//!   an entry below it is.
//! - The deletion of an entry that doesn't exist is left out.
//! - The mark of an opaque directory is replaced by a deletion for each deleted entry. The
//!   directory's entries are compared like all others.
//! - If a file has several names, the changed ones are written, and the first of them becomes the
//!   file. In a replaced directory, if one name of a file has changed, its unchanged names are
//!   written too.
//!
//! The upper directory itself stays unchanged, because steps built on it see more than the tar
//! contains: the time of a directory in which a file was created and removed, an extended
//! attribute, an access list.
//!
//! The comparison looks up the entries of the upper directory in the trees of the layers. It lists
//! a directory of a layer only if the step replaced that directory.

mod below;
mod compare;
#[cfg(test)]
mod tests;
mod walk;

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::error::Result;
pub use compare::{Located, is_unchanged};
pub(crate) use compare::{digest_of, has_same_attributes};

/// The differences between an upper directory and the tar of its layer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<Vec<u8>, Mark>);

/// The treatment of a path in the tar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The entry is unchanged and left out.
    Unchanged,
    /// The entry is left out unless another name of its file is written.
    Linked,
    /// The directory was replaced, and its own attributes changed.
    Replaced,
    /// The directory was replaced by one with the same attributes.
    Refilled,
    /// The entry was deleted without a mark in the upper directory.
    Deleted,
}

impl Changes {
    /// Compares an upper directory with the trees of the layers below it, uppermost first.
    ///
    /// # Errors
    /// Fails if an entry of either tree can't be read.
    pub fn find(upper: &Dir, chain: &[PathBuf]) -> Result<Self> {
        let marks = walk::compare(upper, chain)?;
        Ok(Self(marks.into_iter().map(|(path, mark)| (key(&path), mark)).collect()))
    }

    /// Returns the changes of a layer with these unchanged entries, by their [keys](key).
    pub(crate) fn of_unchanged(keys: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self(keys.into_iter().map(|key| (key, Mark::Unchanged)).collect())
    }

    /// Returns `true` if the tar has exactly the entries of the upper directory.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the marks in serialized form: for each path a letter, the path, and a zero byte.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, mark) in &self.0 {
            bytes.push(mark.letter());
            bytes.extend(key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }));
            bytes.push(0);
        }
        bytes
    }

    /// Parses the output of [`Changes::to_bytes`]. Returns `None` for any other bytes.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut marks = BTreeMap::new();
        let mut rest = bytes;
        while let Some((letter, after)) = rest.split_first() {
            let end = after.iter().position(|byte| *byte == 0)?;
            marks.insert(key(&after[..end]), Mark::of_letter(*letter)?);
            rest = &after[end + 1..];
        }
        Some(Self(marks))
    }

    /// Returns the mark of a path, if it has one.
    pub(crate) fn of(&self, path: &[u8]) -> Option<Mark> {
        if self.0.is_empty() { None } else { self.0.get(&key(path)).copied() }
    }

    /// Returns `true` if the tar leaves out an entry of the upper directory, which is as below.
    pub fn leaves_out(&self, path: &[u8]) -> bool {
        self.of(path) == Some(Mark::Unchanged)
    }

    /// Returns `true` if an entry of the upper directory is a directory that replaces another one.
    pub fn replaces(&self, path: &[u8]) -> bool {
        matches!(self.of(path), Some(Mark::Replaced | Mark::Refilled))
    }

    /// Returns the changes of a copy of the upper directory that marks all deletions itself.
    #[must_use]
    pub fn with_marked_deletions(&self) -> Self {
        let marks = self.0.iter().filter_map(|(key, mark)| {
            let mark = match mark {
                Mark::Deleted | Mark::Replaced => return None,
                Mark::Refilled => Mark::Unchanged,
                mark => *mark,
            };
            Some((key.clone(), mark))
        });
        Self(marks.collect())
    }

    /// Returns an iterator over the paths of deleted entries, in the order of a walk.
    pub fn deleted(&self) -> impl Iterator<Item = Vec<u8>> {
        let deleted = self.0.iter().filter(|(_, mark)| **mark == Mark::Deleted);
        deleted
            .map(|(key, _)| key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }).collect())
    }
}

impl Mark {
    fn letter(self) -> u8 {
        match self {
            Self::Unchanged => b'u',
            Self::Linked => b'l',
            Self::Replaced => b'o',
            Self::Refilled => b'p',
            Self::Deleted => b'd',
        }
    }

    fn of_letter(letter: u8) -> Option<Self> {
        let marks = [Self::Unchanged, Self::Linked, Self::Replaced, Self::Refilled, Self::Deleted];
        marks.into_iter().find(|mark| mark.letter() == letter)
    }
}

/// Returns a key that sorts paths in the order of a walk: a directory's contents precede siblings
/// with a longer name.
pub(crate) fn key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}
