//! Cache mounts: directories that are kept from one build to the next.
//!
//! ```text
//! mounts/DIGEST OF ID/id      the ID as text, for people
//! mounts/DIGEST OF ID/N/data  a directory; private users at the same time have one each
//! mounts/DIGEST OF ID/N/lock  held shared or exclusively by the users
//! mounts/DIGEST OF ID/N/ready exists once the directory is initialized
//! ```
//!
//! Until its first user has initialized a directory, that user holds it exclusively, whatever the
//! sharing mode. If that user dies, the next one starts again.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_tree::Dir;

use crate::error::{Error, Result};
use crate::room::cap::Claim;
use crate::room::claiming::Claiming;
use crate::room::remove::remove_tree;
use crate::room::{Room, lock, places};

/// The interval between attempts to lock a directory that is being initialized.
const RETRY: Duration = Duration::from_millis(2);
/// The time that a user may take to share a directory after initializing it.
const PATIENCE: Duration = Duration::from_millis(100);

/// The prefix of the paths of cache mounts, relative to the store's root.
pub(crate) const PREFIX: &str = "mounts/";

/// The beginning of the IDs of directories that clients have sent. No cache mount of a step may have
/// such an ID: it would show one client's files to another.
pub const CLIENT_DIRECTORY: &str = "client directory ";

/// The sharing mode of a cache mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All users share the directory.
    Shared,
    /// A second user at the same time gets another directory.
    Private,
    /// A second user waits until the first has finished.
    Locked,
}

/// The cache mounts of a store.
#[derive(Clone, Debug)]
pub struct CacheMounts {
    room: Arc<Room>,
}

/// A cache mount in use. Dropping it releases the directory.
#[derive(Debug)]
pub struct CacheMountGuard {
    room: Arc<Room>,
    claim: Arc<Claim>,
    /// The disk space in bytes when the directory was acquired, if the store has a cap.
    base: u64,
    dir: PathBuf,
    data: PathBuf,
    sharing: Sharing,
    filled: bool,
    lock: File,
}

impl CacheMounts {
    /// Returns a handle to the cache mounts of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone() }
    }

    /// Acquires the directory of cache mount `id`, and creates it empty if it doesn't exist. Blocks
    /// the thread while the directory is locked. The flag is `true` if the directory is new.
    ///
    /// The user of a new directory initializes it and then calls [`CacheMountGuard::ready`]. Users
    /// that share it wait for this.
    pub fn acquire(&self, id: &str, sharing: Sharing) -> Result<(CacheMountGuard, bool)> {
        loop {
            match self.acquire_once(id, sharing) {
                // The directory was just removed, so a new one takes its place.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                acquired => return acquired,
            }
        }
    }

    fn acquire_once(&self, id: &str, sharing: Sharing) -> Result<(CacheMountGuard, bool)> {
        if !self.room.root().is_dir() {
            return Err(Error::missing("store", self.room.root().display()));
        }
        let mount = self.room.root().join("mounts").join(Digest::of(id.as_bytes()).hex());
        if !mount.is_dir() {
            make(&mount)?;
            let text = mount.join("id");
            fs::write(&text, id).map_err(Error::io("write", &text))?;
        }
        let mut number = 0_u32;
        loop {
            let dir = mount.join(number.to_string());
            make(&dir)?;
            if let Some(mut guard) = take(&self.room, &dir, sharing)? {
                guard.base = places::base(&self.room, &dir)?;
                let new = !guard.filled;
                if new {
                    guard.clear()?;
                }
                return Ok((guard, new));
            }
            number += 1;
        }
    }
}

impl CacheMounts {
    /// Returns `true` if an initialized directory of cache mount `id` exists.
    pub fn is_known(&self, id: &str) -> bool {
        self.dirs(id).any(|dir| dir.join("ready").exists())
    }

