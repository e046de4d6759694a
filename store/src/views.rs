//! Chains of layers as directories to read.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_tree::{Dir, Files, Overlay, assemble};

use crate::error::Result;
use crate::layers::{LayerId, Layers};
use crate::layout;
use crate::snapshotter::Snapshotter;
use crate::store::Inner;

/// So many assembled trees are kept that nobody reads just now.
const KEPT: usize = 8;

/// The tree of a chain, assembled of hard links. It stays as long as somebody holds it.
#[derive(Debug)]
pub struct AssembledTree {
    path: PathBuf,
}

impl AssembledTree {
    /// Returns the directory. Nobody may write to it.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The trees that were assembled by this process, the last ones last.
#[derive(Debug, Default)]
pub(crate) struct Views(Mutex<VecDeque<(LayerId, Arc<AssembledTree>)>>);

impl Layers {
    /// Returns the trees of a chain, uppermost first. All must be there.
    ///
    /// # Errors
    /// Fails where one isn't there, or isn't what was stored.
    pub fn lowers(&self, top: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        let Some(top) = top else { return Ok(Vec::new()) };
        let chain = self.chain(top)?;
        self.check_trees(&chain)?;
        Ok(chain.iter().rev().map(|layer| self.tree_path(&layer.id)).collect())
    }

    /// Returns a chain as a directory to read. All its trees must be there.
    ///
    /// The lowest tree of a chain has no marks of deletions: a chain of one layer is read as it is. A
    /// longer one is mounted, or assembled where the store's snapshotter copies.
    ///
    /// # Errors
    /// Fails where a tree isn't there, or the chain can't be mounted or assembled.
    pub fn view(&self, top: Option<&LayerId>) -> Result<Dir> {
        let lowers = self.lowers(top)?;
        match (lowers.as_slice(), top) {
            ([], _) | (_, None) => {
                Ok(Dir::open(&self.inner.root.join(layout::ANCHOR))?.without_devices())
            }
            ([only], _) => Ok(Dir::open(only)?.without_devices()),
            (_, Some(top)) => match self.inner.snapshotting()?.snapshotter {
                Snapshotter::Overlay => Ok(Overlay { lowers, upper: None }.open()?),
                Snapshotter::Copy => {
                    let tree = self.assembled(top)?;
                    Ok(Dir::open(tree.path())?.keeping(tree).without_devices())
                }
            },
        }
    }

    /// Returns the tree of a chain, assembled of hard links.
    ///
    /// # Errors
    /// Fails where a tree isn't there, or there can't be another one.
    pub fn assembled(&self, top: &LayerId) -> Result<Arc<AssembledTree>> {
        let mut views = self.inner.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tree)) = views.iter().find(|(layer, _)| layer == top) {
            return Ok(tree.clone());
        }
        let path = self.inner.process.fresh_dir()?;
        let tree = Arc::new(AssembledTree { path });
        assemble(&self.lowers(Some(top))?, &Dir::open(tree.path())?, Files::Shared)?;
        forget_unused(&mut views, &self.inner);
        views.push_back((top.clone(), tree.clone()));
        Ok(tree)
    }
}

/// Removes the oldest trees that nobody reads, beyond those that are kept.
fn forget_unused(views: &mut VecDeque<(LayerId, Arc<AssembledTree>)>, inner: &Inner) {
    let mut surplus = views.len().saturating_sub(KEPT - 1);
    views.retain(|(_, tree)| {
        let goes = surplus > 0 && Arc::strong_count(tree) == 1;
        if goes {
            surplus -= 1;
            inner.trash.add(tree.path.clone(), None);
        }
        !goes
    });
}
