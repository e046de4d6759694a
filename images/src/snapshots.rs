//! Chains of layers as directories.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use kiln_event::Reporter;
use kiln_store::{LayerId, PendingTree, Snapshotter, Store};
use kiln_tree::{ArchiveLimits, Attributes, Changes, Dir};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::blobs::Blobs;
use crate::draft::{Draft, Finished, WorkTree, WorkTrees};
use crate::error::{Error, Result};
use crate::relink::copy_attributes;
use crate::resolve::ImageResolver;

/// Access to chains of layers as directories. Cloning is cheap.
///
/// The lowest tree of a chain has no whiteouts, so a chain of one layer is read without a mount.
#[derive(Clone, Debug)]
pub struct Snapshots {
    /// The store that holds the layers.
    pub store: Store,
    /// The blobs to unpack.
    pub blobs: Blobs,
    /// The limits for decompressing archives.
    pub limits: ArchiveLimits,
    /// A directory that stays empty, created on first use.
    empty: Arc<OnceLock<PendingTree>>,
    /// The permits to read archives. Each reader takes a thread and the windows of its
    /// decompressor.
    archives: Arc<Semaphore>,
    /// The permits to read archives ahead of their turn.
    ahead: Arc<Semaphore>,
    work_trees: WorkTrees,
    /// The layers on which a program has run. Their chains have the directories for the sandbox's
    /// own mounts.
    run_on: Arc<Mutex<HashSet<LayerId>>>,
    /// Ensures that the warning about copied layers is sent once.
    told: Arc<Once>,
}

/// An open draft. It leaves nothing behind if it is dropped before the commit.
#[derive(Debug)]
pub struct Writable {
    draft: Draft,
    dir: Dir,
}

impl Writable {
    /// Returns the directory with all files of the chain.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Opens a draft.
    pub(crate) fn open(draft: Draft) -> Result<Self> {
        Ok(Self { dir: draft.open()?, draft })
    }

    /// Closes the directory. Closing a mount writes its pending changes to the draft's directory.
    pub(crate) fn close(self) -> Draft {
        self.draft
    }
}

