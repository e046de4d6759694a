//! Makes directories.

use std::path::{Path, PathBuf};

use kiln_llb::op::MkDirAction;
use kiln_tree::{Dir, Owner};

use super::place::{Look, make_dir, resolve};
use crate::error::Result;

/// Makes a directory, and its parents where that is asked for. What is there is left as it is.
pub(super) fn mkdir(target: &Dir, action: &MkDirAction, owner: Option<Owner>) -> Result<()> {
    let resolved = resolve(target, Path::new(&action.path))?;
    let look = Look { mode: Some(action.mode as u32 & 0o777), owner, time: action.timestamp };
    if resolved.as_os_str().is_empty() {
        return Ok(());
    }
    if !action.make_parents {
        make_dir(target, &resolved, look, false)?;
        return Ok(());
    }
    let mut path = PathBuf::new();
    for name in &resolved {
        path.push(name);
        make_dir(target, &path, look, true)?;
    }
    Ok(())
}
