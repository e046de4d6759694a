//! Mkdir actions: creation of directories.

use std::path::Path;

use kiln_llb::op::MkDirAction;
use kiln_tree::{Dir, Owner};

use super::attributes;
use crate::error::Result;

/// Creates a directory, and its parents if the action requests that. Existing directories stay
/// unchanged.
pub(super) fn mkdir(target: &Dir, action: &MkDirAction, owner: Option<Owner>) -> Result<()> {
    let attributes = attributes(Some(action.mode), owner, action.timestamp);
    let path = Path::new(&action.path);
    if action.make_parents {
        target.mkdir_all(path, &attributes)?;
    } else {
        target.mkdir(path, &attributes)?;
    }
    Ok(())
}