    /// Returns the IDs of all cache mounts.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mounts = self.room.root().join("mounts");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&mounts).map_err(Error::io("read", &mounts))? {
            let entry = entry.map_err(Error::io("read", &mounts))?;
            // A cache mount whose creation was interrupted has no ID.
            ids.extend(fs::read_to_string(entry.path().join("id")).ok());
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Acquires a directory of cache mount `id` for reading, beside other users that share it.
    /// Returns `None` if there is no directory, or if all are locked exclusively.
    pub fn read(&self, id: &str) -> Result<Option<CacheMountGuard>> {
        for dir in self.dirs(id).filter(|dir| dir.join("ready").exists()) {
            let path = dir.join("lock");
            let file = lock::open(&path)?;
            if lock::try_lock_shared(&file, &path)? {
                let (data, sharing) = (dir.join("data"), Sharing::Shared);
                let (room, claim) = (self.room.clone(), Arc::new(self.room.claim()));
                let (base, filled, lock) = (0, true, file);
                return Ok(Some(CacheMountGuard {
                    room,
                    claim,
                    base,
                    dir,
                    data,
                    sharing,
                    filled,
                    lock,
                }));
            }
        }
        Ok(None)
    }

    /// Makes the directories of cache mount `id` new again, except those that are in use. Includes
    /// the mounts that begin with files (`id:DIGEST`) if `has_input` is `true`.
    pub fn reset(&self, id: &str, has_input: bool) -> Result<()> {
        let prefix = format!("{id}:");
        let matches = |known: &String| known == id || has_input && known.starts_with(&prefix);
        for id in self.ids()?.iter().filter(|known| matches(known)) {
            for dir in self.dirs(id) {
                let path = dir.join("lock");
                let file = lock::open(&path)?;
                if !lock::try_lock(&file, &path)? {
                    continue;
                }
                let mark = dir.join("ready");
                match fs::remove_file(&mark) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        return Err(Error::io("remove", &mark)(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Returns an iterator over the directories of a cache mount, in order.
    fn dirs(&self, id: &str) -> impl Iterator<Item = PathBuf> {
        let mount = self.room.root().join("mounts").join(Digest::of(id.as_bytes()).hex());
        (0_u32..).map(move |number| mount.join(number.to_string())).take_while(|dir| dir.is_dir())
    }
}

impl CacheMountGuard {
    /// Gives up initializing a new directory. It stays new, and its contents are removed.
    pub fn abandon(mut self) -> Result<()> {
        self.clear()?;
        // This prevents `drop` from marking the directory as ready.
        self.filled = true;
        Ok(())
    }

    /// Returns the path of the directory's contents.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Marks a new directory as initialized, so that it is no longer new and users that share it
    /// can proceed. Dropping the guard does the same.
    pub fn ready(&mut self) -> Result<()> {
        if self.filled {
            return Ok(());
        }
        let mark = self.dir.join("ready");
        fs::write(&mark, "").map_err(Error::io("write", &mark))?;
        self.filled = true;
        if self.sharing == Sharing::Shared {
            lock::wait(&self.lock, File::lock_shared).map_err(Error::io("lock", &self.dir))?;
        }
        Ok(())
    }

    /// Returns the directory that contains the contents, the lock and the mark.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the disk space in bytes when the directory was acquired.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Returns the claim on the directory's growth.
    pub(crate) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// Opens the directory for initialization. Copies into it claim room first.
    pub fn open(&self) -> Result<Dir> {
        let dir = Dir::open(&self.data)?;
        if self.room.cap().bytes().is_none() {
            return Ok(dir);
        }
        Ok(dir.with_room(Arc::new(Claiming::new(&self.room, &self.claim))))
    }

    fn clear(&self) -> Result<()> {
        remove_tree(&self.data).map_err(Error::io("remove", &self.data))?;
        make(&self.data)?;
        fs::set_permissions(&self.data, fs::Permissions::from_mode(0o755))
            .map_err(Error::io("change the mode of", &self.data))
    }
}

impl Drop for CacheMountGuard {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Err(error) = self.ready()
        {
            tracing::debug!(%error, "can't keep a cache mount");
        }
        if let Err(error) = places::release(&self.room, &self.dir, &self.claim) {
            tracing::debug!(%error, "can't note the use of a cache mount");
        }
    }
}

/// Acquires a directory. Returns `None` if the user must try the next one.
fn take(room: &Arc<Room>, dir: &Path, sharing: Sharing) -> Result<Option<CacheMountGuard>> {
    let path = dir.join("lock");
    let failed = |error| Error::io("lock", dir)(error);
    loop {
        let file = lock::open(&path)?;
        let filled = dir.join("ready").exists();
        match (sharing, filled) {
            (Sharing::Private, _) => {
                if !lock::try_lock(&file, &path)? {
                    return Ok(None);
                }
            }
            (Sharing::Locked, _) => lock::wait(&file, File::lock).map_err(failed)?,
            (Sharing::Shared, false) => {
                // The kernel's wait can't be used, because the user that initializes the directory
                // keeps it locked shared.
                if !lock::try_lock(&file, &path)? {
                    std::thread::sleep(RETRY);
                    continue;
                }
            }
            (Sharing::Shared, true) => {
                if !try_share(&file, &path)? {
                    return Ok(None);
                }
            }
        }
        // The former user may have removed the directory.
        if !lock::is_at(&file, &path)? {
            continue;
        }
        // Another user may have initialized it during the wait for an exclusive lock.
        let now_filled = dir.join("ready").exists();
        if filled == now_filled || sharing != Sharing::Shared {
            let (dir, data) = (dir.to_owned(), dir.join("data"));
            return Ok(Some(CacheMountGuard {
                room: room.clone(),
                claim: Arc::new(room.claim()),
                base: 0,
                dir,
                data,
                sharing,
                filled: now_filled,
                lock: file,
            }));
        }
    }
}

/// Returns the short name of a cache mount's directory for display.
pub(crate) fn short_id(path: &str) -> String {
    let (mount, number) =
        path.strip_prefix(PREFIX).and_then(|path| path.split_once('/')).unwrap_or((path, "0"));
    let mount = mount.get(..12).unwrap_or(mount);
    if number == "0" { mount.to_owned() } else { format!("{mount}-{number}") }
}

/// Returns the ID of a cache mount, given the path of a directory.
pub(crate) fn id_of(room: &Room, path: &str) -> String {
    let mount = Path::new(path).parent().unwrap_or(Path::new(PREFIX));
    fs::read_to_string(room.root().join(mount).join("id")).unwrap_or_default()
}

/// Returns `true` if the directory of a cache mount is in use.
pub(crate) fn is_used(room: &Room, path: &str) -> Result<bool> {
    let path = room.root().join(path).join("lock");
    match lock::open_existing(&path) {
        Ok(file) => Ok(!lock::try_lock(&file, &path)?),
        Err(_) => Ok(false),
    }
}

/// Removes the directory of an unused cache mount. Returns the number of bytes freed, or `None` if
/// it is in use.
pub(crate) fn remove(room: &Room, path: &str) -> Result<Option<u64>> {
    let dir = room.root().join(path);
    let lock_path = dir.join("lock");
    let Ok(file) = lock::open_existing(&lock_path) else { return Ok(None) };
    if !lock::try_lock(&file, &lock_path)? || !lock::is_at(&file, &lock_path)? {
        return Ok(None);
    }
    let aside = room.process().fresh();
    fs::rename(&dir, &aside).map_err(Error::io("rename", &dir))?;
    drop(file);
    if let Some(mount) = dir.parent() {
        // Other directories of the mount still need its ID.
        let others = places::directories(mount)?;
        if others.is_empty() {
            let _ = fs::remove_file(mount.join("id"));
            let _ = fs::remove_dir(mount);
        }
    }
    places::forget(room, path)?;
    remove_tree(&aside).map(Some).map_err(Error::io("remove", &aside))
}

/// Takes a shared lock. A user that initialized the directory marks it as ready a moment before it
/// shares the lock. So this retries for a while before it assumes that the holder doesn't share.
fn try_share(file: &File, path: &Path) -> Result<bool> {
    let deadline = Instant::now() + PATIENCE;
    while !lock::try_lock_shared(file, path)? {
        if Instant::now() >= deadline {
            return Ok(false);
        }
        std::thread::sleep(RETRY);
    }
    Ok(true)
}

fn make(dir: &Path) -> Result<()> {
    match fs::create_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        result => result.map_err(Error::io("create", dir)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::Store;

    fn mounts() -> (tempfile::TempDir, CacheMounts) {
        let dir = tempfile::tempdir().unwrap();
        let mounts = Store::open(dir.path()).unwrap().cache_mounts();
        (dir, mounts)
    }

    #[test]
    fn first_users_at_the_same_moment_share_one_directory() {
        let (_dir, mounts) = mounts();
        for round in 0..50 {
            let take = || {
                let (mut guard, new) =
                    mounts.acquire(&format!("{round}"), Sharing::Shared).unwrap();
                if new {
                    guard.ready().unwrap();
                }
                guard
            };
            // Each thread keeps its guard until all have one.
            let guards: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(guards.iter().all(|guard| guard.path() == guards[0].path()), "{guards:?}");
        }
    }

    #[test]
    fn content_outlives_its_users() {
        let (_dir, mounts) = mounts();
        let (guard, new) = mounts.acquire("../id", Sharing::Locked).unwrap();
        assert!(new);
        fs::write(guard.path().join("x"), "1").unwrap();
        drop(guard);
        let (guard, new) = mounts.acquire("../id", Sharing::Shared).unwrap();
        assert!(!new && guard.path().join("x").exists());
        let (other, new) = mounts.acquire("other", Sharing::Shared).unwrap();
        assert!(new && other.path() != guard.path());
    }

    #[test]
    fn sharing_decides_who_meets() {
        let (_dir, mounts) = mounts();
        let (mut first, _) = mounts.acquire("s", Sharing::Shared).unwrap();
        first.ready().unwrap();
        let (second, new) = mounts.acquire("s", Sharing::Shared).unwrap();
        assert!(!new && second.path() == first.path());
        let (first, _) = mounts.acquire("p", Sharing::Private).unwrap();
        let (second, new) = mounts.acquire("p", Sharing::Private).unwrap();
        assert!(new && second.path() != first.path());
        let path = first.path().to_owned();
        drop(first);
        assert_eq!(mounts.acquire("p", Sharing::Private).unwrap().0.path(), path);
    }

    #[test]
    fn locked_users_wait() {
        let (_dir, mounts) = mounts();
        let (guard, _) = mounts.acquire("l", Sharing::Locked).unwrap();
        let (sender, receiver) = channel();
        let thread = std::thread::spawn(move || {
            sender.send(mounts.acquire("l", Sharing::Locked).unwrap().1).unwrap();
        });
        assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err());
        drop(guard);
        assert!(!receiver.recv_timeout(Duration::from_secs(10)).unwrap());
        thread.join().unwrap();
    }

    #[test]
    fn what_is_there_can_be_read_beside_those_who_share_it() {
        let (_dir, mounts) = mounts();
        assert!(!mounts.is_known("a") && mounts.read("a").unwrap().is_none());
        let (guard, _) = mounts.acquire("a", Sharing::Locked).unwrap();
        fs::write(guard.path().join("x"), "").unwrap();
        assert!(!mounts.is_known("a"), "it is being filled");
        drop(guard);
        assert!(mounts.is_known("a"));
        assert_eq!(mounts.ids().unwrap(), ["a"]);
        let (locked, _) = mounts.acquire("a", Sharing::Locked).unwrap();
        assert!(mounts.read("a").unwrap().is_none());
        drop(locked);
        let (_shared, _) = mounts.acquire("a", Sharing::Shared).unwrap();
        let guard = mounts.read("a").unwrap().unwrap();
        assert!(guard.path().join("x").exists());
        let (new, is_new) = mounts.acquire("b", Sharing::Shared).unwrap();
        fs::write(new.path().join("half"), "").unwrap();
        new.abandon().unwrap();
        let (again, is_new_again) = mounts.acquire("b", Sharing::Shared).unwrap();
        assert!(is_new && is_new_again && !again.path().join("half").exists());
    }

    #[test]
    fn what_was_not_filled_is_new_again() {
        let (_dir, mounts) = mounts();
        let (guard, _) = mounts.acquire("k", Sharing::Shared).unwrap();
        fs::write(guard.path().join("half"), "").unwrap();
        let dir = guard.dir.clone();
        drop(guard);
        fs::remove_file(dir.join("ready")).unwrap();
        let (guard, new) = mounts.acquire("k", Sharing::Shared).unwrap();
        assert!(new && !guard.path().join("half").exists());
    }
}
