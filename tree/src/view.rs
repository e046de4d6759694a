//! A tree as it is to be seen.

use crate::dir::Dir;
use crate::metadata::Owner;
use crate::pattern::PatternMatcher;

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
    /// Whether a path that is too long for an image is an error.
    pub bounded: bool,
}

impl<'a> View<'a> {
    /// Returns the view of a directory as it is.
    pub fn of(dir: &'a Dir) -> Self {
        Self { dir, excludes: None, owner: None, xattrs: true, bounded: false }
    }

    /// Returns the view of a layer's tree, in which a path that is too long for an image is an error.
    pub fn of_layer(dir: &'a Dir) -> Self {
        Self { bounded: true, ..Self::of(dir) }
    }
}
