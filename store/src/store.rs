//! The handle to a store, over all floors.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::builds::Builds;
use crate::cache::listings::Listings;
use crate::cache::mounts::CacheMounts;
use crate::cache::recipes::Recipes;
use crate::cache::{CacheIndex, Uses};
use crate::content::Content;
use crate::content::images::Images;
use crate::content::volumes::Volumes;
use crate::error::{Error, Result};
use crate::layers::Layers;
use crate::layers::integrity::Sealer;
use crate::layers::lease::Lease;
use crate::layers::snapshotter::{self, Snapshotter, Snapshotting};
use crate::room::lock::KeyGuard;
use crate::room::{Room, layout, places, process};
use crate::upkeep::check::Damage;
use crate::upkeep::gc::Collected;
use crate::upkeep::prune::{PruneOptions, Pruned};
use crate::upkeep::usage::DiskUsage;
use crate::upkeep::watch::{Watch, WatchedDirectory};
use crate::upkeep::{StoreKeeper, Upkeep, recovery};

/// The options for opening a store.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreOptions {
    /// The maximal disk space in bytes; `None` for no cap.
    pub max_bytes: Option<u64>,
    /// The method for combining layers; `None` for overlayfs if it works, or else copies.
    pub snapshotter: Option<Snapshotter>,
}

/// A handle to the store of a root directory. Cloning is cheap. Any number of processes can open a
/// store. It is closed when the last handle to it or to a part of it is dropped.
#[derive(Clone, Debug)]
pub struct Store {
    room: Arc<Room>,
    images: Images,
    layers: Layers,
    cache: CacheIndex,
    upkeep: Upkeep,
}

/// The store's place on the disk, and the processes that use it.
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
        let uses = Arc::new(Uses::default());
        let keeper = Box::new(StoreKeeper::new(&uses));
        let room = Arc::new(Room::open(root, options.max_bytes, keeper)?);
        recovery::recover(&room)?;
        layout::create_mount_points(&room)?;
        let layers = Layers::new(&room, options.snapshotter);
        Ok(Self::of(room, layers, &uses))
    }

    /// Opens the store once more, on the same index and with the same snapshotter. The new store has
    /// leases and a part of `tmp/` of its own, which end with its last handle, as if another process
    /// had opened it. Doesn't look for dead processes.
    ///
    /// # Errors
    /// Fails if the part of `tmp/` can't be created.
    pub fn beside(&self) -> Result<Self> {
        let uses = Arc::new(Uses::default());
        let keeper = Box::new(StoreKeeper::new(&uses));
        let room = Arc::new(self.room.beside(keeper)?);
        let layers = self.layers.beside(&room);
        Ok(Self::of(room, layers, &uses))
    }

    fn of(room: Arc<Room>, layers: Layers, uses: &Arc<Uses>) -> Self {
        let images = Images::new(&room);
        let cache = CacheIndex::new(&room, &layers, uses);
        let upkeep = Upkeep::new(&room, &images, &layers, uses);
        Self { room, images, layers, cache, upkeep }
    }

    /// Records the user and group IDs with which the store's trees are written, or checks the
    /// recorded ones. A process that creates, reads or removes trees must call this first.
    ///
    /// # Errors
    /// Fails if other IDs are recorded, since the files' owners would be wrong.
    pub fn use_ids(&self, ids: &kiln_tree::Ids) -> Result<()> {
        layout::use_ids(self.room.root(), ids)
    }

    /// Returns the path of the root directory.
    pub fn root(&self) -> &Path {
        self.room.root()
    }

    /// Returns a tree of the mount points that every program needs: `/dev`, `/proc`, `/sys`, and
    /// `hosts` and `resolv.conf` in `/etc`. All entries are empty.
    pub fn mount_points(&self) -> PathBuf {
        self.room.root().join(layout::MOUNT_POINTS)
    }

    /// Returns an empty directory on which programs' root file systems are mounted, in mount
    /// namespaces of their own.
    pub fn anchor(&self) -> PathBuf {
        self.room.root().join(layout::ANCHOR)
    }

    /// Returns a new lease. Its layers and blobs aren't collected until it is dropped.
    pub fn lease(&self) -> Result<Lease> {
        Ok(Lease::new(&self.room))
    }

    /// Waits until `key` is free in this process and all others, and locks it. Blocks the thread.
    pub fn lock(&self, key: &str) -> Result<KeyGuard> {
        KeyGuard::acquire(&self.room.keys(), key)
    }

    /// Locks `key` if it is free.
    pub fn try_lock(&self, key: &str) -> Result<Option<KeyGuard>> {
        KeyGuard::try_acquire(&self.room.keys(), key)
    }

    /// Returns a new directory in this process's part of `tmp/`. It is removed with the process.
    pub fn temp_dir(&self) -> Result<PathBuf> {
        self.room.process().fresh_dir()
    }

    /// Returns a file without a name, created in this process's part of `tmp/`. Its data is removed
    /// with its last descriptor.
    pub fn temp_file(&self) -> Result<File> {
        self.room.temp_file()
    }

    /// Returns the directory of a server's history, which the server creates.
    pub fn history(&self) -> PathBuf {
        self.room.root().join(layout::HISTORY)
    }

    /// Returns `true` if this handle has stored files that may not be durable yet.
    pub fn has_unsynced(&self) -> bool {
        self.room.has_unsynced()
    }

    /// Returns `true` if the index's log is so long that reading it slows down the first process
    /// that opens the store. [`Store::sync`] shortens it.
    pub fn has_long_log(&self) -> bool {
        self.room.has_long_log()
    }

    /// Removes the files that ended processes had no time to remove. Creates no files.
    ///
    /// # Errors
    /// Fails if it can't be determined which processes have ended.
    pub fn clear_dead(&self) -> Result<()> {
        process::clear_dead(self.room.root(), self.room.process().name())
    }

    /// Measures the cache mounts and volumes that may have changed since their last measurement.
    ///
    /// # Errors
    /// Fails if a directory can't be read.
    pub fn measure_places(&self) -> Result<()> {
        places::measured(&self.room).map(drop)
    }

    #[cfg(test)]
    pub(crate) fn room(&self) -> &Room {
        &self.room
    }
}

