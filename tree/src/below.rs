//! A tree that copies go on top of, as far as they have to know it.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::changes::Located;
use crate::dir::{Dir, rooted};
use crate::error::{Error, Result};
use crate::ids::Ids;
use crate::metadata::Metadata;
use crate::names;

/// A tree that copies go on top of: a directory, or a [`Skeleton`](crate::Skeleton) of archives that
/// nobody has unpacked.
pub trait Below {
    /// Returns the metadata of what is at `path`, or `None` where nothing is. A link at its end is not
    /// followed. Type, mode, owner, size and time count.
    ///
    /// # Errors
    /// Fails where the tree can't be read, or links lead in a circle.
    fn entry(&self, path: &Path) -> Result<Option<Metadata>>;

    /// Returns the file capability of what is at `path`, a real path.
    ///
    /// # Errors
    /// Fails where it can't be read.
    fn capability(&self, path: &Path) -> Result<Vec<u8>>;

    /// Returns the digest of the bytes of the file at `path`, a real path, or of the target of the
    /// link there; `None` where it isn't known.
    ///
    /// # Errors
    /// Fails where it can't be read.
    fn content(&self, path: &Path) -> Result<Option<Digest>>;

    /// Returns where `path` really is in the tree: absolute, without links. A tail that isn't there is
    /// kept as it is.
    ///
    /// # Errors
    /// Fails where the path leads through something that is no directory, or links lead in a circle.
    fn real_path(&self, path: &Path) -> Result<PathBuf>;
}

impl Below for Dir {
    fn entry(&self, path: &Path) -> Result<Option<Metadata>> {
        let Some(metadata) = self.metadata(path, false)? else { return Ok(None) };
        if !Ids::current().is_namespace() {
            return Ok(Some(metadata));
        }
        let path = rooted(path);
        let Some((parent, name)) = self.parent_of(&path)? else { return Ok(Some(metadata)) };
        let located = look(&parent, name, &path)?;
        Ok(Some(located.map_or(metadata, |located| located.metadata)))
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

/// Looks at `name` in the directory that holds `path`.
fn look<'a>(parent: &'a OwnedFd, name: &'a OsStr, path: &Path) -> Result<Option<Located<'a>>> {
    Located::look(parent.as_fd(), names::bytes(name))
        .map_err(|errno| Error::io("stat", path, errno))
}
