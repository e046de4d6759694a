//! Chains of layers as directories.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};

use kiln_solver::StepContext;
use kiln_store::{LayerId, PendingTree, Snapshotter, Store};
use kiln_tree::{ArchiveLimits, Attributes, Changes, CopyOptions, Dir, View};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

use crate::blobs::Blobs;
use crate::draft::{Draft, Finished, WorkTree, WorkTrees};
use crate::error::{Error, Result};
use crate::file::missing;
use crate::output::Output;
use crate::relink::copy_attributes;
use crate::resolve::ImageResolver;
use crate::source::local::LocalContext;

/// Chains of layers as directories. Cheap to clone.
///
/// The lowest tree of a chain has no whiteouts: so a chain of one layer is read without a mount.
#[derive(Clone, Debug)]
pub(crate) struct Snapshots {
    pub(crate) store: Store,
    pub(crate) blobs: Blobs,
    /// How much an archive may become.
    pub(crate) limits: ArchiveLimits,
    /// A tree that stays empty, once somebody has needed one.
    empty: Arc<OnceLock<PendingTree>>,
    /// How many archives may be read at once: each takes a thread, and the windows of its
    /// decompressor.
    archives: Arc<Semaphore>,
    /// How many more may be read ahead of their turn.
    ahead: Arc<Semaphore>,
    work_trees: WorkTrees,
    /// Layers on whose chains a program has run: they have the directories for its own mounts.
    run_on: Arc<Mutex<HashSet<LayerId>>>,
    /// That layers are copied has been said.
    told: Arc<Once>,
}

/// A draft that is open. Dropped uncommitted, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writable {
    draft: Draft,
    dir: Dir,
}

impl Writable {
    /// Returns the directory, with everything of the chain in it.
    pub(crate) fn dir(&self) -> &Dir {
        &self.dir
    }
}

impl Snapshots {
    pub(crate) fn new(store: Store, images: &ImageResolver) -> Self {
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

    /// Waits until an archive may be read; what is returned is to be held as long as it is.
    pub(crate) async fn reading_an_archive(&self) -> Result<SemaphorePermit<'_>> {
        self.archives.acquire().await.map_err(|_| Error::Cancelled)
    }

