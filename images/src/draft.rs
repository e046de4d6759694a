//! Unfinished trees on top of a chain of layers.
//!
//! With overlayfs, the chain stays in place, and new files go into the directory that becomes the
//! layer's tree. Without overlayfs, a *work tree* holds everything: the chain is assembled in it,
//! new files are written there, found by comparison, and transferred into the layer's tree.
//!
//! After the layer is committed, the work tree shows that layer's chain. It is kept and reused by
//! the next step on top of the layer. A chain of steps therefore assembles its base once.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_store::{LayerId, PendingTree, Store, WatchedDirectory};
use kiln_tree::{
    CopyOptions, Dir, Files, Overlay, TreeState, Upper, View, Watch, assemble, extract, part,
};

use crate::error::Result;
use crate::relink::copy_attributes;

/// The maximum number of unused work trees that are kept.
const KEPT: usize = 4;

/// The file tree of a draft, as directories that a process can mount.
#[derive(Clone, Debug)]
pub enum RootTree {
    /// A directory with all files.
    Directory(PathBuf),
    /// An overlay. Without lower directories, the tree is the upper one.
    Overlay(Overlay),
}

/// An unfinished tree. It leaves nothing behind if it is dropped before the commit.
#[derive(Debug)]
pub struct Draft {
    /// The directory that becomes the layer's tree.
    pub pending: PendingTree,
    /// The layer below. `None` for a layer without a parent.
    pub(crate) parent: Option<LayerId>,
    /// The trees of the chain below, uppermost first.
    lowers: Vec<PathBuf>,
    /// The work tree, if the store doesn't use overlayfs.
    work: Option<Box<WorkTree>>,
    /// `true` if a process may still write to the directory without an overlay in between. The
    /// layer then gets copies of the files, and the work tree isn't reused.
    pub is_open: bool,
}

impl Draft {
    /// Creates a draft for an overlay over directories.
    pub(crate) fn on_lowers(
        pending: PendingTree,
        parent: Option<LayerId>,
        lowers: Vec<PathBuf>,
    ) -> Self {
        Self { pending, parent, lowers, work: None, is_open: false }
    }

    /// Creates a draft in a work tree that shows these directories.
    pub(crate) fn in_work_tree(
        pending: PendingTree,
        parent: Option<LayerId>,
        lowers: Vec<PathBuf>,
        work: WorkTree,
    ) -> Self {
        Self { pending, parent, lowers, work: Some(Box::new(work)), is_open: false }
    }

    /// Opens the merged directory for writing.
    ///
    /// # Errors
    /// Fails if the overlay can't be mounted.
    pub fn open(&self) -> Result<Dir> {
        if let Some(work) = &self.work {
            return Ok(work.tree.open()?);
        }
        if self.lowers.is_empty() {
            return Ok(self.pending.open()?);
        }
        let overlay = Overlay { lowers: self.lowers.clone(), upper: Some(self.upper()) };
        Ok(self.pending.claiming(overlay.open()?))
    }

    /// Returns the tree for a mount of the caller. An overlay has `lowest` as its bottom
    /// directory if the maximum number of directories allows it.
    pub fn rootfs(&self, lowest: Option<PathBuf>) -> RootTree {
        if let Some(work) = &self.work {
            return RootTree::Directory(work.tree.fs().to_owned());
        }
        let mut lowers = self.lowers.clone();
        if (1..Overlay::MAX_LOWERS).contains(&lowers.len()) {
            lowers.extend(lowest);
        }
        RootTree::Overlay(Overlay { lowers, upper: Some(self.upper()) })
    }

    /// Returns the paths of the device nodes in the tree, without a leading slash. Returns `None` if
    /// they aren't known.
    pub fn device_nodes(&self) -> Option<Vec<PathBuf>> {
        let nodes = self.work.as_ref()?.state.device_nodes();
        Some(nodes.into_iter().map(|path| OsString::from_vec(path).into()).collect())
    }

    fn upper(&self) -> Upper {
        Upper { fs: self.pending.fs().to_owned(), work: self.pending.work().to_owned() }
    }

    /// Returns the directories that grow when files are written.
    pub fn growing(&self) -> Vec<WatchedDirectory> {
        let work = self.work.as_ref().map(|work| work.tree.growing());
        std::iter::once(self.pending.growing()).chain(work).collect()
    }

