//! The creation and opening of layers' trees.

use std::path::{Path, PathBuf};

use kiln_tree::{Dir, survey, survey_copied};

use super::changes::put_changes;
use super::parts::{RECORD, blocks_around};
use super::pending::PendingTree;
use super::rows::{NewLayer, NewTree, insert, select};
use super::{LayerId, Layers};
use crate::error::{Error, Result};
use crate::name;
use crate::room::Room;
use crate::room::lock::KeyGuard;

impl Layers {
    /// Begins a new tree.
    pub fn begin(&self) -> Result<PendingTree> {
        PendingTree::create(&self.room)
    }

    /// Creates a layer on top of `parent` from a finished tree.
    pub fn commit(&self, mut tree: PendingTree, parent: Option<&LayerId>) -> Result<LayerId> {
        let look = look_at(&tree)?;
        tree.claim().ensure(&self.room, look.room.own)?;
        let claim = tree.claim().clone();
        let _placing = self.room.placing()?;
        let id = loop {
            let id = LayerId::fresh();
            if tree.place(&self.room.trees().join(id.as_str()))? {
                break id;
            }
        };
        let earlier = tree.earlier();
        let row = NewLayer { id: &id, parent, diff_id: None, tree: Some(look), earlier };
        let stored = self.room.record(&claim, "store a layer", |transaction| {
            if let Some(parent) = parent
                && select(transaction, parent.as_str())?.is_none()
            {
                return Ok(false);
            }
            if let Some(earlier) = earlier
                && !select(transaction, earlier.as_str())?.is_some_and(|layer| layer.is_whole())
            {
                return Ok(false);
            }
            insert(transaction, &row, None)?;
            put_changes(transaction, &id, tree.changes())?;
            self.room.hold_layer(transaction, id.as_str())?;
            Ok(true)
        });
        match (stored, parent) {
            (Ok(true), _) => {
                self.believe(&id);
                Ok(id)
            }
            (Ok(false), parent) => {
                self.room.discard(&self.room.trees().join(id.as_str()))?;
                Err(Error::missing("layer", parent.map_or("", LayerId::as_str)))
            }
            (Err(error), _) => {
                self.room.discard(&self.room.trees().join(id.as_str()))?;
                Err(error)
            }
        }
    }

    /// Adds a tree to a declared layer. Drops `tree` if the layer has got one meanwhile.
    pub fn attach(&self, mut tree: PendingTree, layer: &LayerId) -> Result<()> {
        let key = format!("attach-{layer}");
        let _alone = KeyGuard::acquire(&self.room.keys(), &key)?;
        if self.get(layer)?.ok_or_else(|| Error::missing("layer", layer))?.has_tree {
            return Ok(());
        }
        let target = self.room.trees().join(layer.as_str());
        let look = look_at(&tree)?;
        tree.claim().ensure(&self.room, look.room.own)?;
        let claim = tree.claim().clone();
        let _placing = self.room.placing()?;
        if !tree.place(&target)? {
            // A process was killed before it could add the row. No other process is about to.
            self.room.discard(&target)?;
            tree.place(&target)?;
        }
        let known = self.room.record(&claim, "attach a tree", |transaction| {
            let sql = "UPDATE layers SET has_tree = 1, stamp = ?2, entries = ?3, seal = NULL,
                       checked_at = ?4, disk = ?5, shared = ?6, earlier = NULL,
                       tree_epoch = (SELECT value FROM meta WHERE key = 'epoch')
                       WHERE id = ?1";
            let changed = transaction.prepare_cached(sql)?.execute((
                layer.as_str(),
                look.stamp.digest.as_bytes(),
                look.stamp.entries.cast_signed(),
                name::now(),
                look.room.own.cast_signed(),
                look.room.shared.cast_signed(),
            ))?;
            if changed == 1 {
                self.room.hold_layer(transaction, layer.as_str())?;
            }
            Ok(changed == 1)
        })?;
        if !known {
            self.room.discard(&target)?;
            return Err(Error::missing("layer", layer));
        }
        self.believe(layer);
        Ok(())
    }

    /// Returns the path of the layer's tree, whether it exists or not. It may have only the
    /// differences from another tree ([`Layers::open_tree`]).
    pub fn tree_path(&self, id: &LayerId) -> PathBuf {
        tree_path(&self.room, id.as_str())
    }

    /// Returns the directory that contains all trees as `ID/fs`, for mounts with short names.
    pub fn trees_dir(&self) -> &Path {
        self.room.trees()
    }
}

/// Returns the path of a layer's tree, given the layer's ID.
pub(crate) fn tree_path(room: &Room, id: &str) -> PathBuf {
    room.trees().join(id).join("fs")
}

/// Takes the stamp of a finished tree and measures its disk space. The work directory of overlayfs
/// is not included, since it is removed before the tree is placed.
fn look_at(tree: &PendingTree) -> Result<NewTree> {
    let dir = Dir::open(tree.fs())?;
    let (stamp, mut room) = match tree.copied() {
        Some(copied) => {
            let surveyed = survey_copied(&dir, copied)?;
            if let Some(record) = surveyed.record {
                let path = tree.dir().join(RECORD);
                std::fs::write(&path, record).map_err(Error::io("write", &path))?;
            }
            (surveyed.stamp, surveyed.room)
        }
        None => survey(&dir)?,
    };
    room.own += blocks_around(tree.dir())?;
    Ok(NewTree { stamp, room })
}
