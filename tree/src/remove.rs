//! Removal of whole trees.
//!
//! A hostile tree may be thousands of levels deep. So there is no recursion, and one descriptor is
//! open at a time. The way up uses `..`, and each step up is checked to reach the directory from
//! which the way down came.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use crate::dir::entry_names;
use crate::metadata::Metadata;
use crate::names;

struct Level {
    /// The name of the directory in its parent.
    name: Vec<u8>,
    /// The parent's device and inode.
    parent: (u64, u64),
    /// The names of the remaining entries.
    entries: Vec<Vec<u8>>,
}

/// Removes an entry of a directory and everything below it. Links are not followed. Succeeds if the
/// entry doesn't exist.
///
/// # Errors
/// Fails if an entry can't be removed.
pub fn remove_all(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    if unlink(dir, name)? {
        return Ok(());
    }
    let mut levels: Vec<Level> = Vec::new();
    let Some((mut current, level)) = descend(dir, name)? else { return Ok(()) };
    levels.push(level);
    while let Some(level) = levels.last_mut() {
        if let Some(entry) = level.entries.pop() {
            if !unlink(current.as_fd(), &entry)?
                && let Some((child, level)) = descend(current.as_fd(), &entry)?
            {
                current = child;
                levels.push(level);
            }
            continue;
        }
        let Some(done) = levels.pop() else { break };
        if levels.is_empty() {
            return rmdir(dir, &done.name);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = openat(&current, "..", flags, Mode::empty())?;
        if identity(parent.as_fd())? != done.parent {
            return Err(Errno::STALE);
        }
        rmdir(parent.as_fd(), &done.name)?;
        current = parent;
    }
    Ok(())
}

fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64), Errno> {
    Metadata::of_fd(fd).map(|metadata| (metadata.device, metadata.inode))
}

/// Removes an entry that is no directory. Returns `false` for a directory.
fn unlink(dir: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Errno> {
    match unlinkat(dir, names::path(name), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::ISDIR) => Ok(false),
        // POSIX requires this error for directories. Files that can't be removed have it too.
        Err(Errno::PERM) => match Metadata::of_entry(dir, name) {
            Ok(metadata) if metadata.is_dir() => Ok(false),
            _ => Err(Errno::PERM),
        },
        Err(errno) => Err(errno),
    }
}

fn rmdir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(dir, names::path(name), AtFlags::REMOVEDIR) {
        Err(Errno::NOENT) => Ok(()),
        result => result,
    }
}

fn descend(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<(OwnedFd, Level)>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match openat(dir, names::path(name), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let entries = entry_names(fd.as_fd())?;
    Ok(Some((fd, Level { name: name.to_vec(), parent: identity(dir)?, entries })))
}