    /// Returns what is to be held while an archive is read before its turn; `None` where enough are.
    pub(crate) fn reading_ahead(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.ahead).try_acquire_owned().ok()
    }

    /// Returns the trees of a chain, uppermost first. All must be there.
    pub(crate) fn lowers(&self, top: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        Ok(self.store.layers().lowers(top)?)
    }

    /// Tells whether chains are copied, and not mounted.
    pub(crate) fn copies(&self) -> Result<bool> {
        Ok(self.store.snapshotting()?.snapshotter == Snapshotter::Copy)
    }

    /// Says, once, that chains are copied because they can't be mounted.
    pub(crate) fn tell_of_copies(&self, context: &StepContext) -> Result<()> {
        let snapshotting = self.store.snapshotting()?;
        if let Some(reason) = &snapshotting.reason {
            self.told.call_once(|| {
                context.warn(format!("layers are copied, not mounted: {reason}"));
            });
        }
        Ok(())
    }

    /// Returns a chain as a directory to read. All its trees must be there.
    pub(crate) fn read(&self, top: Option<&LayerId>) -> Result<Dir> {
        Ok(self.store.layers().view(top)?)
    }

    /// Begins a layer on top of a chain. All its trees must be there.
    pub(crate) fn draft(&self, parent: Option<&LayerId>) -> Result<Draft> {
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

    /// Begins a tree on top of directories, uppermost first, that becomes no layer.
    pub(crate) fn draft_on(&self, lowers: Vec<PathBuf>) -> Result<Draft> {
        let pending = self.begin_above(lowers.first())?;
        if lowers.is_empty() || !self.copies()? {
            return Ok(Draft::on_lowers(pending, None, lowers));
        }
        let work = WorkTree::assemble(&self.store, &lowers)?;
        Ok(Draft::in_work_tree(pending, None, lowers, work))
    }

    /// Begins a tree on top of a chain, and opens it. All its trees must be there.
    pub(crate) fn write(&self, parent: Option<&LayerId>) -> Result<Writable> {
        let draft = self.draft(parent)?;
        Ok(Writable { dir: draft.open()?, draft })
    }

    /// Begins a tree whose root looks like the one of the chain below.
    pub(crate) fn begin(&self, parent: Option<&LayerId>) -> Result<PendingTree> {
        self.begin_above(parent.map(|parent| self.store.layers().tree_path(parent)).as_ref())
    }

    /// Begins a tree whose root looks like the directory `below`.
    pub(crate) fn begin_above(&self, below: Option<&PathBuf>) -> Result<PendingTree> {
        let pending = self.store.layers().begin()?;
        if let Some(below) = below {
            copy_attributes(Dir::open(below)?.as_fd(), Dir::open(pending.fs())?.as_fd())?;
        }
        Ok(pending)
    }

    /// Makes a layer of an open draft.
    pub(crate) fn commit(&self, writable: Writable) -> Result<LayerId> {
        let Writable { draft, dir } = writable;
        // What the mount still holds back has to be in the directory.
        drop(dir);
        self.commit_draft(draft)
    }

    /// Makes a layer of a draft.
    pub(crate) fn commit_draft(&self, draft: Draft) -> Result<LayerId> {
        self.commit_finished(draft.finish(&self.store)?)
    }

    /// Makes a layer of a draft that a program had as its root file system.
    pub(crate) fn commit_root(&self, draft: Draft) -> Result<LayerId> {
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
            // What it changes of the chain below is found out now, while that is there.
            pending.note(Changes::find(&upper, &lowers)?);
        }
        let layer = self.store.layers().commit(pending, parent.as_ref())?;
        if let Some(work) = work {
            self.work_trees.keep(layer.clone(), work);
        }
        Ok(layer)
    }

    /// Gives a layer that was only declared its tree.
    pub(crate) fn attach(&self, writable: Writable, layer: &LayerId) -> Result<()> {
        let Writable { draft, dir } = writable;
        drop(dir);
        let Finished { pending, work, .. } = draft.finish(&self.store)?;
        self.store.layers().attach(pending, layer)?;
        if let Some(work) = work {
            self.work_trees.keep(layer.clone(), work);
        }
        Ok(())
    }

    /// Makes a layer of a tree that goes on top of nothing.
    pub(crate) fn commit_pending(&self, pending: PendingTree) -> Result<LayerId> {
        Ok(self.store.layers().commit(pending, None)?)
    }

    /// Makes a layer of a tree that repeats the one of `original` on another chain. What it changes
    /// is what the original changes of its own chain.
    pub(crate) fn commit_repeated(
        &self,
        mut pending: PendingTree,
        parent: Option<&LayerId>,
        original: &LayerId,
    ) -> Result<LayerId> {
        pending.note(self.store.layers().changes(original)?);
        Ok(self.store.layers().commit(pending, parent)?)
    }

    /// Returns an output as a chain of layers; a context is copied.
    pub(crate) fn layer(&self, output: &Output) -> Result<Option<LayerId>> {
        match output {
            Output::Layer(layer) => Ok(layer.clone()),
            Output::Local(context) => {
                let copy = self.copy_of(context, Path::new("/"), &[])?;
                self.commit_pending(copy).map(Some)
            }
        }
    }

    /// Copies what is at `path` in a context, or what `include` selects of it.
    pub(crate) fn copy_of(
        &self,
        context: &LocalContext,
        path: &Path,
        include: &[String],
    ) -> Result<PendingTree> {
        let pending = self.begin(None)?;
        let path = path.to_string_lossy().into_owned();
        let options = CopyOptions {
            source: path.clone(),
            dest: path,
            dir_copy_contents: true,
            create_dest_path: true,
            include: include.to_vec(),
            ..CopyOptions::default()
        };
        let view = context.view();
        kiln_tree::copy(view, &pending.open()?, &options)
            .map_err(|error| missing(error, &[view]))?;
        Ok(pending)
    }

    /// Returns a directory that stays empty.
    pub(crate) fn empty(&self) -> Result<&Path> {
        if let Some(empty) = self.empty.get() {
            return Ok(empty.fs());
        }
        // Two may make one at once; one of the two is kept.
        let empty = self.store.layers().begin()?;
        Ok(self.empty.get_or_init(|| empty).fs())
    }
}

/// Makes the directories that a program's own mounts are on a part of its layer, where the chain
/// below lacks them: OCI runtimes, and so BuildKit, leave them behind. Where it `is_known` that the chain
/// has them, only the layer itself is looked at.
fn leave_mount_points(finished: &Finished, is_known: bool) -> Result<()> {
    for name in ["dev", "proc", "sys"] {
        let look = |tree: &Path| tree.join(name).symlink_metadata().ok();
        let below = || finished.lowers.iter().find_map(|tree| look(tree));
        let is_there = match look(finished.pending.fs()) {
            Some(found) => found.is_dir(),
            None => is_known || below().is_some_and(|found| found.is_dir()),
        };
        if !is_there {
            let attributes = Attributes { mode: Some(0o755), ..Attributes::default() };
            Dir::open(finished.pending.fs())?.mkdir(Path::new(name), &attributes)?;
        }
    }
    Ok(())
}

/// Returns all of a directory, as it is.
pub(crate) fn whole(dir: &Dir) -> View<'_> {
    View::of(dir)
}
