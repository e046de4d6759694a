//! Chains of layers as directories.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use kiln_store::{LayerId, PendingTree, Store};
use kiln_tree::{ArchiveLimits, Attributes, Changes, CopyOptions, Dir, View};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::blobs::Blobs;
use crate::error::{Error, Result};
use crate::file::missing;
use crate::mount::{MAX_LOWERS, Overlay};
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
}

/// A tree that is being made on top of a chain. Dropped uncommitted, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Writable {
    pub(crate) pending: PendingTree,
    pub(crate) parent: Option<LayerId>,
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
        }
    }

    /// Waits until an archive may be read; what is returned is to be held as long as it is.
    pub(crate) async fn reading_an_archive(&self) -> Result<SemaphorePermit<'_>> {
        self.archives.acquire().await.map_err(|_| Error::Cancelled)
    }

    /// Returns the trees of a chain, uppermost first. All must be there.
    pub(crate) fn lowers(&self, top: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        let Some(top) = top else { return Ok(Vec::new()) };
        let chain = self.store.layers().chain(top)?;
        self.store.layers().check_trees(&chain)?;
        Ok(chain.iter().rev().map(|layer| self.store.layers().tree_path(&layer.id)).collect())
    }

    /// Returns the directories that a program's root file system is made of, below the one that it
    /// writes to, uppermost first. All trees must be there.
    ///
    /// Those of the chain stand on one that has the usual mount points, unless there is no room:
    /// they would otherwise be made in the uppermost, and have to be removed again.
    pub(crate) fn root_lowers(&self, top: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        let mut lowers = self.lowers(top)?;
        if (1..MAX_LOWERS).contains(&lowers.len()) {
            lowers.push(self.store.mount_points());
        }
        Ok(lowers)
    }

    /// Returns a chain as a directory to read. All its trees must be there.
    pub(crate) fn read(&self, top: Option<&LayerId>) -> Result<Dir> {
        match self.lowers(top)?.as_slice() {
            [] => Ok(Dir::open(self.empty()?)?),
            [only] => Ok(Dir::open(only)?),
            lowers => Overlay { lowers: lowers.to_vec(), upper: None }.mount(),
        }
    }

    /// Begins a tree on top of a chain. All its trees must be there.
    pub(crate) fn write(&self, parent: Option<&LayerId>) -> Result<Writable> {
        let pending = self.begin(parent)?;
        let dir = match self.lowers(parent)? {
            lowers if lowers.is_empty() => pending.open()?,
            lowers => {
                let upper = Some((pending.fs().to_owned(), pending.work().to_owned()));
                pending.claiming(Overlay { lowers, upper }.mount()?)
            }
        };
        Ok(Writable { pending, parent: parent.cloned(), dir })
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

    /// Makes a layer of a tree.
    pub(crate) fn commit(&self, writable: Writable) -> Result<LayerId> {
        let Writable { pending, parent, dir } = writable;
        // What the mount still holds back has to be in the directory.
        drop(dir);
        self.commit_pending(pending, parent.as_ref())
    }

    /// Gives a layer that was only declared its tree.
    pub(crate) fn attach(&self, writable: Writable, layer: &LayerId) -> Result<()> {
        let Writable { pending, dir, .. } = writable;
        drop(dir);
        Ok(self.store.layers().attach(pending, layer)?)
    }

    /// Makes a layer of a tree that isn't mounted. What it changes of the chain below is found out
    /// now, while that is there.
    pub(crate) fn commit_pending(
        &self,
        mut pending: PendingTree,
        parent: Option<&LayerId>,
    ) -> Result<LayerId> {
        if let Some(parent) = parent {
            let upper = Dir::open(pending.fs())?;
            if !upper.names()?.is_empty() {
                pending.note(Changes::find(&upper, &self.read(Some(parent))?)?);
            }
        }
        Ok(self.store.layers().commit(pending, parent)?)
    }

    /// Makes the directories that a program's own mounts are on a part of its layer, where the chain
    /// below lacks them: OCI runtimes, and so BuildKit, leave them behind.
    pub(crate) fn leave_mount_points(
        &self,
        pending: &PendingTree,
        parent: Option<&LayerId>,
    ) -> Result<()> {
        let lowers = self.lowers(parent)?;
        let trees: Vec<&Path> =
            std::iter::once(pending.fs()).chain(lowers.iter().map(PathBuf::as_path)).collect();
        for name in ["dev", "proc", "sys"] {
            let found = trees.iter().find_map(|tree| tree.join(name).symlink_metadata().ok());
            if !found.is_some_and(|found| found.is_dir()) {
                let attributes = Attributes { mode: Some(0o755), ..Attributes::default() };
                Dir::open(pending.fs())?.mkdir(Path::new(name), &attributes)?;
            }
        }
        Ok(())
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
                self.commit_pending(copy, None).map(Some)
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
        kiln_tree::copy(context.view(), &pending.open()?, &options).map_err(missing)?;
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

/// Returns all of a directory, as it is.
pub(crate) fn whole(dir: &Dir) -> View<'_> {
    View { dir, excludes: None, owner: None, xattrs: true }
}
