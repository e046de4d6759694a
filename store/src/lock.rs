//! Locks that die with their process.
//!
//! Locks on files are `flock` locks; those on keys are locks on single bytes of one file, at the
//! places that digests of the keys name, so that locking one makes no file and removes none. Both
//! belong to the open file: the kernel drops them when its last descriptor closes, however the
//! process ended, and two guards in one process exclude one another since each opens the file for
//! itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use kiln_oci::Digest;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_WRLCK, SEEK_SET, c_short, flock};

use crate::error::{Error, Result};

/// A key that is held; freed when dropped and when the process dies.
#[derive(Debug)]
pub struct KeyGuard {
    // Closing the file frees the key.
    _file: File,
}

impl KeyGuard {
    /// Waits for a key. `path` is the file of all keys.
    pub(crate) fn acquire(path: &Path, key: &str) -> Result<Self> {
        let file = open(path)?;
        let lock = place_of(key);
        loop {
            match fcntl(&file, FcntlArg::F_OFD_SETLKW(&lock)) {
                Ok(_) => return Ok(Self { _file: file }),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::io("lock a key in", path)(errno)),
            }
        }
    }

    /// Takes a key that nobody holds.
    pub(crate) fn try_acquire(path: &Path, key: &str) -> Result<Option<Self>> {
        let file = open(path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&place_of(key))) {
            Ok(_) => Ok(Some(Self { _file: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(Error::io("lock a key in", path)(errno)),
        }
    }
}

/// Returns the byte that stands for a key. Keys are few and places are many: should two have the
/// same, they are held in turns.
fn place_of(key: &str) -> flock {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(key.as_bytes()).as_bytes()[..8]);
    flock {
        l_type: F_WRLCK as c_short,
        l_whence: SEEK_SET as c_short,
        // What ends behind the last byte that a file can have is refused.
        l_start: i64::from_le_bytes(first) & (i64::MAX >> 1),
        l_len: 1,
        l_pid: 0,
    }
}

/// The lock of the whole store, held shared by who places files and exclusively by who looks for
/// garbage.
#[derive(Debug)]
pub(crate) struct RootLock {
    _file: File,
}

impl RootLock {
    pub(crate) fn shared(root: &Path) -> Result<Self> {
        Self::take(root, File::lock_shared)
    }

    pub(crate) fn exclusive(root: &Path) -> Result<Self> {
        Self::take(root, File::lock)
    }

    fn take(root: &Path, lock: fn(&File) -> io::Result<()>) -> Result<Self> {
        let path = root.join("lock");
        let file = open(&path)?;
        wait(&file, lock).map_err(Error::io("lock", &path))?;
        Ok(Self { _file: file })
    }
}

/// Opens a lock file, made where there is none.
pub(crate) fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(Error::io("open", path))
}

/// Opens a lock file that is there. Over NFS, only a file that is open for writing can be locked
/// exclusively.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Takes a lock that is free and tells whether it was.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<bool> {
    answer(file.try_lock(), path)
}

/// Takes a lock shared that nobody holds exclusively and tells whether that was so.
pub(crate) fn try_lock_shared(file: &File, path: &Path) -> Result<bool> {
    answer(file.try_lock_shared(), path)
}

fn answer(result: std::result::Result<(), TryLockError>, path: &Path) -> Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path)(error)),
    }
}

/// Waits for a lock, through signals.
pub(crate) fn wait(file: &File, lock: fn(&File) -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock(file) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Tells whether the open file still has its name.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let held = file.metadata().map_err(Error::io("stat", path))?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (held.dev(), held.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::io("stat", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn guards_exclude_one_another() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let held = KeyGuard::acquire(&keys, "a/../b").unwrap();
        assert!(KeyGuard::try_acquire(&keys, "a/../b").unwrap().is_none());
        assert!(KeyGuard::try_acquire(&keys, "other").unwrap().is_some());
        drop(held);
        assert!(KeyGuard::try_acquire(&keys, "a/../b").unwrap().is_some());
        assert_eq!(std::fs::metadata(&keys).unwrap().len(), 0, "nothing is ever written");
    }

    #[test]
    fn files_that_get_locked_are_open_for_writing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert_eq!(open_existing(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let made = open(&path).unwrap();
        for file in [open_existing(&path).unwrap(), made] {
            let flags = rustix::fs::fcntl_getfl(&file).unwrap();
            assert!(flags.contains(rustix::fs::OFlags::RDWR), "{flags:?}");
        }
    }

    #[test]
    fn never_two_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let guard = KeyGuard::acquire(&keys, "key").unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                });
            }
        });
    }
}
