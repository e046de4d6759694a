//! Trees in two parts.
//!
//! A tree may have only the differences from the tree of another layer, the *earlier* one. It has
//! the form of an overlay's upper directory on top of the earlier tree, so an overlay of both
//! directories shows the layer's tree. Copies from a context that differs little from that of an
//! earlier build make such trees. Only the tree has two parts: the diff, the blobs, the keys and the
//! parent of the layer are those that it would have with a whole tree.
//!
//! The earlier tree is always whole, so that no tree has more than two parts. It has a *record*,
//! `snapshots/ID/record`, with which the copies compare themselves ([`kiln_tree::CopyRecord`]).
//! The differences are always from that tree, even if the step ran several times since. A copy with
//! many differences makes a whole tree, which is then the one that later copies start from.
//!
//! The earlier layer exists as long as a layer needs its tree: garbage collection and pruning follow
//! the reference like that to a parent. If the tree is lost, the other trees are lost with it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::Digest;
use kiln_tree::{CopyRecord, Dir, Files, Overlay, assemble};
use rusqlite::{Connection, OptionalExtension};

use super::rows::select;
use super::snapshotter::Snapshotter;
use super::views::AssembledTree;
use super::{Layer, LayerId, Layers};
use crate::error::{Error, Result};
use crate::room::measure::blocks_of;

/// The name of a tree's record, beside the tree.
pub(crate) const RECORD: &str = "record";

/// The trees that this process has put together from parts.
#[derive(Debug, Default)]
pub(super) struct LinkedTrees(Mutex<HashMap<LayerId, Arc<AssembledTree>>>);

/// A tree that copies have created, with its record.
#[derive(Debug)]
pub struct CopiedTree {
    /// The layer with the tree.
    pub layer: LayerId,
    /// The record of the tree.
    pub record: CopyRecord,
}

impl Layer {
    /// Returns `true` if the layer has a tree that isn't put on top of another one.
    pub(crate) fn is_whole(&self) -> bool {
        self.has_tree && self.earlier.is_none()
    }
}

impl Layers {
    /// Returns the directories of a layer's tree, uppermost first.
    pub(super) fn parts(&self, layer: &Layer) -> Vec<PathBuf> {
        let own = self.tree_path(&layer.id);
        let earlier = layer.earlier.as_ref().map(|earlier| self.tree_path(earlier));
        std::iter::once(own).chain(earlier).collect()
    }

    /// Opens the layer's tree, which no longer changes. The directory shows the tree as a whole. It
    /// may be a mount.
    ///
    /// # Errors
    /// Fails if the tree doesn't exist, or if its parts can't be put together.
    pub fn open_tree(&self, id: &LayerId) -> Result<Dir> {
        let layer = self.get(id)?.ok_or_else(|| Error::missing("layer", id))?;
        let lowers = self.parts(&layer);
        if let [only] = lowers.as_slice() {
            return Ok(Dir::open(only)?.without_devices());
        }
        match self.snapshotting()?.snapshotter {
            Snapshotter::Overlay => Ok(Overlay { lowers, upper: None }.open()?),
            Snapshotter::Copy => self.open_linked_tree(id),
        }
    }

    /// Opens the layer's tree, like [`Layers::open_tree`]. The directory is never a mount, so its
    /// files can be hard links in other trees.
    ///
    /// # Errors
    /// Fails if the tree doesn't exist, or if its parts can't be put together.
    pub fn open_linked_tree(&self, id: &LayerId) -> Result<Dir> {
        let layer = self.get(id)?.ok_or_else(|| Error::missing("layer", id))?;
        Ok(Dir::open(&self.linked_path(&layer)?)?.without_devices())
    }

    /// Returns the path of a directory with the whole tree of a layer. If the tree has parts, the
    /// directory has hard links to their files, and exists as long as the process.
    pub(super) fn linked_path(&self, layer: &Layer) -> Result<PathBuf> {
        let parts = self.parts(layer);
        if let [only] = parts.as_slice() {
            return Ok(only.clone());
        }
        let mut linked = self.state.linked.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = linked.get(&layer.id) {
            return Ok(known.path().to_owned());
        }
        let path = self.room.process().fresh_dir()?;
        assemble(&parts, &Dir::open(&path)?, Files::Shared)?;
        linked.insert(layer.id.clone(), Arc::new(AssembledTree { path: path.clone() }));
        Ok(path)
    }

    /// Returns the latest whole tree of copies of the same shape, and adds its layer to the
    /// process's implicit lease. Returns `None` if the tree or its record is gone or damaged.
    ///
    /// # Errors
    /// Fails if the index fails.
    pub fn copied_tree(&self, shape: &Digest) -> Result<Option<CopiedTree>> {
        let sql = "SELECT layer FROM copied_trees WHERE shape = ?1";
        let found = self.room.index().read("look up copies", |connection| {
            let id = connection
                .prepare_cached(sql)?
                .query_row([shape.as_bytes()], |row| row.get::<_, String>(0))
                .optional()?;
            id.map_or(Ok(None), |id| select(connection, &id))
        })?;
        let Some(layer) = found.filter(Layer::is_whole) else { return Ok(None) };
        let path = self.room.trees().join(layer.id.as_str()).join(RECORD);
        let Ok(bytes) = std::fs::read(path) else { return Ok(None) };
        let Some(record) = CopyRecord::from_bytes(&bytes) else { return Ok(None) };
        if !self.hold([&layer.id])? || self.check_trees([&layer]).is_err() {
            return Ok(None);
        }
        // The tree may have been lost before the lease began.
        let is_there = self.get(&layer.id)?.is_some_and(|layer| layer.is_whole());
        Ok(is_there.then_some(CopiedTree { layer: layer.id, record }))
    }

    /// Notes the layer of copies of this shape, whose tree has a record. Does nothing if the tree has
    /// none.
    ///
    /// # Errors
    /// Fails if the index fails.
    pub fn note_copied_tree(&self, shape: &Digest, layer: &LayerId) -> Result<()> {
        if !self.room.trees().join(layer.as_str()).join(RECORD).exists() {
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO copied_trees VALUES (?1, ?2)";
        self.room.index().write("note copies", |transaction| {
            transaction.prepare_cached(sql)?.execute((shape.as_bytes(), layer.as_str()))?;
            Ok(())
        })
    }

    /// Returns `true` if all parts of a layer's tree exist.
    pub(crate) fn has_all_parts(&self, layer: &Layer) -> Result<bool> {
        let Some(earlier) = &layer.earlier else { return Ok(true) };
        Ok(self.get(earlier)?.is_some_and(|earlier| earlier.is_whole()))
    }
}

/// Returns the disk space of the directory of a tree and of the tree's record, without the tree.
pub(crate) fn blocks_around(directory: &Path) -> Result<u64> {
    Ok(blocks_of(directory)? + blocks_of(&directory.join(RECORD))?)
}

/// Drops the trees whose earlier trees don't exist. Returns their number.
pub(crate) fn forget_incomplete(transaction: &Connection) -> rusqlite::Result<usize> {
    transaction.execute(
        "UPDATE layers SET has_tree = 0, stamp = NULL, entries = NULL, seal = NULL, earlier = NULL
         WHERE has_tree AND earlier NOT IN (SELECT id FROM layers WHERE has_tree)",
        [],
    )
}
