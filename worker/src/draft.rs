//! Trees that are being made on top of a chain of layers.
//!
//! With overlayfs, the chain stays where it is, and what is new goes into the directory that becomes
//! the layer's tree. With copies, a *work tree* has everything: the chain is assembled in it, what is
//! new is written there, found by comparing, and taken over into the layer's tree.
//!
//! A work tree whose layer was made shows that layer's chain. It is kept, and what goes on top of the
//! layer goes on in it: a chain of steps assembles its base once.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_sandbox::Tree;
use kiln_store::{Growing, LayerId, PendingTree, Store};
use kiln_tree::{
    CopyOptions, Dir, Files, Overlay, TreeState, Upper, Watch, assemble, extract, part,
};

use crate::error::Result;
use crate::relink::copy_attributes;
use crate::snapshots::whole;

/// So many work trees are kept that nobody uses just now.
const KEPT: usize = 4;

/// A tree that is being made. Dropped uncommitted, it leaves nothing.
#[derive(Debug)]
pub(crate) struct Draft {
    /// The directory that becomes the layer's tree.
    pub(crate) pending: PendingTree,
    /// The layer that it goes on top of.
    pub(crate) parent: Option<LayerId>,
    /// The trees that it goes on top of, uppermost first.
    lowers: Vec<PathBuf>,
    /// A directory that shows them, where overlayfs doesn't.
    work: Option<Box<WorkTree>>,
    /// Whether something may go on writing to the directory that was written to, where overlayfs hasn't kept
    /// it apart. Then the layer gets files of its own, and nothing goes on in a work tree.
    pub(crate) is_open: bool,
}

impl Draft {
    /// Makes a draft on top of directories, for overlayfs.
    pub(crate) fn on_lowers(
        pending: PendingTree,
        parent: Option<LayerId>,
        lowers: Vec<PathBuf>,
    ) -> Self {
        Self { pending, parent, lowers, work: None, is_open: false }
    }

    /// Makes a draft in a work tree that shows these directories.
    pub(crate) fn in_work_tree(
        pending: PendingTree,
        parent: Option<LayerId>,
        lowers: Vec<PathBuf>,
        work: WorkTree,
    ) -> Self {
        Self { pending, parent, lowers, work: Some(Box::new(work)), is_open: false }
    }

    /// Returns the directory to write to, with everything below in it.
    pub(crate) fn open(&self) -> Result<Dir> {
        if let Some(work) = &self.work {
            return Ok(work.tree.open()?);
        }
        if self.lowers.is_empty() {
            return Ok(self.pending.open()?);
        }
        let overlay = Overlay { lowers: self.lowers.clone(), upper: Some(self.upper()) };
        Ok(self.pending.claiming(overlay.open()?))
    }

    /// Returns it as the sandbox mounts it. With overlayfs, `lowest` goes below everything, where
    /// there is room for one more.
    pub(crate) fn rootfs(&self, lowest: Option<PathBuf>) -> Tree {
        if let Some(work) = &self.work {
            return Tree::Directory(work.tree.fs().to_owned());
        }
        let mut lowers = self.lowers.clone();
        if (1..Overlay::MAX_LOWERS).contains(&lowers.len()) {
            lowers.extend(lowest);
        }
        Tree::Overlay { lowers, upper: Some(self.upper()) }
    }

    fn upper(&self) -> Upper {
        Upper { fs: self.pending.fs().to_owned(), work: self.pending.work().to_owned() }
    }

    /// Returns the directories that grow while it is written to.
    pub(crate) fn growing(&self) -> Vec<Growing> {
        let work = self.work.as_ref().map(|work| work.tree.growing());
        std::iter::once(self.pending.growing()).chain(work).collect()
    }

    /// Takes over what was written into the directory that becomes the layer's tree.
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

/// Returns a tree like another one, of files that nobody else has open.
fn copy(tree: &PendingTree, store: &Store) -> Result<PendingTree> {
    let copy = store.layers().begin()?;
    let (from, to) = (Dir::open(tree.fs())?, copy.open()?);
    let options = CopyOptions {
        source: "/".to_owned(),
        dest: "/".to_owned(),
        dir_copy_contents: true,
        ..CopyOptions::default()
    };
    kiln_tree::copy(whole(&from), &to, &options)?;
    copy_attributes(from.as_fd(), to.as_fd())?;
    Ok(copy)
}

/// A draft whose tree is ready to be a layer's.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) pending: PendingTree,
    pub(crate) parent: Option<LayerId>,
    /// The trees that it goes on top of, uppermost first.
    pub(crate) lowers: Vec<PathBuf>,
    /// Shows the layer's chain, once there is the layer.
    pub(crate) work: Option<WorkTree>,
}

/// A directory with everything that a chain of layers has.
#[derive(Debug)]
pub(crate) struct WorkTree {
    tree: PendingTree,
    /// How it was when it showed the chain.
    state: TreeState,
    /// Tells where something has happened since, where that can be had.
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

    /// Waits until changes can be told from those that the state has seen.
    fn settle(&self) -> Result<()> {
        Ok(self.state.settle(&Dir::open(self.tree.work())?)?)
    }

    /// Takes over what has changed into `pending`, which is empty.
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

    /// Looks where something has happened, or at everything.
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

/// Work trees that show a layer's chain and wait for the next step on top of it. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct WorkTrees(Arc<Mutex<VecDeque<(LayerId, WorkTree)>>>);

impl WorkTrees {
    /// Returns one that shows the chain of `layer`, for the caller to write to.
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

    /// Keeps one that shows the chain of `layer`; the oldest may go for it.
    pub(crate) fn keep(&self, layer: LayerId, work: WorkTree) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_back((layer, work));
        if kept.len() > KEPT {
            kept.pop_front();
        }
    }
}
