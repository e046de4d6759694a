//! The directories of processes in `tmp/`.
//!
//! Each open store has one, with a file `lock` that is held as long as the store is open. If the
//! lock is free, the process is dead. The next process that opens the store removes the directory,
//! and the leases of that name. Directories are created and locked while the root lock is held
//! shared, and checked while it is held exclusively, so that a new directory is never mistaken for
//! a dead one.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::lock::{self, RootLock};
use super::private;
use super::remove::remove_tree;
use crate::error::{Error, Result};
use crate::name;

/// The directory of this process.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    name: String,
    path: PathBuf,
    counter: AtomicU64,
    // The open file holds the lock.
    _lock: File,
}

impl ProcessDir {
    /// Creates and locks the directory.
    pub(crate) fn create(root: &Path) -> Result<Self> {
        let _placing = RootLock::shared(root)?;
        loop {
            let name = format!("{}-{}", std::process::id(), name::fresh());
            let path = root.join("tmp").join(&name);
            match private::directories().create(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                result => result.map_err(Error::io("create", &path))?,
            }
            let lock = lock::open(&path.join("lock"))?;
            lock::wait(&lock, File::lock).map_err(Error::io("lock", &path))?;
            return Ok(Self { name, path, counter: AtomicU64::new(0), _lock: lock });
        }
    }

    /// Returns the name of the process, which its leases use.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns an unused path in the directory.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.path.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Creates a subdirectory of the directory.
    pub(crate) fn fresh_dir(&self) -> Result<PathBuf> {
        let path = self.fresh();
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// Returns the remaining entries of the directory.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        entries.flatten().filter(|entry| entry.file_name() != "lock").map(|e| e.path()).collect()
    }

    /// Returns the path of the directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `true` if there seem to be directories of dead processes. Takes no lock, so the
    /// result may be wrong.
    pub(crate) fn some_are_dead(&self, root: &Path) -> Result<bool> {
        for path in others(root, &self.name)? {
            if is_dead(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the directories of dead processes into this one. Returns their names and new paths.
    /// The caller holds the root lock exclusively.
    pub(crate) fn take_dead(&self, root: &Path) -> Result<Vec<(String, PathBuf)>> {
        let mut taken = Vec::new();
        for path in others(root, &self.name)? {
            if is_dead(&path)? {
                let here = self.fresh();
                match fs::rename(&path, &here) {
                    // The process was just ending and has removed the directory itself.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    result => result.map_err(Error::io("rename", &path))?,
                }
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                taken.push((name, here));
            }
        }
        Ok(taken)
    }
}

/// Removes the directory of a closed store if it is empty. Otherwise the next process removes it. The
/// lock may be free, and another process may remove the directory at the same time.
pub(crate) fn close(path: &Path) {
    if fs::read_dir(path).is_ok_and(|entries| entries.count() == 1) {
        let _ = fs::remove_file(path.join("lock"));
        let _ = fs::remove_dir(path);
    }
}

/// Removes the files that dead processes other than `own` have left in their directories. Creates
/// no entries. [`ProcessDir::take_dead`] removes the directories themselves.
pub(crate) fn clear_dead(root: &Path, own: &str) -> Result<()> {
    for path in others(root, own)? {
        if !is_dead(&path)? {
            continue;
        }
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if entry.file_name() != "lock"
                && let Err(error) = remove_tree(&entry.path())
            {
                // Another process may be removing it too.
                tracing::debug!(path = ?entry.path(), %error, "can't remove");
            }
        }
    }
    Ok(())
}

/// Returns the names of all processes that have a directory.
pub(crate) fn names(root: &Path) -> Result<Vec<String>> {
    let name = |path: &PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    Ok(others(root, "")?.iter().filter_map(name).collect())
}

fn others(root: &Path, own: &str) -> Result<Vec<PathBuf>> {
    let tmp = root.join("tmp");
    let mut paths = Vec::new();
    for entry in fs::read_dir(&tmp).map_err(Error::io("read", &tmp))? {
        let entry = entry.map_err(Error::io("read", &tmp))?;
        if entry.file_name() != own {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

fn is_dead(path: &Path) -> Result<bool> {
    let lock = path.join("lock");
    match lock::open_existing(&lock) {
        Ok(file) => lock::try_lock(&file, &lock),
        Err(error) => match error.kind() {
            // The process was killed before it had a lock, or is just ending.
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(true),
            _ => Err(Error::io("open", lock)(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_may_vanish_while_they_are_taken() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("tmp")).unwrap();
        let taker = ProcessDir::create(root.path()).unwrap();
        std::thread::scope(|scope| {
            let ending = scope.spawn(|| {
                for _ in 0..2_000 {
                    let process = ProcessDir::create(root.path()).unwrap();
                    close(process.path());
                }
            });
            while !ending.is_finished() {
                let _removing = RootLock::exclusive(root.path()).unwrap();
                taker.take_dead(root.path()).unwrap();
            }
        });
    }
}
