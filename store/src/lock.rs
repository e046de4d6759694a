//! Locks that die with their process.
//!
//! All are `flock` locks: the kernel drops them when the last descriptor of the open file closes,
//! however the process ended, and two guards in one process exclude one another since each opens the
//! file for itself.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::error::{Error, Result};

/// A key that is held; freed when dropped and when the process dies.
#[derive(Debug)]
pub struct KeyGuard {
    path: PathBuf,
    // Closing the file frees the key.
    _file: File,
}

impl KeyGuard {
    /// Waits for a key.
    pub(crate) fn acquire(dir: &Path, key: &str) -> Result<Self> {
        let path = file_of(dir, key);
        loop {
            let file = open(&path)?;
            wait(&file, File::lock).map_err(Error::io("lock", &path))?;
            if is_at(&file, &path)? {
                return Ok(Self { path, _file: file });
            }
        }
    }

    /// Takes a key that nobody holds.
    pub(crate) fn try_acquire(dir: &Path, key: &str) -> Result<Option<Self>> {
        let path = file_of(dir, key);
        loop {
            let file = open(&path)?;
            if !try_lock(&file, &path)? {
                return Ok(None);
            }
            if is_at(&file, &path)? {
                return Ok(Some(Self { path, _file: file }));
            }
        }
    }
}

impl Drop for KeyGuard {
    fn drop(&mut self) {
        // Removed while it is held: who waits for this file finds that it has lost its name, and
        // begins anew.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the files of keys that died with their processes.
pub(crate) fn sweep_keys(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        let Ok(file) = OpenOptions::new().read(true).write(true).open(&path) else { continue };
        if try_lock(&file, &path)? && is_at(&file, &path)? {
            drop(KeyGuard { path, _file: file });
        }
    }
    Ok(())
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

fn file_of(dir: &Path, key: &str) -> PathBuf {
    dir.join(Digest::of(key.as_bytes()).hex())
}

/// Tells whether the open file still has its name.
pub(crate) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let held = file.metadata().map_err(Error::io("stat", path))?;
    match fs::symlink_metadata(path) {
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
        let held = KeyGuard::acquire(dir.path(), "a/../b").unwrap();
        assert!(KeyGuard::try_acquire(dir.path(), "a/../b").unwrap().is_none());
        assert!(KeyGuard::try_acquire(dir.path(), "other").unwrap().is_some());
        drop(held);
        assert!(KeyGuard::try_acquire(dir.path(), "a/../b").unwrap().is_some());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "no file is left");
    }

    #[test]
    fn never_two_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let inside = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..300 {
                        let guard = KeyGuard::acquire(dir.path(), "key").unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                        inside.fetch_sub(1, Ordering::SeqCst);
                        drop(guard);
                    }
                });
            }
        });
    }

    #[test]
    fn keys_of_the_dead_are_swept_and_those_of_the_living_kept() {
        let dir = tempfile::tempdir().unwrap();
        let held = KeyGuard::acquire(dir.path(), "living").unwrap();
        fs::write(file_of(dir.path(), "dead"), "").unwrap();
        sweep_keys(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(KeyGuard::try_acquire(dir.path(), "living").unwrap().is_none());
        drop(held);
    }
}
