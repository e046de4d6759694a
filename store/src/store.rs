//! The store as a whole.

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

/// How long closing waits for removals in the background. Another process goes on with them.
const CLOSING: Duration = Duration::from_millis(50);

/// How long the index's log may become, in bytes, before somebody has to see to it: some 60 pages.
const LONG_LOG: u64 = 1 << 18;

/// How a store is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// The most that it may take on the disk, in bytes; `None` for no cap.
    pub max_bytes: Option<u64>,
    /// How layers are laid one on top of the other; `None` for overlayfs where it works, and copies
    /// elsewhere.
    pub snapshotter: Option<Snapshotter>,
}

/// The store of a root directory. Cheap to clone; any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What all parts of an open store share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) trees: PathBuf,
    pub(crate) blobs: PathBuf,
    pub(crate) index: Index,
    pub(crate) process: ProcessDir,
    pub(crate) trash: Trash,
    pub(crate) room: Arc<Room>,
    /// Layers that the process's implicit lease holds for certain.
    pub(crate) held: Mutex<HashSet<String>>,
    /// Blobs that it holds for certain.
    held_blobs: Mutex<HashSet<Digest>>,
    /// Layers whose trees were looked at, or made, by this process.
    pub(crate) checked: Mutex<HashSet<String>>,
    /// When cache records were last used, not yet written to the index.
    pub(crate) used: Mutex<HashMap<Digest, i64>>,
    /// Pages of file digests that were of use today, not yet written to the index.
    pub(crate) used_pages: Mutex<BTreeSet<Page>>,
    pub(crate) leases: AtomicI64,
    /// When the index of the layout is written.
    pub(crate) publication: Publication,
    /// The snapshotter that was asked for.
    wanted_snapshotter: Option<Snapshotter>,
    /// The snapshotter, once it was needed.
    snapshotting: OnceLock<Snapshotting>,
    pub(crate) views: Views,
    /// Whether files were placed since the last sync by this process.
    pub(crate) unsynced: AtomicBool,
}

impl Store {
    /// Opens the store at `root`, makes it where there is none, and sweeps up what dead processes
    /// left in `tmp/`.
    ///
    /// # Errors
    /// Fails where the directory can't be made or read, or was written by a newer kiln.
    pub fn open(root: &Path) -> Result<Self> {
        Self::open_with(root, &StoreOptions::default())
    }

    /// Opens the store at `root`: see [`Store::open`].
    ///
    /// # Errors
    /// As there.
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

    /// Returns a handle of a store that is open.
    pub(crate) fn of(inner: Arc<Inner>) -> Self {
        Self { inner }
    }

    /// Notes which user and group ids the store's trees are written with, or finds that it has
    /// been noted before. To be called by processes that make, read or remove trees.
    ///
    /// # Errors
    /// Fails where they are written with others: their owners would be mistaken.
    pub fn use_ids(&self, ids: &kiln_tree::Ids) -> Result<()> {
        layout::use_ids(&self.inner.root, &ids.on_disk())
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Returns a tree of the directories and files that programs get mounted in any case: `/dev`,
    /// `/proc`, `/sys`, and in `/etc` `hosts` and `resolv.conf`. Everything is empty.
    pub fn mount_points(&self) -> PathBuf {
        self.inner.root.join(layout::MOUNT_POINTS)
    }

    /// Returns a directory that stays empty, for programs to have their root file systems mounted on
    /// where nobody else sees it.
    pub fn anchor(&self) -> PathBuf {
        self.inner.root.join(layout::ANCHOR)
    }

    /// Returns the snapshotter. It is found out, once in a process, when it is first needed.
    ///
    /// # Errors
    /// Fails where overlayfs was asked for and can't be had.
    pub fn snapshotting(&self) -> Result<&Snapshotting> {
        self.inner.snapshotting()
    }

    /// Notes that there are trees in which deletions are marked by files, which overlayfs can't read.
    ///
    /// # Errors
    /// Fails where the store can't be written.
    pub fn note_file_marks(&self) -> Result<()> {
        snapshotter::note_file_marks(&self.inner.root)
    }

    /// Returns the blobs.
    pub fn content(&self) -> Content {
        Content { inner: self.inner.clone() }
    }

    /// Returns the layers.
    pub fn layers(&self) -> Layers {
        Layers { inner: self.inner.clone() }
    }

    /// Returns the images.
    pub fn images(&self) -> Images {
        Images { inner: self.inner.clone() }
    }

    /// Returns the cache records.
    pub fn cache(&self) -> CacheIndex {
        CacheIndex { inner: self.inner.clone() }
    }

    /// Returns what cache keys were made of.
    pub fn recipes(&self) -> Recipes {
        Recipes { inner: self.inner.clone() }
    }

    /// Returns the listings of what was digested.
    pub fn listings(&self) -> Listings {
        Listings { inner: self.inner.clone() }
    }

    /// Returns the cache mounts.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts { inner: self.inner.clone() }
    }

