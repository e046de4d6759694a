//! Locks that end with their process.
//!
//! Locks on files are `flock` locks. Locks on keys are locks on single bytes of one file, at
//! offsets derived from the keys' digests, so that locking a key creates no file. Both belong to
//! the open file: the kernel releases them when its last descriptor is closed, however the process
//! ends. Two guards in one process exclude each other, since each opens the file for itself.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use kiln_oci::Digest;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc::{F_WRLCK, SEEK_SET, c_short, flock};

use crate::error::{Error, Result};

/// A lock on a key. Dropping it, or the end of the process, releases the key.
#[derive(Debug)]
pub struct KeyGuard {
    // Closing the file releases the key.
    _file: File,
}

impl KeyGuard {
    /// Waits for a key and locks it. `path` is the file of all keys.
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

    /// Locks a key if it is free.
    pub(crate) fn try_acquire(path: &Path, key: &str) -> Result<Option<Self>> {
        let file = open(path)?;
        match fcntl(&file, FcntlArg::F_OFD_SETLK(&place_of(key))) {
            Ok(_) => Ok(Some(Self { _file: file })),
            Err(Errno::EAGAIN | Errno::EACCES) => Ok(None),
            Err(errno) => Err(Error::io("lock a key in", path)(errno)),
        }
    }
}

/// Returns the byte for a key. There are far more bytes than keys. If two keys have the same byte,
/// they exclude each other.
fn place_of(key: &str) -> flock {
    let mut first = [0; 8];
    first.copy_from_slice(&Digest::of(key.as_bytes()).as_bytes()[..8]);
    flock {
        l_type: F_WRLCK as c_short,
        l_whence: SEEK_SET as c_short,
        // A range that ends beyond the maximal file size would be refused.
        l_start: i64::from_le_bytes(first) & (i64::MAX >> 1),
        l_len: 1,
        l_pid: 0,
    }
}

/// The lock of the whole store. Processes that place files hold it shared; processes that look for
/// garbage hold it exclusively.
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

/// Opens a lock file, and creates it if it doesn't exist.
pub(crate) fn open(path: &Path) -> Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(path).map_err(Error::io("open", path))
}

/// Opens an existing lock file. NFS requires a descriptor that is open for writing for an exclusive
/// lock.
pub(crate) fn open_existing(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

/// Takes an exclusive lock if it is free. Returns `true` on success.
pub(crate) fn try_lock(file: &File, path: &Path) -> Result<bool> {
    answer(file.try_lock(), path)
}

/// Takes a shared lock unless it is held exclusively. Returns `true` on success.
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

/// Waits for a lock, and continues after signals.
pub(crate) fn wait(file: &File, lock: fn(&File) -> io::Result<()>) -> io::Result<()> {
    loop {
        match lock(file) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

/// Returns `true` if the open file still has its name.
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
