//! The store of a root directory.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs::{self, File};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use kiln_oci::Digest;

use crate::builds::Builds;
use crate::cache::CacheIndex;
use crate::cache_mounts::CacheMounts;
use crate::content::Content;
use crate::error::{Error, Result};
use crate::file_digests::{self, Page};
use crate::images::Images;
use crate::index::Index;
use crate::layers::Layers;
use crate::lease::Lease;
use crate::listings::Listings;
use crate::lock::{KeyGuard, RootLock};
use crate::process::ProcessDir;
use crate::publication::Publication;
use crate::recipes::Recipes;
use crate::room::Room;
use crate::snapshotter::{self, Snapshotter, Snapshotting};
use crate::trash::Trash;
use crate::views::Views;
use crate::volumes::Volumes;
use crate::{layout, private, process, recovery, room};

/// The time that closing waits for background removals. Another process completes them.
const CLOSING: Duration = Duration::from_millis(50);

/// The size in bytes from which the index's log should be written back, about 60 pages.
const LONG_LOG: u64 = 1 << 18;

/// The options for opening a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// The maximal disk space in bytes; `None` for no cap.
    pub max_bytes: Option<u64>,
    /// The method for combining layers; `None` for overlayfs if it works, or else copies.
    pub snapshotter: Option<Snapshotter>,
}

/// A handle to the store of a root directory. Cloning is cheap. Any number of processes can open a
/// store.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// The state that all parts of an open store share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) trees: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) index: Index,
    pub(crate) process: ProcessDir,
    pub(crate) trash: Trash,
    pub(crate) room: Arc<Room>,
    /// The layers that are certainly in the process's implicit lease.
    pub(crate) held: Mutex<HashSet<String>>,
    /// The blobs that are certainly in the process's implicit lease.
    held_blobs: Mutex<HashSet<Digest>>,
    /// The layers whose trees this process has checked or created.
    pub(crate) checked: Mutex<HashSet<String>>,
    /// The times of the last uses of cache records that are not written to the index yet.
    pub(crate) used: Mutex<HashMap<Digest, i64>>,
    /// The pages of file digests that were used today and whose use is not written to the index
    /// yet.
    pub(crate) used_pages: Mutex<BTreeSet<Page>>,
    pub(crate) leases: AtomicI64,
    /// The state of deferred writes of the layout's index.
    pub(crate) publication: Publication,
    /// The requested snapshotter, if there is one.
    wanted_snapshotter: Option<Snapshotter>,
    /// The chosen snapshotter, once it was needed.
    snapshotting: OnceLock<Snapshotting>,
    pub(crate) views: Views,
    /// `true` if this process has placed files since its last sync.
    pub(crate) unsynced: AtomicBool,
}