    /// Completes the directory that becomes the layer's tree.
    pub(crate) fn finish(self, store: &Store) -> Result<Finished> {
        let Self { mut pending, parent, lowers, mut work, is_open } = self;
        if let Some(work) = &mut work {
            work.take_over(&pending, store)?;
        } else if is_open && lowers.is_empty() {
            pending = copy(&pending, store)?;
        }
        let work = work.map(|work| *work).filter(|_| !is_open);
        Ok(Finished { pending, parent, lowers, work })
    }
}

/// Returns a copy of a tree whose files no other process has open.
fn copy(tree: &PendingTree, store: &Store) -> Result<PendingTree> {
    let copy = store.layers().begin()?;
    let (from, to) = (Dir::open(tree.fs())?, copy.open()?);
    let options = CopyOptions {
        source: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        ..CopyOptions::default()
    };
    kiln_tree::copy(View::of(&from), &to, &options)?;
    copy_attributes(from.as_fd(), to.as_fd())?;
    Ok(copy)
}

/// A draft whose tree is ready to become a layer's.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) pending: PendingTree,
    pub(crate) parent: Option<LayerId>,
    /// The trees of the chain below, uppermost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// The work tree, which shows the layer's chain once the layer is committed.
    pub(crate) work: Option<WorkTree>,
}

/// A directory with all files of a chain of layers.
#[derive(Debug)]
pub(crate) struct WorkTree {
    tree: PendingTree,
    /// The state of the tree when it showed the chain.
    state: TreeState,
    /// The watch for changes since then, if the kernel provides one.
    watch: Option<Watch>,
}

impl WorkTree {
    /// Assembles directories, uppermost first.
    pub(crate) fn assemble(store: &Store, lowers: &[PathBuf]) -> Result<Self> {
        let tree = store.layers().begin()?;
        let dir = tree.open()?;
        assemble(lowers, &dir, Files::Own)?;
        let state = TreeState::of(&dir)?;
        let work = Self { watch: Watch::on(&dir, &state), state, tree };
        work.settle()?;
        Ok(work)
    }

    /// Waits until new changes have later timestamps than those in `state`.
    fn settle(&self) -> Result<()> {
        Ok(self.state.settle(&Dir::open(self.tree.work())?)?)
    }

    /// Transfers the changes into `pending`, which must be empty.
    fn take_over(&mut self, pending: &PendingTree, store: &Store) -> Result<()> {
        let dir = Dir::open(self.tree.fs())?;
        let mut now = self.look(&dir)?;
        let touched = self.state.touched(&now);
        if !touched.is_empty() || !self.state.has_same_root(&now) {
            let file_marks = store.snapshotting()?.file_marks;
            let extracted = extract(&dir, &touched, &pending.open()?, file_marks)?;
            if extracted.file_marks && touched.iter().any(|touched| touched.gone) {
                store.note_file_marks()?;
            }
            if !extracted.linked.is_empty() {
                part(&dir, &extracted.linked)?;
                now = now.again(&dir)?;
                self.watch = None;
            }
        }
        if self.watch.is_none() {
            self.watch = Watch::on(&dir, &now);
        }
        self.state = now;
        Ok(())
    }

    /// Reads the current state, only at the changed places if the watch knows them.
    fn look(&mut self, dir: &Dir) -> Result<TreeState> {
        if let Some(touched) = self.watch.as_mut().and_then(Watch::touched)
            && let Some(now) = self.state.again_in(dir, &touched)?
        {
            return Ok(now);
        }
        self.watch = None;
        Ok(self.state.again(dir)?)
    }
}

/// The unused work trees, each with the layer whose chain it shows. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkTrees(Arc<Mutex<VecDeque<(LayerId, WorkTree)>>>);

impl WorkTrees {
    /// Removes and returns a work tree that shows the chain of `layer`.
    pub(crate) fn take(&self, layer: &LayerId) -> Result<Option<WorkTree>> {
        let found = {
            let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let at = kept.iter().position(|(shown, _)| shown == layer);
            at.and_then(|at| kept.remove(at))
        };
        let Some((_, work)) = found else { return Ok(None) };
        work.settle()?;
        Ok(Some(work))
    }

    /// Adds a work tree that shows the chain of `layer`. Drops the oldest one if there are too
    /// many.
    pub(crate) fn keep(&self, layer: LayerId, work: WorkTree) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((layer, work));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}
