//! Makes symbolic links.

use std::path::Path;

use kiln_llb::op::SymlinkAction;
use kiln_tree::{Dir, Owner};

use super::attributes;
use crate::error::Result;

/// Makes a symbolic link. Something that is there already is an error; a link whose target isn't
/// there is followed to where it leads.
pub(super) fn symlink(target: &Dir, action: &SymlinkAction, owner: Option<Owner>) -> Result<()> {
    let attributes = attributes(None, owner, action.timestamp);
    let path = target.real_path(Path::new(&action.new_path))?;
    Ok(target.symlink(Path::new(&action.old_path), &path, &attributes)?)
}
