//! The volumes of `kiln run`: directories in `volumes/` that are only removed at the user's
//! request.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::CWD;

use crate::error::{Error, Result};
use crate::name;
use crate::room::cap::Claim;
use crate::room::rename::rename_directory;
use crate::room::{Room, lock, places};

/// The prefix of the paths of volumes, relative to the store's root.
pub(crate) const PREFIX: &str = "volumes/";

/// A volume in use. It can't be removed until this is dropped.
#[derive(Debug)]
pub struct VolumeGuard {
    room: Arc<Room>,
    path: PathBuf,
    /// The size in bytes when the volume was acquired, if the store has a cap. `claim` covers its
    /// growth.
    base: u64,
    claim: Arc<Claim>,
    // The open directory holds the lock.
    _dir: File,
}

impl VolumeGuard {
    /// Returns the path of the volume.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size in bytes when the volume was acquired.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Returns the claim on the volume's growth.
    pub(crate) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }
}

impl Drop for VolumeGuard {
    fn drop(&mut self) {
        if let Err(error) = places::release(&self.room, &self.path, &self.claim) {
            tracing::debug!(%error, "can't note the use of a volume");
        }
    }
}

/// The volumes of a store.
#[derive(Clone, Debug)]
pub struct Volumes {
    room: Arc<Room>,
}

impl Volumes {
    /// Returns a handle to the volumes of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone() }
    }

    /// Returns the directory of a named volume, and creates it if it doesn't exist. The flag is
    /// `true` if it is new.
    pub fn named(&self, name: &str) -> Result<(PathBuf, bool)> {
        self.filled(name, |_| Ok(()))
    }

    /// Returns the directory of a named volume. The flag is `true` if it is new. For a new volume,
    /// `fill` creates the initial contents before any other process sees it.
    pub fn filled<E: From<Error>>(
        &self,
        name: &str,
        fill: impl FnOnce(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<(PathBuf, bool), E> {
        let path = self.path(name)?;
        if path.is_dir() {
            return Ok((path, false));
        }
        let temporary = self.room.process().fresh_dir()?;
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("change the mode of", &temporary))?;
        let placed = fill(&temporary).and_then(|()| Ok(place(&temporary, &path)?));
        if !matches!(placed, Ok(true)) {
            self.room.trash().add(temporary, None);
        }
        Ok((path, placed?))
    }

    /// Creates an anonymous volume. Returns its name and directory.
    pub fn anonymous(&self) -> Result<(String, PathBuf)> {
        loop {
            let name = format!("anonymous-{}{}", name::fresh(), name::fresh());
            if let (path, true) = self.named(&name)? {
                return Ok((name, path));
            }
        }
    }

    /// Returns the sorted names of all volumes.
    pub fn list(&self) -> Result<Vec<String>> {
        let dir = self.room.root().join("volumes");
        let mut names = fs::read_dir(&dir)
            .map_err(Error::io("read", &dir))?
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect::<io::Result<Vec<_>>>()
            .map_err(Error::io("read", &dir))?;
        names.sort();
        Ok(names)
    }

    /// Acquires a volume for use. Returns `None` if it was just removed.
    pub fn hold(&self, name: &str) -> Result<Option<VolumeGuard>> {
        let path = self.path(name)?;
        let Some(dir) = open(&path)? else { return Ok(None) };
        lock::wait(&dir, File::lock_shared).map_err(Error::io("lock", &path))?;
        let is_there = lock::is_at(&dir, &path)?;
        if !is_there {
            return Ok(None);
        }
        let (room, claim) = (self.room.clone(), Arc::new(self.room.claim()));
        let base = places::base(&room, &path)?;
        Ok(Some(VolumeGuard { room, path, base, claim, _dir: dir }))
    }

    /// Returns `true` if a container uses a volume.
    pub(crate) fn is_used(&self, name: &str) -> Result<bool> {
        let path = self.path(name)?;
        let Some(dir) = open(&path)? else { return Ok(false) };
        Ok(!lock::try_lock(&dir, &path)?)
    }

    /// Moves an unused volume aside and returns its new path, or `None` if it is in use.
    pub(crate) fn take_unused(&self, name: &str) -> Result<Option<PathBuf>> {
        let path = self.path(name)?;
        let Some(dir) = open(&path)? else { return Ok(None) };
        if !lock::try_lock(&dir, &path)? || !lock::is_at(&dir, &path)? {
            return Ok(None);
        }
        let aside = self.room.process().fresh();
        fs::rename(&path, &aside).map_err(Error::io("rename", &path))?;
        Ok(Some(aside))
    }

    /// Removes a volume and its contents.
    ///
    /// # Errors
    /// Fails if the volume doesn't exist.
    pub fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        if !path.is_dir() {
            return Err(Error::missing("volume", name));
        }
        self.room.discard(&path)
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let problem = if name.is_empty() {
            "it is empty"
        } else if name.len() > 200 {
            "it is longer than 200 characters"
        } else if !name.as_bytes()[0].is_ascii_alphanumeric() || !name.bytes().all(valid) {
            "only letters, digits, _, . and - are allowed, and it begins with a letter or digit"
        } else {
            return Ok(self.room.root().join("volumes").join(name));
        };
        Err(Error::Invalid { what: "volume name", name: name.to_owned(), problem })
    }
}

fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("open", path)(error)),
    }
}

fn place(from: &Path, to: &Path) -> Result<bool> {
    rename_directory(CWD, from, CWD, to).map_err(Error::io("rename", to))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn volumes_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let volumes = Store::open(dir.path()).unwrap().volumes();
        let (path, new) = volumes
            .filled("data", |path| fs::write(path.join("x"), "1").map_err(Error::io("write", path)))
            .unwrap();
        assert!(new && path.join("x").exists());
        assert_eq!(volumes.named("data").unwrap(), (path.clone(), false));
        let (name, other) = volumes.anonymous().unwrap();
        assert_ne!(other, path);
        assert_eq!(volumes.list().unwrap(), [name, "data".to_owned()]);
        let failed = volumes.filled("bad", |_| Err(Error::missing("thing", "x")));
        assert!(failed.is_err());
        assert!(!volumes.list().unwrap().contains(&"bad".to_owned()));
        volumes.remove("data").unwrap();
        assert!(!path.exists());
        assert!(matches!(volumes.remove("data"), Err(Error::Missing { .. })));
        for name in ["", "..", ".x", "a/b", "a\0", &"a".repeat(201)] {
            assert!(matches!(volumes.named(name), Err(Error::Invalid { .. })), "{name}");
        }
    }
}
