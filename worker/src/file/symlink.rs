//! Symlink actions: creation of symbolic links.

use std::path::Path;

use kiln_llb::op::SymlinkAction;
use kiln_tree::{Dir, Owner};

use super::attributes;
use crate::error::Result;

/// Creates a symbolic link. An existing entry is an error. A dangling link at the new path is
/// followed to its target.
pub(super) fn symlink(target: &Dir, action: &SymlinkAction, owner: Option<Owner>) -> Result<()> {
    let attributes = attributes(None, owner, action.timestamp);
    let path = target.real_path(Path::new(&action.new_path))?;
    Ok(target.symlink(Path::new(&action.old_path), &path, &attributes)?)
}
