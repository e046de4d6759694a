//! Makes directories.

use std::path::Path;

use kiln_llb::op::MkDirAction;
use kiln_tree::{Dir, Owner};

use super::attributes;
use crate::error::Result;

/// Makes a directory, and its parents where that is asked for. What is there is left as it is.
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
