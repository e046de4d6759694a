//! Makes files.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use kiln_llb::op::MkFileAction;
use kiln_tree::{Dir, Owner};
use rustix::fs::{Mode, OFlags, fchmod, openat};
use rustix::io::Errno;

use super::place::{Look, apply, open_parent, resolve};
use crate::error::{Error, Result};

/// Makes a file. One that is there gets the new content and keeps its mode.
pub(super) fn mkfile(target: &Dir, action: &MkFileAction, owner: Option<Owner>) -> Result<()> {
    let resolved = resolve(target, Path::new(&action.path))?;
    let (parent, name) = open_parent(target, &resolved)?;
    let shown = Path::new("/").join(&resolved);
    let failed = |errno: Errno| Error::path("write", &shown)(errno);
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let create = flags | OFlags::CREATE | OFlags::EXCL;
    let file = match openat(&parent, name, create, Mode::RUSR | Mode::WUSR) {
        Ok(file) => {
            fchmod(&file, Mode::from_raw_mode(action.mode as u32 & 0o777)).map_err(failed)?;
            file
        }
        Err(Errno::EXIST) => {
            openat(&parent, name, flags | OFlags::TRUNC, Mode::empty()).map_err(failed)?
        }
        Err(errno) => return Err(failed(errno)),
    };
    File::from(file).write_all(&action.data).map_err(Error::path("write", &shown))?;
    apply(&parent, name, Look { mode: None, owner, time: action.timestamp })
}
