//! What an upper directory changes.
//!
//! A step that opens a file for writing has overlayfs copy it up, whether or not the step then
//! changes a byte. The upper directory of a step therefore holds more than the step changed, and it
//! says less than a layer has to say: a directory that was replaced is marked as opaque, and does
//! not name what is gone. [`Changes::find`] compares the directory with the layers below it and notes
//! where the tar of the layer departs from the directory. [`crate::Plan::of_changes`] follows the
//! notes. The rules are those of BuildKit, so that both builders pack the same bytes:
//!
//! - An entry that is [unchanged](is_unchanged) is left out. A directory that is unchanged is in the
//!   tar only where something below it is.
//! - The deletion of something that is not there is left out.
//! - In place of an opaque directory's mark there is a deletion for each thing that is gone. The
//!   directory's entries are compared like all others.
//! - Of several names of one file, the changed ones are written, and the first of those is the file.
//!   In a directory that was replaced, unchanged names follow their file once one of its names has
//!   changed.
//!
//! The upper directory itself stays as it is, because steps that are built on it see more than the
//! tar tells: the time of a directory that something was made in and removed from, an extended
//! attribute, an access list.
//!
//! Only what the upper directory holds is looked up below, in the layers' own trees. These are never
//! listed, except for directories that were replaced.

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

/// How the tar of a layer departs from the upper directory that it is packed of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes(BTreeMap<Vec<u8>, Mark>);

/// What is noted of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The entry is left out.
    Unchanged,
    /// The entry is left out, unless another name of its file is written.
    Linked,
    /// The directory was replaced, and its own attributes have changed.
    Replaced,
    /// The directory was replaced by one with the same attributes.
    Refilled,
    /// Something is gone that the upper directory does not name.
    Deleted,
}

impl Changes {
    /// Compares an upper directory with the trees of the layers that it lies on, uppermost first.
    ///
    /// # Errors
    /// Fails where something in either tree can't be read.
    pub fn find(upper: &Dir, chain: &[PathBuf]) -> Result<Self> {
        let marks = walk::compare(upper, chain)?;
        Ok(Self(marks.into_iter().map(|(path, mark)| (key(&path), mark)).collect()))
    }

    /// Tells whether the tar holds just what the upper directory does.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the notes as bytes: for each path a letter, the path, and a zero.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (key, mark) in &self.0 {
            bytes.push(mark.letter());
            bytes.extend(key.iter().map(|byte| if *byte == 0 { b'/' } else { *byte }));
            bytes.push(0);
        }
        bytes
    }

    /// Reads what [`Changes::to_bytes`] has written; `None` where it is something else.
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

    /// Returns what is noted of a path.
    pub(crate) fn of(&self, path: &[u8]) -> Option<Mark> {
        if self.0.is_empty() { None } else { self.0.get(&key(path)).copied() }
    }

    /// Yields the paths of the things that are gone, in the order of a walk.
    pub(crate) fn deleted(&self) -> impl Iterator<Item = Vec<u8>> {
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

/// Returns what sorts paths as a walk does: a directory's content comes before its longer-named
/// neighbours.
pub(crate) fn key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}
