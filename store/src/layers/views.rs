//! Chains of layers as readable directories.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_tree::{Dir, Files, Overlay, assemble};

use super::snapshotter::Snapshotter;
use super::{LayerId, Layers};
use crate::error::Result;
use crate::room::{Room, layout};

/// The maximal number of unused assembled trees that are kept.
const KEPT: usize = 8;

/// The tree of a chain, assembled of hard links. It exists as long as a reference to it.
#[derive(Debug)]
pub struct AssembledTree {
    pub(super) path: PathBuf,
}

impl AssembledTree {
    /// Returns the path of the tree, which must not be written to.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The trees that this process has assembled, the latest last.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<VecDeque<(LayerId, Arc<AssembledTree>)>>);

impl Layers {
    /// Returns the directories with the trees of a chain, uppermost first. All must exist.
    ///
    /// # Errors
    /// Fails if a tree is missing or was changed.
    pub fn lowers(&self, top: Option<&LayerId>) -> Result<Vec<PathBuf>> {
        let Some(top) = top else { return Ok(Vec::new()) };
        let chain = self.chain(top)?;
        self.check_trees(&chain)?;
        let parts: Vec<PathBuf> = chain.iter().rev().flat_map(|it| self.parts(it)).collect();
        if parts.len() <= Overlay::MAX_LOWERS || parts.len() == chain.len() {
            return Ok(parts);
        }
        chain.iter().rev().map(|layer| self.linked_path(layer)).collect()
    }

    /// Returns a chain as a readable directory. All its trees must exist.
    ///
    /// The lowest tree of a chain has no marks of deletions, so a chain of one layer is read
    /// directly. A longer chain is mounted, or assembled if the store's snapshotter copies.
    ///
    /// # Errors
    /// Fails if a tree is missing, or if the chain can't be mounted or assembled.
    pub fn view(&self, top: Option<&LayerId>) -> Result<Dir> {
        let lowers = self.lowers(top)?;
        match (lowers.as_slice(), top) {
            ([], _) | (_, None) => {
                Ok(Dir::open(&self.room.root().join(layout::ANCHOR))?.without_devices())
            }
            ([only], _) => Ok(Dir::open(only)?.without_devices()),
            (_, Some(top)) => match self.snapshotting()?.snapshotter {
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
    /// Fails if a tree is missing, or if the tree can't be assembled.
    pub fn assembled(&self, top: &LayerId) -> Result<Arc<AssembledTree>> {
        let mut views = self.state.views.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, tree)) = views.iter().find(|(layer, _)| layer == top) {
            return Ok(tree.clone());
        }
        let path = self.room.process().fresh_dir()?;
        let tree = Arc::new(AssembledTree { path });
        assemble(&self.lowers(Some(top))?, &Dir::open(tree.path())?, Files::Shared)?;
        forget_unused(&mut views, &self.room);
        views.push_back((top.clone(), tree.clone()));
        Ok(tree)
    }
}

/// Removes the oldest unused trees beyond the limit.
fn forget_unused(views: &mut VecDeque<(LayerId, Arc<AssembledTree>)>, room: &Room) {
    let mut surplus = views.len().saturating_sub(KEPT - 1);
    views.retain(|(_, tree)| {
        let goes = surplus > 0 && Arc::strong_count(tree) == 1;
        if goes {
            surplus -= 1;
            room.trash().add(tree.path.clone(), None);
        }
        !goes
    });
}