    /// Returns the volumes.
    pub fn volumes(&self) -> Volumes {
        Volumes { inner: self.inner.clone() }
    }

    /// Returns the history of builds.
    pub fn builds(&self) -> Builds {
        Builds { inner: self.inner.clone() }
    }

    /// Returns a new lease: what is added to it isn't collected while it lives.
    pub fn lease(&self) -> Result<Lease> {
        let number = self.inner.leases.fetch_add(1, Ordering::Relaxed) + 1;
        Ok(Lease { inner: self.inner.clone(), number })
    }

    /// Waits until nobody else, in this process or another, holds `key`. Blocks the thread.
    pub fn lock(&self, key: &str) -> Result<KeyGuard> {
        KeyGuard::acquire(&self.inner.keys(), key)
    }

    /// Takes `key` if nobody holds it.
    pub fn try_lock(&self, key: &str) -> Result<Option<KeyGuard>> {
        KeyGuard::try_acquire(&self.inner.keys(), key)
    }

    /// Returns a fresh directory in this process's part of `tmp/`; it goes with the process.
    pub fn temp_dir(&self) -> Result<PathBuf> {
        self.inner.process.fresh_dir()
    }

    /// Returns a file in this process's part of `tmp/` that has no name any more: what it holds goes
    /// with its last descriptor.
    pub fn temp_file(&self) -> Result<File> {
        let path = self.inner.process.fresh();
        let mut options = File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        let file = options.open(&path).map_err(Error::io("create", &path))?;
        fs::remove_file(&path).map_err(Error::io("remove", &path))?;
        Ok(file)
    }

    /// Tells whether this handle has stored files that are not known to be durable yet.
    pub fn has_unsynced(&self) -> bool {
        self.inner.unsynced.load(Ordering::Relaxed)
    }

    /// Tells whether the index's log is so long that reading it, which whoever opens the store first
    /// has to do, takes its time. [`Store::sync`] makes it short.
    pub fn has_long_log(&self) -> bool {
        let log = fs::metadata(self.inner.root.join("kiln.db-wal"));
        log.is_ok_and(|log| log.len() > LONG_LOG)
    }

    /// Flushes everything stored so far, by anybody, to the disk, and notes that it survives a power
    /// loss. What is stored and never synced is dropped when the machine has been started anew,
    /// however it went down. So somebody has to call this after a build that stored something; it may
    /// take as long as the disk does, and any process can do it, one that outlives the build too.
    pub fn sync(&self) -> Result<()> {
        recovery::sync(&self.inner)
    }

    /// Removes what processes that have ended had no time to remove. No file is made for it.
    ///
    /// # Errors
    /// Fails where it can't be told which have ended.
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
        // Two threads may try at once, and find the same.
        let chosen = snapshotter::choose(self, self.wanted_snapshotter)?;
        Ok(self.snapshotting.get_or_init(|| chosen))
    }

    /// Returns the file that keys are locked in.
    pub(crate) fn keys(&self) -> PathBuf {
        self.root.join("keys")
    }

    pub(crate) fn held_blobs(&self) -> MutexGuard<'_, HashSet<Digest>> {
        // Nothing that changes it panics half way.
        self.held_blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the root lock to place files and name them in the index.
    pub(crate) fn placing(&self) -> Result<RootLock> {
        self.unsynced.store(true, Ordering::Relaxed);
        RootLock::shared(&self.root)
    }

    /// Has the process's implicit lease hold a layer, inside of a transaction.
    pub(crate) fn hold_layer(
        &self,
        transaction: &rusqlite::Connection,
        layer: &str,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO lease_layers VALUES (?1, 0, ?2)";
        transaction.prepare_cached(sql)?.execute((self.process.name(), layer))?;
        Ok(())
    }

    /// Has the process's implicit lease hold a blob, inside of a transaction.
    pub(crate) fn hold_blob(
        &self,
        transaction: &rusqlite::Connection,
        digest: &Digest,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO lease_blobs VALUES (?1, 0, ?2)";
        transaction.prepare_cached(sql)?.execute((self.process.name(), digest.as_bytes()))?;
        Ok(())
    }

    /// Has a path of the store's removed in the background, after taking its name away.
    pub(crate) fn discard(&self, path: &Path) -> Result<()> {
        let here = self.process.fresh();
        match fs::rename(path, &here) {
            Ok(()) => self.trash.add(here, None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("rename", path)(error)),
        }
        Ok(())
    }

    /// Writes to the index when cache records and pages of file digests were last used.
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
        // What fails here is done by the next process that opens the store.
        if let Err(error) = self.close() {
            tracing::debug!(%error, "can't close the store");
            return;
        }
        // Nothing holds the store any more, so nothing needs what lies here. Left there, it would
        // have the next process look for more that is amiss.
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