impl Store {
    /// Opens the store at `root`, and creates it if it doesn't exist. Removes the files that dead
    /// processes left in `tmp/`.
    ///
    /// # Errors
    /// Fails if the directory can't be created or read, or if a newer version of kiln has written
    /// it.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, &StoreOptions::default())
    }

    /// Opens the store at `root` with options, like [`Store::open`].
    ///
    /// # Errors
    /// See [`Store::open`].
    pub fn open_with(root: &Path, options: &StoreOptions) -> Result<Self> {
        let root = std::path::absolute(root).map_err(Error::io("resolve", root))?;
        make_dirs(&root)?;
        let index = Index::open(&root)?;
        if let Some(cap) = options.max_bytes {
            index.bound_log(cap / 64)?;
        }
        let process = ProcessDir::create(&root)?;
        let inner = Inner {
            trees: root.join("snapshots"),
            blobs: root.join("content/blobs/sha256"),
            root,
            index,
            process,
            trash: Trash::default(),
            room: Arc::new(Room::new(options.max_bytes)),
            held: Mutex::default(),
            held_blobs: Mutex::default(),
            checked: Mutex::default(),
            used: Mutex::default(),
            used_pages: Mutex::default(),
            leases: AtomicI64::new(0),
            publication: Publication::default(),
            wanted_snapshotter: options.snapshotter,
            snapshotting: OnceLock::new(),
            views: Views::default(),
            unsynced: AtomicBool::new(false),
        };
        let inner = Arc::new(inner);
        recovery::recover(&inner)?;
        layout::create_mount_points(&inner)?;
        Ok(Self { inner })
    }

    /// Returns a handle to an open store.
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Records the user and group IDs with which the store's trees are written, or checks the
    /// recorded ones. A process that creates, reads or removes trees must call this first.
    ///
    /// # Errors
    /// Fails if other IDs are recorded, since the files' owners would be wrong.
    pub fn use_ids(&self, ids: &kiln_tree::Ids) -> Result<()> {
        layout::use_ids(&self.inner.root, &ids.on_disk())
    }

    /// Returns the path of the root directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Returns a tree of the mount points that every program needs: `/dev`, `/proc`, `/sys`, and
    /// `hosts` and `resolv.conf` in `/etc`. All entries are empty.
    pub fn mount_points(&self) -> PathBuf {
        self.inner.root.join(layout::MOUNT_POINTS)
    }

    /// Returns an empty directory on which programs' root file systems are mounted, in mount
    /// namespaces of their own.
    pub fn anchor(&self) -> PathBuf {
        self.inner.root.join(layout::ANCHOR)
    }

    /// Returns the snapshotter. The first call in a process determines it.
    ///
    /// # Errors
    /// Fails if overlayfs was requested but doesn't work.
    pub fn snapshotting(&self) -> Result<&Snapshotting> {
        self.inner.snapshotting()
    }

    /// Records that files mark deletions in some trees, which overlayfs can't read.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn note_file_marks(&self) -> Result<()> {
        snapshotter::note_file_marks(&self.inner.root)
    }

    /// Returns a handle to the blobs.
    pub fn content(&self) -> Content {
        Content { inner: self.inner.clone() }
    }

    /// Returns a handle to the layers.
    pub fn layers(&self) -> Layers {
        Layers { inner: self.inner.clone() }
    }

    /// Returns a handle to the images.
    pub fn images(&self) -> Images {
        Images { inner: self.inner.clone() }
    }

    /// Returns a handle to the cache records.
    pub fn cache(&self) -> CacheIndex {
        CacheIndex { inner: self.inner.clone() }
    }

    /// Returns a handle to the recipes of cache keys.
    pub fn recipes(&self) -> Recipes {
        Recipes { inner: self.inner.clone() }
    }

    /// Returns a handle to the listings of digested trees.
    pub fn listings(&self) -> Listings {
        Listings { inner: self.inner.clone() }
    }

    /// Returns a handle to the cache mounts.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts { inner: self.inner.clone() }
    }

    /// Returns a handle to the volumes.
    pub fn volumes(&self) -> Volumes {
        Volumes { inner: self.inner.clone() }
    }

    /// Returns a handle to the history of builds.
    pub fn builds(&self) -> Builds {
        Builds { inner: self.inner.clone() }
    }

    /// Returns a new lease. Its layers and blobs aren't collected until it is dropped.
    pub fn lease(&self) -> Result<Lease> {
        let number = self.inner.leases.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Lease { inner: self.inner.clone(), number })
    }

    /// Waits until `key` is free in this process and all others, and locks it. Blocks the thread.
    pub fn lock(&self, key: &str) -> Result<KeyGuard> {
        KeyGuard::acquire(&self.inner.keys(), key)
    }

    /// Locks `key` if it is free.
    pub fn try_lock(&self, key: &str) -> Result<Option<KeyGuard>> {
        KeyGuard::try_acquire(&self.inner.keys(), key)
    }

    /// Returns a new directory in this process's part of `tmp/`. It is removed with the process.
    pub fn temp_dir(&self) -> Result<PathBuf> {
        self.inner.process.fresh_dir()
    }

    /// Returns a file without a name, created in this process's part of `tmp/`. Its data is removed
    /// with its last descriptor.
    pub fn temp_file(&self) -> Result<File> {
        let path = self.inner.process.fresh();
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(file)
    }

    /// Returns `true` if this handle has stored files that may not be durable yet.
    pub fn has_unsynced(&self) -> bool {
        self.inner.unsynced.load(Ordering::Relaxed)
    }

    /// Returns `true` if the index's log is so long that reading it slows down the first process
    /// that opens the store. [`Store::sync`] shortens it.
    pub fn has_long_log(&self) -> bool {
        let log = fs::metadata(self.inner.root.join("kiln.db-wal"));
        log.is_ok_and(|log| log.len() > LONG_LOG)
    }

    /// Flushes everything that any process has stored so far to the disk, and records that it
    /// survives a power loss. Data that is never synced is removed when the machine has been
    /// restarted, even after an orderly shutdown. So this must be called after a build that stored
    /// data. It may take as long as the disk needs. Any process can call it, including one that
    /// outlives the build.
    pub fn sync(&self) -> Result<()> {
        recovery::sync(&self.inner)
    }

    /// Removes the files that ended processes had no time to remove. Creates no files.
    ///
    /// # Errors
    /// Fails if it can't be determined which processes have ended.
    pub fn clear_dead(&self) -> Result<()> {
        process::clear_dead(&self.inner.root, self.inner.process.name())
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }
}

