//! The files that a search goes through.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_tree::Dir;
use kiln_tree::walk::Entry;

use crate::error::{Error, Result};

/// Most bytes of a database.
pub(super) const DATABASE: u64 = 128 << 20;
/// Most bytes of what a package says of itself.
pub(super) const MANIFEST: u64 = 4 << 20;

/// Makes an empty directory.
pub(crate) type Scratch<'a> = dyn Fn() -> Result<PathBuf> + 'a;

/// The files of an image.
pub(crate) struct Files<'a> {
    /// The root.
    pub(crate) dir: &'a Dir,
    /// Everything in it.
    pub(crate) entries: &'a [Entry],
}

impl Files<'_> {
    /// Reads a file from the image's root, links inside it followed; `None` where there is none, or
    /// something else.
    ///
    /// # Errors
    /// Fails where it can't be read.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(Error::io("read", path))?;
        // What is that large is none of these.
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    /// Opens a regular file.
    pub(crate) fn open(&self, path: &str) -> Result<Option<File>> {
        let path = Path::new(path);
        match self.dir.metadata(path, true) {
            Ok(Some(metadata)) if metadata.is_file() => Ok(Some(self.dir.open_file(path)?)),
            // A link that leads nowhere, or in a circle.
            _ => Ok(None),
        }
    }

    /// Returns the paths of regular files with a name that `is_it` knows, and their names.
    pub(crate) fn named(&self, is_it: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let files = self.entries.iter().filter(|entry| entry.metadata.is_file());
        let found = files.filter_map(|entry| {
            let path = String::from_utf8(entry.path.to_vec()).ok()?;
            let name = path.rsplit('/').next()?;
            is_it(&path, name).then_some(path)
        });
        found.collect()
    }

    /// Opens a file that the search has met.
    pub(crate) fn open_entry(&self, entry: &Entry) -> Result<File> {
        Ok(self.dir.open_file(Path::new(OsStr::from_bytes(&entry.path.to_vec())))?)
    }
}
