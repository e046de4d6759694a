//! The parts of a tree that a copy on top of it needs to know.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::changes::Located;
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::Metadata;
use crate::names;

/// A tree below a copy: a directory, or a [`Skeleton`](crate::Skeleton) of archives that are not
/// unpacked.
pub trait Below {
    /// Returns the metadata of the entry at `path`, or `None` if it doesn't exist. A link at the
    /// end of the path is not followed. Only type, mode, owner, size and time are valid.
    ///
    /// # Errors
    /// Fails if the tree can't be read, or if links form a circle.
    fn entry(&self, path: &Path) -> Result<Option<Metadata>>;

    /// Returns the file capability of the entry at `path`, a real path. It is empty if there is
    /// none.
    ///
    /// # Errors
    /// Fails if the capability can't be read.
    fn capability(&self, path: &Path) -> Result<Vec<u8>>;

    /// Returns the digest of the content of the file at `path`, a real path, or of the target of a
    /// link. Returns `None` if the digest is unknown.
    ///
    /// # Errors
    /// Fails if the entry can't be read.
    fn content(&self, path: &Path) -> Result<Option<Digest>>;

    /// Returns the real path of `path` in the tree: absolute and without links. The part of the
    /// path that doesn't exist is kept as it is.
    ///
    /// # Errors
    /// Fails if the path leads through an entry that is no directory, or if links form a circle.
    fn real_path(&self, path: &Path) -> Result<PathBuf>;
}

impl Below for Dir {
    fn entry(&self, path: &Path) -> Result<Option<Metadata>> {
        self.metadata(path, false)
    }

    fn capability(&self, path: &Path) -> Result<Vec<u8>> {
        let Some((parent, name)) = self.parent_of(path)? else { return Ok(Vec::new()) };
        let Some(located) = look(&parent, name, path)? else { return Ok(Vec::new()) };
        located.capability().map_err(|errno| Error::io("read", path, errno))
    }

    fn content(&self, path: &Path) -> Result<Option<Digest>> {
        let Some((parent, name)) = self.parent_of(path)? else { return Ok(None) };
        let Some(located) = look(&parent, name, path)? else { return Ok(None) };
        located.content().map_err(|errno| Error::io("read", path, errno))
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf> {
        Self::real_path(self, path)
    }
}

/// Looks up `name` in the directory that holds `path`.
fn look<'a>(parent: &'a OwnedFd, name: &'a OsStr, path: &Path) -> Result<Option<Located<'a>>> {
    Located::look(parent.as_fd(), names::bytes(name))
        .map_err(|errno| Error::io("stat", path, errno))
}
