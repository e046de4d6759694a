//! Views of trees, which hide and change parts of them.

use crate::dir::Dir;
use crate::metadata::Owner;
use crate::pattern::PatternMatcher;

/// A view of a tree: the whole directory, or a build context without the files that its ignore file
/// excludes, owned by root and without extended attributes, as BuildKit's transfer leaves it.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The root directory of the tree.
    pub dir: &'a Dir,
    /// The patterns of hidden entries. An excluded directory is still visible if an entry below it
    /// is.
    pub excludes: Option<&'a PatternMatcher>,
    /// The owner of all entries; `None` for the files' own owners.
    pub owner: Option<Owner>,
    /// `true` to show extended attributes.
    pub xattrs: bool,
    /// `true` to fail on paths that are too long for an image.
    pub bounded: bool,
}

impl<'a> View<'a> {
    /// Returns an unchanged view of a directory.
    pub fn of(dir: &'a Dir) -> Self {
        Self { dir, excludes: None, owner: None, xattrs: true, bounded: false }
    }

    /// Returns the view of a layer's tree. Paths that are too long for an image are errors.
    pub fn of_layer(dir: &'a Dir) -> Self {
        Self { bounded: true, ..Self::of(dir) }
    }
}
