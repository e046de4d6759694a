//! Cache mounts: directories that outlive builds.
//!
//! ```text
//! mounts/DIGEST OF ID/id      the ID as text, for people
//! mounts/DIGEST OF ID/N/data  a directory; there are several where private users met
//! mounts/DIGEST OF ID/N/lock  held shared or exclusively by who uses it
//! mounts/DIGEST OF ID/N/ready there once it has been filled
//! ```
//!
//! A directory that isn't ready is held exclusively whatever its sharing, until its first user has
//! filled it; where that user dies, the next begins anew.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_tree::Dir;

use crate::error::{Error, Result};
use crate::lock;
use crate::pending::Claiming;
use crate::places;
use crate::remove::remove_tree;
use crate::room::Claim;
use crate::store::Inner;

/// Between two attempts to take a directory that is being filled.
const RETRY: Duration = Duration::from_millis(2);
/// How long somebody may take to share what is filled.
const PATIENCE: Duration = Duration::from_millis(100);

/// What the paths of cache mounts begin with, below the root.
pub(crate) const PREFIX: &str = "mounts/";

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Anybody.
    Shared,
    /// Nobody: a second user gets another directory.
    Private,
    /// Nobody: a second user waits.
    Locked,
}

/// The cache mounts.
#[derive(Clone, Debug)]
pub struct CacheMounts {
    pub(crate) inner: Arc<Inner>,
}

/// A cache mount in use.
#[derive(Debug)]
pub struct CacheMountGuard {
    inner: Arc<Inner>,
    claim: Arc<Claim>,
    /// What it took when it was taken, where somebody needs to know.
    base: u64,
    dir: PathBuf,
    data: PathBuf,
    sharing: Sharing,
    filled: bool,
    lock: File,
}

impl CacheMounts {
    /// Takes the directory of cache mount `id`, made empty where there is none. Blocks the thread
    /// where it is locked. The flag tells whether the directory is new.
    ///
    /// Who gets a new directory fills it and then calls [`CacheMountGuard::ready`]; users that
    /// share it wait for that.
    pub fn acquire(&self, id: &str, sharing: Sharing) -> Result<(CacheMountGuard, bool)> {
        loop {
            match self.acquire_once(id, sharing) {
                // It was given up just now; a new one takes its place.
                Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                acquired => return acquired,
            }
        }
    }