impl Inner {
    pub(crate) fn snapshotting(&self) -> Result<&Snapshotting> {
        if let Some(known) = self.snapshotting.get() {
            return Ok(known);
        }
        // Two threads may do this at the same time, with the same result.
        let chosen = snapshotter::choose(self, self.wanted_snapshotter)?;
        Ok(self.snapshotting.get_or_init(|| chosen))
    }

    /// Returns the path of the file for locks on keys.
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub(crate) fn held_blobs(&self) -> MutexGuard<'_, HashSet<Digest>> {
        // The code that changes the set can't panic halfway.
        self.held_blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the root lock for placing files and naming them in the index.
    pub(crate) fn placing(&self) -> Result<RootLock> {
        self.unsynced.store(true, Ordering::Relaxed);
        RootLock::shared(&self.root)
    }

    /// Adds a layer to the process's implicit lease, within a transaction.
    pub(crate) fn hold_layer(
        &self,
        transaction: &rusqlite::Connection,
        layer: &str,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO lease_layers VALUES (?1, 0, ?2)";
        transaction.prepare_cached(sql)?.execute((self.process.name(), layer))?;
        Ok(())
    }

    /// Adds a blob to the process's implicit lease, within a transaction.
    pub(crate) fn hold_blob(
        &self,
        transaction: &rusqlite::Connection,
        digest: &Digest,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO lease_blobs VALUES (?1, 0, ?2)";
        transaction.prepare_cached(sql)?.execute((self.process.name(), digest.as_bytes()))?;
        Ok(())
    }

    /// Moves a path of the store aside, and removes it in the background.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let here = self.process.fresh();
        match fs::rename(path, &here) {
            Ok(()) => self.trash.add(here, None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename", path)(error)),
        }
        Ok(())
    }

    /// Writes the last uses of cache records and pages of file digests to the index.
    pub(crate) fn flush_used(&self) -> Result<()> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        let pages = std::mem::take(&mut *self.used_pages());
        if used.is_empty() && pages.is_empty() {
            return Ok(());
        }
        self.index.write("note uses", |transaction| {
            let sql = "UPDATE cache_records SET used_at = max(used_at, ?2) WHERE key = ?1";
            let mut statement = transaction.prepare_cached(sql)?;
            for (key, time) in &used {
                statement.execute((key.as_bytes(), time))?;
            }
            file_digests::note_uses(transaction, pages)
        })
    }

    fn close(&self) -> Result<()> {
        self.flush_used()?;
        self.index.write("end leases", |transaction| {
            let name = self.process.name();
            transaction
                .prepare_cached("DELETE FROM lease_layers WHERE process = ?1")?
                .execute([name])?;
            transaction
                .prepare_cached("DELETE FROM lease_blobs WHERE process = ?1")?
                .execute([name])?;
            Ok(())
        })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // If this fails, the next process that opens the store does it.
        if let Err(error) = self.close() {
            tracing::debug!(%error, "can't close the store");
            return;
        }
        // The store is closed, so these files are unused. If they stayed, the next process would
        // run a recovery.
        for path in self.process.leftovers() {
            self.trash.add(path, None);
        }
        if self.trash.finish(CLOSING) {
            let name = self.process.name();
            if self.room.is_in_use()
                && let Err(error) = self
                    .index
                    .write("end a reservation", |transaction| room::release(transaction, name))
            {
                tracing::debug!(%error, "can't end a reservation");
            }
            self.process.close();
        }
    }
}

fn make_dirs(root: &Path) -> Result<()> {
    if !root.is_dir() {
        let made = private::directories().recursive(true).create(root);
        made.map_err(Error::io("create", root))?;
    }
    private::protect(root)?;
    for name in ["snapshots", "tmp", "mounts", "volumes", "builds", layout::ANCHOR] {
        private::create_dir(&root.join(name))?;
    }
    layout::create(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_closed_leaves_nothing_of_the_process() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let directory = store.temp_dir().unwrap();
        fs::create_dir(directory.join("d")).unwrap();
        fs::write(directory.join("d/f"), "").unwrap();
        let tree = store.layers().begin().unwrap();
        fs::write(tree.work().join("f"), "").unwrap();
        let committed = store.layers().commit(tree, None).unwrap();
        drop(store);
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 0);
        let tree = root.path().join("snapshots").join(committed.as_str());
        assert_eq!(fs::read_dir(tree).unwrap().count(), 1, "the work directory isn't part of it");
    }

    #[test]
    fn a_long_log_becomes_a_short_one() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        assert!(!store.has_long_log());
        while !store.has_long_log() {
            store.cache().put(&Digest::of(b"key"), &[], "description").unwrap();
        }
        store.sync().unwrap();
        store.cache().put(&Digest::of(b"key"), &[], "description").unwrap();
        assert!(!store.has_long_log());
    }
}
