//! The directories of processes in `tmp/`.
//!
//! Each open store has one, with a file `lock` in it that is held as long as the store is open. A
//! directory whose lock is free belongs to the dead: the next process that opens the store takes it
//! away, and with it the leases of that name. Directories are made and locked with the root lock
//! held shared, and judged with it held exclusively, so that one that was made an instant ago is
//! never taken for dead.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Error, Result};
use crate::lock::{self, RootLock};
use crate::remove::remove_tree;
use crate::{name, private};

/// The directory of this process.
#[derive(Debug)]
pub(crate) struct ProcessDir {
    name: String,
    path: PathBuf,
    counter: AtomicU64,
    // Holds the lock.
    _lock: File,
}

impl ProcessDir {
    /// Makes and locks the directory.
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

    /// Returns the name that leases go by.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Returns a path in the directory that is not used yet.
    pub(crate) fn fresh(&self) -> PathBuf {
        self.path.join(self.counter.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// Makes a directory in the directory.
    pub(crate) fn fresh_dir(&self) -> Result<PathBuf> {
        let path = self.fresh();
        fs::create_dir(&path).map_err(Error::io("create", &path))?;
        Ok(path)
    }

    /// Returns what is left in the directory.
    pub(crate) fn leftovers(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(&self.path) else { return Vec::new() };
        entries.flatten().filter(|entry| entry.file_name() != "lock").map(|e| e.path()).collect()
    }

    /// Removes the directory, which the caller has emptied but for what may be left to the next
    /// process.
    pub(crate) fn close(&self) {
        if fs::read_dir(&self.path).is_ok_and(|entries| entries.count() == 1) {
            let _ = fs::remove_file(self.path.join("lock"));
            let _ = fs::remove_dir(&self.path);
        }
    }

    /// Tells whether there seem to be directories of the dead. Needs no lock, and may err.
    pub(crate) fn some_are_dead(&self, root: &Path) -> Result<bool> {
        for path in others(root, &self.name)? {
            if is_dead(&path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Moves the directories of the dead into this one and returns whose they were and where they are
    /// now. The caller holds the root lock exclusively.
    pub(crate) fn take_dead(&self, root: &Path) -> Result<Vec<(String, PathBuf)>> {
        let mut taken = Vec::new();
        for path in others(root, &self.name)? {
            if is_dead(&path)? {
                let here = self.fresh();
                match fs::rename(&path, &here) {
                    // It was ending just now, and has removed the directory itself.
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

/// Removes what the dead have left behind in the directories of others than `own`, where it lies: no
/// name appears anywhere. The directories themselves are for [`ProcessDir::take_dead`].
pub(crate) fn clear_dead(root: &Path, own: &str) -> Result<()> {
    for path in others(root, own)? {
        if !is_dead(&path)? {
            continue;
        }
        for entry in fs::read_dir(&path).into_iter().flatten().flatten() {
            if entry.file_name() != "lock"
                && let Err(error) = remove_tree(&entry.path())
            {
                // Somebody else may remove it, too.
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
            // Killed before it had a lock, or ending just now.
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
                    process.close();
                }
            });
            while !ending.is_finished() {
                let _removing = RootLock::exclusive(root.path()).unwrap();
                taker.take_dead(root.path()).unwrap();
            }
        });
    }
}