    fn acquire_once(&self, id: &str, sharing: Sharing) -> Result<(CacheMountGuard, bool)> {
        if !self.inner.root.is_dir() {
            return Err(Error::missing("store", self.inner.root.display()));
        }
        let mount = self.inner.root.join("mounts").join(Digest::of(id.as_bytes()).hex());
        if !mount.is_dir() {
            make(&mount)?;
            let text = mount.join("id");
            fs::write(&text, id).map_err(Error::io("write", &text))?;
        }
        let mut number = 0_u32;
        loop {
            let dir = mount.join(number.to_string());
            make(&dir)?;
            if let Some(mut guard) = take(&self.inner, &dir, sharing)? {
                guard.base = places::base(&self.inner, &dir)?;
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
    /// Tells whether there is something of cache mount `id`.
    pub fn is_known(&self, id: &str) -> bool {
        self.dirs(id).any(|dir| dir.join("ready").exists())
    }

    /// Returns the keys of all cache mounts.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mounts = self.inner.root.join("mounts");
        let mut ids = Vec::new();
        for entry in fs::read_dir(&mounts).map_err(Error::io("read", &mounts))? {
            let entry = entry.map_err(Error::io("read", &mounts))?;
            // One that was never used to the end has none.
            ids.extend(fs::read_to_string(entry.path().join("id")).ok());
        }
        ids.sort_unstable();
        Ok(ids)
    }

    /// Takes a directory of cache mount `id` to read what is in it, beside those who share it; `None`
    /// where there is none, or all are held by others alone.
    pub fn read(&self, id: &str) -> Result<Option<CacheMountGuard>> {
        for dir in self.dirs(id).filter(|dir| dir.join("ready").exists()) {
            let path = dir.join("lock");
            let file = lock::open(&path)?;
            if lock::try_lock_shared(&file, &path)? {
                let (data, sharing) = (dir.join("data"), Sharing::Shared);
                let (inner, claim) = (self.inner.clone(), Arc::new(Claim::new(&self.inner.room)));
                let (base, filled, lock) = (0, true, file);
                return Ok(Some(CacheMountGuard {
                    inner,
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

    /// Returns the directories of a cache mount, in their order.
    fn dirs(&self, id: &str) -> impl Iterator<Item = PathBuf> {
        let mount = self.inner.root.join("mounts").join(Digest::of(id.as_bytes()).hex());
        (0_u32..).map(move |number| mount.join(number.to_string())).take_while(|dir| dir.is_dir())
    }
}

impl CacheMountGuard {
    /// Gives up filling a new directory: it stays new, and what is in it goes.
    pub fn abandon(mut self) -> Result<()> {
        self.clear()?;
        // It isn't marked when it is dropped.
        self.filled = true;
        Ok(())
    }

    /// Returns the directory.
    pub fn path(&self) -> &Path {
        &self.data
    }

    /// Says that a new directory has been filled: from now on it is not new any more, and those who
    /// share it can use it. Implied when the guard is dropped.
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

    /// Returns the directory with all that belongs to it.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns what it took when it was taken.
    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Returns the claim on what it has grown by.
    pub(crate) fn claim(&self) -> &Arc<Claim> {
        &self.claim
    }

    /// Opens the directory to fill it: what copies to it claims room first.
    pub fn open(&self) -> Result<Dir> {
        let dir = Dir::open(&self.data)?;
        if self.inner.room.cap().is_none() {
            return Ok(dir);
        }
        Ok(dir.with_room(Arc::new(Claiming::new(&self.inner, &self.claim))))
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
        if let Err(error) = places::release(&self.inner, &self.dir, &self.claim) {
            tracing::debug!(%error, "can't note the use of a cache mount");
        }
    }
}

/// Takes one directory, or none where a private user has to go on to the next.
fn take(inner: &Arc<Inner>, dir: &Path, sharing: Sharing) -> Result<Option<CacheMountGuard>> {
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
                // Not waited for by the kernel's means: who has filled it goes on holding it, shared.
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
        // Whoever had it may have given it up.
        if !lock::is_at(&file, &path)? {
            continue;
        }
        // Somebody may have filled it while this one waited for an exclusive lock.
        let now_filled = dir.join("ready").exists();
        if filled == now_filled || sharing != Sharing::Shared {
            let (dir, data) = (dir.to_owned(), dir.join("data"));
            return Ok(Some(CacheMountGuard {
                inner: inner.clone(),
                claim: Arc::new(Claim::new(&inner.room)),
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

/// Returns what the directory of a cache mount goes by for people.
pub(crate) fn short_id(path: &str) -> String {
    let (mount, number) =
        path.strip_prefix(PREFIX).and_then(|path| path.split_once('/')).unwrap_or((path, "0"));
    let mount = mount.get(..12).unwrap_or(mount);
    if number == "0" { mount.to_owned() } else { format!("{mount}-{number}") }
}

/// Returns the ID that a cache mount is asked for by.
pub(crate) fn id_of(inner: &Inner, path: &str) -> String {
    let mount = Path::new(path).parent().unwrap_or(Path::new(PREFIX));
    fs::read_to_string(inner.root.join(mount).join("id")).unwrap_or_default()
}

/// Tells whether somebody uses the directory of a cache mount.
pub(crate) fn is_used(inner: &Inner, path: &str) -> Result<bool> {
    let path = inner.root.join(path).join("lock");
    match lock::open_existing(&path) {
        Ok(file) => Ok(!lock::try_lock(&file, &path)?),
        Err(_) => Ok(false),
    }
}

/// Removes the directory of a cache mount that nobody uses, and returns how many bytes that freed;
/// `None` where somebody does.
pub(crate) fn remove(inner: &Inner, path: &str) -> Result<Option<u64>> {
    let dir = inner.root.join(path);
    let lock_path = dir.join("lock");
    let Ok(file) = lock::open_existing(&lock_path) else { return Ok(None) };
    if !lock::try_lock(&file, &lock_path)? || !lock::is_at(&file, &lock_path)? {
        return Ok(None);
    }
    let aside = inner.process.fresh();
    fs::rename(&dir, &aside).map_err(Error::io("rename", &dir))?;
    drop(file);
    if let Some(mount) = dir.parent() {
        // Only where it was the last one: another has a name in it.
        let others = places::directories(mount)?;
        if others.is_empty() {
            let _ = fs::remove_file(mount.join("id"));
            let _ = fs::remove_dir(mount);
        }
    }
    places::forget(inner, path)?;
    remove_tree(&aside).map(Some).map_err(Error::io("remove", &aside))
}

/// Takes a lock shared. Who has filled the directory has said so a moment before sharing it, so this
/// is tried for a while before the holder is taken for somebody who doesn't share.
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
            // Each keeps what it has until all have it.
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
