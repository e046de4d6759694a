//! A tree that copies go on top of, as far as they have to know it.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};

use crate::attributes;
use crate::dir::{Dir, rooted};
use crate::error::{Error, Result};
use crate::ids::{Ids, RECORD};
use crate::metadata::Metadata;
use crate::resolve;

/// A tree that copies go on top of: a directory, or a [`Skeleton`](crate::Skeleton) of archives that
/// nobody has unpacked.
pub trait Below {
    /// Returns the metadata of what is at `path`, or `None` where nothing is. A link at its end is not
    /// followed. Of what is no directory, the type alone counts.
    ///
    /// # Errors
    /// Fails where the tree can't be read, or links lead in a circle.
    fn entry(&self, path: &Path) -> Result<Option<Metadata>>;

    /// Returns where `path` really is in the tree: absolute, without links. A tail that isn't there is
    /// kept as it is.
    ///
    /// # Errors
    /// Fails where the path leads through something that is no directory, or links lead in a circle.
    fn real_path(&self, path: &Path) -> Result<PathBuf>;
}

impl Below for Dir {
    fn entry(&self, path: &Path) -> Result<Option<Metadata>> {
        let Some(mut metadata) = self.metadata(path, false)? else { return Ok(None) };
        if metadata.is_dir() && Ids::current().is_namespace() {
            let path = rooted(path);
            let failed = |errno| Error::io("read attributes of", &path, errno);
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
            let fd = resolve::open(self.as_fd(), &path, flags, Mode::empty()).map_err(failed)?;
            let xattrs = attributes::xattrs(fd.as_fd()).map_err(failed)?;
            let recorded = xattrs.iter().find(|(name, _)| name == RECORD);
            let owner =
                recorded.and_then(|(_, value)| Ids::current().recorded(metadata.owner, value));
            metadata.owner = owner.unwrap_or(metadata.owner);
        }
        Ok(Some(metadata))
    }

    fn real_path(&self, path: &Path) -> Result<PathBuf> {
        Self::real_path(self, path)
    }
}
