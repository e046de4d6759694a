//! The files that the search for packages reads.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use kiln_tree::Dir;
use kiln_tree::walk::Entry;

use crate::error::{Error, Result};

/// The maximum size of a database in bytes.
pub(super) const DATABASE: u64 = 128 << 20;
/// The maximum size of a package's own metadata in bytes.
pub(super) const MANIFEST: u64 = 4 << 20;

/// A function that creates an empty directory.
pub(crate) type Scratch<'a> = dyn Fn() -> Result<PathBuf> + 'a;

/// The files of an image.
pub(crate) struct Files<'a> {
    /// The root directory of the image.
    pub(crate) dir: &'a Dir,
    /// All entries below the root.
    pub(crate) entries: &'a [Entry],
}

impl Files<'_> {
    /// Reads a file and follows links inside the image's root. Returns `None` if there is no
    /// regular file at `path`, or if it has more than `limit` bytes.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub(crate) fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(file) = self.open(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = file.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(Error::io("read", path))?;
        // A file above the limit is no database or manifest.
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }

    /// Opens a regular file. Returns `None` if there is no regular file at `path`.
    pub(crate) fn open(&self, path: &str) -> Result<Option<File>> {
        let path = Path::new(path);
        match self.dir.metadata(path, true) {
            Ok(Some(metadata)) if metadata.is_file() => Ok(Some(self.dir.open_file(path)?)),
            // There is no entry, or a link has no target or forms a loop.
            _ => Ok(None),
        }
    }

    /// Returns the paths of the regular files that `is_it` accepts by path and name.
    pub(crate) fn named(&self, is_it: impl Fn(&str, &str) -> bool) -> Vec<String> {
        let files = self.entries.iter().filter(|entry| entry.metadata.is_file());
        let found = files.filter_map(|entry| {
            let path = String::from_utf8(entry.path.to_vec()).ok()?;
            let name = path.rsplit('/').next()?;
            is_it(&path, name).then_some(path)
        });
        found.collect()
    }

    /// Opens a file of [`entries`](Self::entries).
    pub(crate) fn open_entry(&self, entry: &Entry) -> Result<File> {
        Ok(self.dir.open_file(Path::new(OsStr::from_bytes(&entry.path.to_vec())))?)
    }
}
