//! Mkfile actions: creation of files.

use std::path::Path;

use kiln_llb::op::MkFileAction;
use kiln_tree::{Dir, Owner};

use super::attributes;
use crate::error::Result;

/// Creates a file. An existing file gets the new content and keeps its mode.
pub(super) fn mkfile(target: &Dir, action: &MkFileAction, owner: Option<Owner>) -> Result<()> {
    let attributes = attributes(Some(action.mode), owner, action.timestamp);
    Ok(target.write_file(Path::new(&action.path), &action.data, &attributes)?)
}