impl Snapshots {
    /// Creates access to the layers of a store. A resolver of the same store fetches them.
    pub fn new(store: Store, images: &ImageResolver) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let (blobs, limits) = (images.blobs(), images.archive_limits());
        Self {
            store,
            blobs,
            limits,
            empty: Arc::default(),
            archives: Arc::new(Semaphore::new(threads)),
            ahead: Arc::new(Semaphore::new(threads)),
            work_trees: WorkTrees::default(),
            run_on: Arc::default(),
            told: Arc::new(Once::new()),
        }
    }

    /// Waits for a permit to read an archive. The caller holds it while it reads.
    pub(crate) async fn reading_an_archive(&self) -> Result<SemaphorePermit<'_>> {
        self.archives.acquire().await.map_err(|_| Error::Cancelled)
    }

    /// Returns a permit to read an archive ahead of its turn, or `None` if all are taken.
    pub(crate) fn reading_ahead(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ahead).try_acquire_owned().ok()
    }

    /// Returns the trees of a chain, uppermost first. All of them must exist.
    ///
    /// # Errors
    /// Fails if a tree is missing.
    pub fn lowers(&self, top: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        Ok(self.store.layers().lowers(top)?)
    }

    /// Returns `true` if the store copies chains instead of mounting them.
    ///
    /// # Errors
    /// Fails if the store's file system can't be examined.
    pub fn copies(&self) -> Result<bool> {
        Ok(self.store.snapshotting()?.snapshotter == Snapshotter::Copy)
    }

    /// Sends a single warning if chains are copied because they can't be mounted.
    ///
    /// # Errors
    /// Fails if the store's file system can't be examined.
    pub fn tell_of_copies(&self, reporter: &Reporter) -> Result<()> {
        let snapshotting = self.store.snapshotting()?;
        if let Some(reason) = &snapshotting.reason {
            self.told.call_once(|| {
                reporter.warn(format!("layers are copied, not mounted: {reason}"));
            });
        }
        Ok(())
    }

    /// Opens a chain as a directory for reading. All its trees must exist.
    ///
    /// # Errors
    /// Fails if the layers can't be mounted.
    pub fn read(&self, top: Option<&LayerId>) -> Result<Dir> {
        Ok(self.store.layers().view(top)?)
    }

    /// Starts a layer on top of a chain. All trees of the chain must exist.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn draft(&self, parent: Option<&LayerId>) -> Result<Draft> {
        let pending = self.begin(parent)?;
        let lowers = self.lowers(parent)?;
        let Some(layer) = parent.filter(|_| !lowers.is_empty()) else {
            return Ok(Draft::on_lowers(pending, None, lowers));
        };
        if !self.copies()? {
            return Ok(Draft::on_lowers(pending, parent.cloned(), lowers));
        }
        let work = match self.work_trees.take(layer)? {
            Some(work) => work,
            None => WorkTree::assemble(&self.store, &lowers)?,
        };
        Ok(Draft::in_work_tree(pending, parent.cloned(), lowers, work))
    }

    /// Starts a tree on top of directories, uppermost first. It doesn't become a layer.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn draft_on(&self, lowers: Vec<PathBuf>) -> Result<Draft> {
        let pending = self.begin_above(lowers.first())?;
        if lowers.is_empty() || !self.copies()? {
            return Ok(Draft::on_lowers(pending, None, lowers));
        }
        let work = WorkTree::assemble(&self.store, &lowers)?;
        Ok(Draft::in_work_tree(pending, None, lowers, work))
    }

    /// Starts a tree on top of a chain and opens it. All trees of the chain must exist.
    ///
    /// # Errors
    /// Fails if the layers can't be mounted.
    pub fn write(&self, parent: Option<&LayerId>) -> Result<Writable> {
        Writable::open(self.draft(parent)?)
    }

    /// Starts a tree whose root has the attributes of the root of the chain below.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn begin(&self, parent: Option<&LayerId>) -> Result<PendingTree> {
        self.begin_above(parent.map(|parent| self.store.layers().tree_path(parent)).as_ref())
    }

    /// Starts a tree whose root has the attributes of the directory `below`.
    pub(crate) fn begin_above(&self, below: Option<&PathBuf>) -> Result<PendingTree> {
        let pending = self.store.layers().begin()?;
        if let Some(below) = below {
            copy_attributes(Dir::open(below)?.as_fd(), Dir::open(pending.fs())?.as_fd())?;
        }
        Ok(pending)
    }

    /// Commits an open draft as a layer.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn commit(&self, writable: Writable) -> Result<LayerId> {
        self.commit_draft(writable.close())
    }

    /// Commits a draft as a layer.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn commit_draft(&self, draft: Draft) -> Result<LayerId> {
        self.commit_finished(draft.finish(&self.store)?)
    }

    /// Commits a draft that was the root file system of a program as a layer.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn commit_root(&self, draft: Draft) -> Result<LayerId> {
        let finished = draft.finish(&self.store)?;
        let run_on = || self.run_on.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = finished.parent.as_ref().is_some_and(|parent| run_on().contains(parent));
        leave_mount_points(&finished, is_known)?;
        let layer = self.commit_finished(finished)?;
        run_on().insert(layer.clone());
        Ok(layer)
    }

    fn commit_finished(&self, finished: Finished) -> Result<LayerId> {
        let Finished { mut pending, parent, lowers, work } = finished;
        let upper = Dir::open(pending.fs())?;
        if !lowers.is_empty() && !upper.names()?.is_empty() {
            // The changes are computed now, while the trees of the chain are protected from
            // collection.
            pending.note(Changes::find(&upper, &lowers)?);
        }
        let layer = self.store.layers().commit(pending, parent.as_ref())?;
        if let Some(work) = work {
            self.work_trees.keep(layer.clone(), work);
        }
        Ok(layer)
    }

    /// Commits a draft as the tree of a declared layer.
    pub(crate) fn attach(&self, writable: Writable, layer: &LayerId) -> Result<()> {
        let Finished { pending, work, .. } = writable.close().finish(&self.store)?;
        self.store.layers().attach(pending, layer)?;
        if let Some(work) = work {
            self.work_trees.keep(layer.clone(), work);
        }
        Ok(())
    }

    /// Commits a tree as a layer without a parent.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn commit_pending(&self, pending: PendingTree) -> Result<LayerId> {
        Ok(self.store.layers().commit(pending, None)?)
    }

    /// Returns a directory that stays empty.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn empty(&self) -> Result<&Path> {
        if let Some(empty) = self.empty.get() {
            return Ok(empty.fs());
        }
        // Of two concurrent calls, only one keeps its directory.
        let empty = self.store.layers().begin()?;
        Ok(self.empty.get_or_init(|| empty).fs())
    }
}

/// Creates the directories for the sandbox's own mounts in a program's layer if the chain below
/// lacks them, because OCI runtimes, and therefore BuildKit, leave them behind. If `is_known`, the
/// chain has them, and only the layer itself is checked.
fn leave_mount_points(finished: &Finished, is_known: bool) -> Result<()> {
    for name in ["dev", "proc", "sys"] {
        let look = |tree: &Path| Dir::open(tree)?.metadata(Path::new(name), false);
        let below = || finished.lowers.iter().find_map(|tree| look(tree).transpose()).transpose();
        let is_there = match look(finished.pending.fs())? {
            Some(found) => found.is_dir(),
            None => is_known || below()?.is_some_and(|found| found.is_dir()),
        };
        if !is_there {
            let attributes = Attributes { mode: Some(0o755), ..Attributes::default() };
            Dir::open(finished.pending.fs())?.mkdir(Path::new(name), &attributes)?;
        }
    }
    Ok(())
}
