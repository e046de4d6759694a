//! Makes symbolic links.

use std::path::Path;

use kiln_llb::op::SymlinkAction;
use kiln_tree::{Dir, Owner};
use rustix::fs::symlinkat;

use super::place::{Look, apply, open_parent, resolve};
use crate::error::{Error, Result};

/// Makes a symbolic link. Something that is there already is an error.
pub(super) fn symlink(target: &Dir, action: &SymlinkAction, owner: Option<Owner>) -> Result<()> {
    let resolved = resolve(target, Path::new(&action.new_path))?;
    let (parent, name) = open_parent(target, &resolved)?;
    let shown = Path::new("/").join(&resolved);
    symlinkat(&action.old_path, &parent, name).map_err(Error::path("create link", &shown))?;
    apply(&parent, name, Look { mode: None, owner, time: action.timestamp })
}