/// The parts of the store.
impl Store {
    /// Returns a handle to the blobs.
    pub fn content(&self) -> Content {
        Content::new(&self.room)
    }

    /// Returns a handle to the images.
    pub fn images(&self) -> Images {
        self.images.clone()
    }

    /// Returns a handle to the volumes.
    pub fn volumes(&self) -> Volumes {
        Volumes::new(&self.room)
    }

    /// Returns a handle to the layers.
    pub fn layers(&self) -> Layers {
        self.layers.clone()
    }

    /// Returns the snapshotter. The first call in a process determines it.
    ///
    /// # Errors
    /// Fails if overlayfs was requested but doesn't work.
    pub fn snapshotting(&self) -> Result<&Snapshotting> {
        self.layers.snapshotting()
    }

    /// Records that files mark deletions in some trees, which overlayfs can't read.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn note_file_marks(&self) -> Result<()> {
        snapshotter::note_file_marks(self.room.root())
    }

    /// Returns the right to seal trees, or `None` if another process has it: both would read the
    /// same files.
    ///
    /// # Errors
    /// Fails if the file of keys can't be opened.
    pub fn sealer(&self) -> Result<Option<Sealer>> {
        self.layers.sealer()
    }

    /// Returns a handle to the cache records.
    pub fn cache(&self) -> CacheIndex {
        self.cache.clone()
    }

    /// Returns a handle to the recipes of cache keys.
    pub fn recipes(&self) -> Recipes {
        Recipes::new(&self.room)
    }

    /// Returns a handle to the listings of digested trees.
    pub fn listings(&self) -> Listings {
        Listings::new(&self.room)
    }

    /// Returns a handle to the cache mounts.
    pub fn cache_mounts(&self) -> CacheMounts {
        CacheMounts::new(&self.room)
    }

    /// Returns a handle to the records of builds.
    pub fn builds(&self) -> Builds {
        Builds::new(&self.room)
    }
}

/// The work on the store as a whole.
impl Store {
    /// Flushes everything that any process has stored so far to the disk, and records that it
    /// survives a power loss. Data that is never synced is removed when the machine has been
    /// restarted, even after an orderly shutdown. So this must be called after a build that stored
    /// data. It may take as long as the disk needs. Any process can call it, including one that
    /// outlives the build.
    pub fn sync(&self) -> Result<()> {
        self.upkeep.sync()
    }

    /// Removes every blob and layer that no image, cache record or living lease reaches.
    pub fn collect(&self) -> Result<Collected> {
        self.upkeep.collect()
    }

    /// Removes the selected parts of the cache, and everything that is no longer referenced.
    ///
    /// # Errors
    /// Fails if a part can't be removed.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        self.upkeep.prune(options)
    }

    /// Returns the disk space of the store by part.
    ///
    /// # Errors
    /// Fails if a part can't be measured.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        self.upkeep.disk_usage()
    }

    /// Checks every row, every blob and every tree, and returns the damaged ones. Adds the seals of
    /// trees that have none. Reads all data.
    ///
    /// # Errors
    /// Fails if a part can't be checked. Damage is no error.
    pub fn check(&self) -> Result<Vec<Damage>> {
        self.upkeep.check()
    }

    /// Removes damaged parts, and everything that depends on them.
    ///
    /// # Errors
    /// Fails if a part can't be removed.
    pub fn repair(&self, found: &[Damage]) -> Result<()> {
        self.upkeep.repair(found)
    }

    /// Returns a directory in this process's part of `tmp/` as a growing directory.
    pub fn growing(&self, path: &Path) -> WatchedDirectory {
        self.upkeep.growing(path)
    }

    /// Watches directories to which a program is going to write. If there is no room for its
    /// output, calls `stop`, which must stop the program. Returns `None` if the store has no cap.
    pub fn watch(
        &self,
        growing: Vec<WatchedDirectory>,
        stop: impl Fn() + Send + 'static,
    ) -> Option<Watch> {
        self.upkeep.watch(growing, stop)
    }

    /// Returns the error for a program that was stopped because of a lack of room.
    pub fn full(&self) -> Error {
        self.upkeep.full()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_oci::Digest;

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
    fn a_store_beside_another_holds_for_itself() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(root.path()).unwrap();
        let beside = store.beside().unwrap();
        let directory = beside.temp_dir().unwrap();
        let tree = beside.layers().begin().unwrap();
        let layer = beside.layers().commit(tree, None).unwrap();
        store.collect().unwrap();
        assert!(store.layers().exists(&layer).unwrap(), "the other handle holds it");
        drop(beside);
        assert!(!directory.exists());
        store.collect().unwrap();
        assert!(!store.layers().exists(&layer).unwrap());
        assert_eq!(fs::read_dir(root.path().join("tmp")).unwrap().count(), 1);
        store.temp_file().unwrap();
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
