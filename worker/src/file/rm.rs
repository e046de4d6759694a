//! Removes files.
//!
//! The directory that holds what is removed is resolved inside of the tree; what is removed is
//! never followed, nor is anything below it.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

use kiln_llb::op::RmAction;
use kiln_tree::Dir;
use rustix::fs::{AtFlags, Dir as Entries, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::place::{open, resolve};
use crate::error::{Error, Result};

/// Removes a path, or what a pattern matches.
pub(super) fn rm(target: &Dir, action: &RmAction) -> Result<()> {
    if !action.allow_wildcard || !has_wildcard(&action.path) {
        return remove(target, &action.path, action.allow_not_found);
    }
    Err(Error::Unsupported(format!("removal of what a pattern matches ({})", action.path)))
}

/// Tells whether a path is a pattern.
pub(crate) fn has_wildcard(path: &str) -> bool {
    let mut characters = path.chars();
    while let Some(character) = characters.next() {
        match character {
            '\\' => drop(characters.next()),
            '*' | '?' | '[' => return true,
            _ => {}
        }
    }
    false
}

fn remove(target: &Dir, path: &str, allow_not_found: bool) -> Result<()> {
    let clean = clean(path);
    let shown = Path::new("/").join(&clean);
    let (Some(parent), Some(name)) = (clean.parent(), clean.file_name()) else {
        return Err(Error::Invalid(format!("cannot remove {path:?}: the root of the file system")));
    };
    let resolved = resolve(target, parent)?;
    let removed = open(target, &resolved).and_then(|parent| {
        let name = CString::new(name.as_bytes()).map_err(|_| Errno::INVAL)?;
        remove_entry(parent.as_fd(), &name)
    });
    match removed {
        Err(Errno::NOENT | Errno::NOTDIR) if allow_not_found => Ok(()),
        removed => removed.map_err(Error::path("remove", &shown)),
    }
}

/// Cleans a path lexically: `..` can't lead above the root.
fn clean(path: &str) -> std::path::PathBuf {
    let mut clean = std::path::PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

fn remove_entry(parent: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let dir = openat(parent, name, flags, Mode::empty())?;
    let mut entries = Vec::new();
    for entry in Entries::read_from(&dir)? {
        let entry = entry?;
        if ![OsStr::new("."), OsStr::new("..")]
            .iter()
            .any(|dots| dots.as_bytes() == entry.file_name().to_bytes())
        {
            entries.push(entry.file_name().to_owned());
        }
    }
    for entry in &entries {
        remove_entry(dir.as_fd(), entry)?;
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}
