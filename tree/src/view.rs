//! A tree as it is to be seen.

use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::dir::{Dir, rooted};
use crate::error::{Error, Result};
use crate::metadata::{Metadata, Owner};
use crate::pattern::PatternMatcher;
use crate::scan::{Rules, scan};
use crate::{names, resolve};

/// A tree as it is to be seen: all of a directory, or a build context without what its ignore file
/// excludes, owned by root and without extended attributes, as BuildKit's transfer leaves it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The directory.
    pub dir: &'a Dir,
    /// What is left out. A directory that is excluded is still seen where something below it isn't.
    pub excludes: Option<&'a PatternMatcher>,
    /// Who owns everything; `None` for the owners that the files have.
    pub owner: Option<Owner>,
    /// Whether extended attributes are seen.
    pub xattrs: bool,
}

impl<'a> View<'a> {
    /// Returns the view of a directory as it is.
    pub fn of(dir: &'a Dir) -> Self {
        Self { dir, excludes: None, owner: None, xattrs: true }
    }

    /// Returns metadata as the view shows it.
    pub(crate) fn show(&self, metadata: Metadata) -> Metadata {
        Metadata { owner: self.owner.unwrap_or(metadata.owner), ..metadata }
    }

    /// Returns where `path` really is inside the view. What is left out of the view, links on the
    /// way too, isn't there.
    pub fn real_path(&self, path: &Path) -> Result<PathBuf> {
        let path = rooted(path);
        let visible = |path: &Path, metadata: &Metadata| self.shows(path, metadata);
        resolve::real_path(self.dir.as_fd(), &path, self.excludes.map(|_| &visible as _))
            .map_err(|errno| Error::io("resolve", &path, errno))
    }

    /// Returns the metadata of what is at a real path, if the view shows it; a link at its end is
    /// not followed.
    pub fn metadata(&self, path: &Path) -> Result<Option<Metadata>> {
        let Some(metadata) = self.dir.metadata(path, false)? else { return Ok(None) };
        match self.shows(path, &metadata) {
            Ok(true) => Ok(Some(self.show(metadata))),
            Ok(false) => Ok(None),
            Err(errno) => Err(Error::io("stat", path, errno)),
        }
    }

    /// Tells whether a real path is shown.
    fn shows(&self, path: &Path, metadata: &Metadata) -> Result<bool, Errno> {
        let Some(excludes) = self.excludes else { return Ok(true) };
        let relative = names::below_root(path);
        if relative.is_empty() || !excludes.matches(relative) {
            return Ok(true);
        }
        if !metadata.is_dir() || !excludes.may_except_below(relative) {
            return Ok(false);
        }
        let rules = Rules { ignored: self.excludes, ..Rules::default() };
        let below = scan(*self, path, rules, |_, _, _| Ok(())).map_err(|_| Errno::IO)?;
        Ok(!below.is_empty())
    }
}
