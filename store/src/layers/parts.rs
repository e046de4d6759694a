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
    /// process's implicit lease. Returns `None` if the tree or its record is gone or damaged, or if
    /// the chain of `parent` has the tree: the kernel refuses an overlay with the same directory in
    /// two places.
    ///
    /// # Errors
    /// Fails if the index fails, or if a layer of the chain is missing.
    pub fn copied_tree(
        &self,
        shape: &Digest,
        parent: Option<&LayerId>,
    ) -> Result<Option<CopiedTree>> {
        let sql = "SELECT layer FROM copied_trees WHERE shape = ?1";
        let found = self.room.index().read("look up copies", |connection| {
            let id = connection
                .prepare_cached(sql)?
                .query_row([shape.as_bytes()], |row| row.get::<_, String>(0))
                .optional()?;
            id.map_or(Ok(None), |id| select(connection, &id))
        })?;
        let Some(layer) = found.filter(Layer::is_whole) else { return Ok(None) };
        let chain = parent.map_or_else(|| Ok(Vec::new()), |parent| self.chain(parent))?;
        let has_tree =
            |below: &Layer| [Some(&below.id), below.earlier.as_ref()].contains(&Some(&layer.id));
        if chain.iter().any(has_tree) {
            return Ok(None);
        }
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

#[cfg(test)]
mod tests {
    use std::fs;

    use kiln_tree::CopiedFiles;

    use super::*;
    use crate::{Damaged, Store};

    /// A store with a whole tree and one on top of it, whose layer a cache record names.
    fn opened() -> (tempfile::TempDir, Store, LayerId, LayerId) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers = store.layers();
        let mut tree = layers.begin().unwrap();
        fs::write(tree.fs().join("old"), "old").unwrap();
        fs::write(tree.fs().join("both"), "old").unwrap();
        tree.record(CopiedFiles::new());
        let earlier = layers.commit(tree, None).unwrap();
        layers.note_copied_tree(&shape(), &earlier).unwrap();
        let mut tree = layers.begin().unwrap();
        fs::write(tree.fs().join("both"), "new").unwrap();
        tree.put_on(earlier.clone());
        let later = layers.commit(tree, None).unwrap();
        store.cache().put(&key(), &[Some(later.clone())], "COPY").unwrap();
        drop((layers, store));
        // The leases of the first store have ended.
        let store = Store::open(dir.path()).unwrap();
        (dir, store, earlier, later)
    }

    fn shape() -> Digest {
        Digest::of(b"shape")
    }

    fn key() -> Digest {
        Digest::of(b"key")
    }

    #[test]
    fn a_tree_shows_the_earlier_one_below_it() {
        let (_dir, store, earlier, later) = opened();
        let layers = store.layers();
        let read = |dir: &Dir, name: &str| {
            std::io::read_to_string(dir.open_file(Path::new(name)).unwrap()).unwrap()
        };
        for dir in [layers.open_tree(&later).unwrap(), layers.open_linked_tree(&later).unwrap()] {
            assert_eq!([read(&dir, "old"), read(&dir, "both")], ["old", "new"]);
        }
        let lowers = [layers.tree_path(&later), layers.tree_path(&earlier)];
        assert_eq!(layers.lowers(Some(&later)).unwrap(), lowers);
        assert_eq!(read(&layers.open_tree(&earlier).unwrap(), "both"), "old");
        assert_eq!(store.check().unwrap(), []);
    }

    #[test]
    fn an_earlier_tree_stays_as_long_as_it_is_needed() {
        let (dir, store, earlier, later) = opened();
        assert_eq!(store.collect().unwrap().layers, 0);
        assert!(store.layers().exists(&earlier).unwrap());
        let copied = store.layers().copied_tree(&shape(), None).unwrap().unwrap();
        assert_eq!((&copied.layer, copied.record.len()), (&earlier, 3));
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let pruned = store.prune(&crate::PruneOptions::default()).unwrap();
        let ids: Vec<&str> = pruned.items.iter().map(|item| item.id.as_str()).collect();
        assert_eq!(ids, [later.as_str(), earlier.as_str()], "the upper tree goes first");
        assert!(store.layers().copied_tree(&shape(), None).unwrap().is_none());
        assert_eq!(fs::read_dir(store.layers().trees_dir()).unwrap().count(), 0);
    }

    #[test]
    fn a_tree_is_lost_with_the_earlier_one() {
        let (_dir, store, earlier, later) = opened();
        let layers = store.layers();
        fs::write(layers.tree_path(&earlier).join("old"), "changed").unwrap();
        let known = layers.get(&later).unwrap().unwrap();
        assert!(layers.check_trees([&known]).is_err());
        assert!(layers.copied_tree(&shape(), None).unwrap().is_none());
        let found = store.check().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].what, Damaged::Tree(earlier.clone()));
        store.repair(&found).unwrap();
        assert_eq!(store.check().unwrap(), []);
        assert!(!layers.exists(&later).unwrap() && !layers.tree_path(&later).exists());
        assert!(store.cache().get(&key()).unwrap().is_none());
    }

    #[test]
    fn a_chain_has_no_tree_twice() {
        let (_dir, store, earlier, later) = opened();
        let layers = store.layers();
        let on_top = |parent: &LayerId| {
            let tree = layers.begin().unwrap();
            layers.commit(tree, Some(parent)).unwrap()
        };
        for parent in [earlier.clone(), later.clone(), on_top(&earlier), on_top(&later)] {
            assert!(layers.copied_tree(&shape(), Some(&parent)).unwrap().is_none());
        }
        let other = layers.commit(layers.begin().unwrap(), None).unwrap();
        assert!(layers.copied_tree(&shape(), Some(&other)).unwrap().is_some());
    }

    #[test]
    fn only_whole_trees_with_readable_records_are_built_upon() {
        let (_dir, store, earlier, later) = opened();
        let layers = store.layers();
        let mut tree = layers.begin().unwrap();
        tree.put_on(later.clone());
        assert!(layers.commit(tree, None).is_err(), "a tree of three parts");
        // A layer without a record isn't noted.
        layers.note_copied_tree(&Digest::of(b"other"), &later).unwrap();
        assert!(layers.copied_tree(&Digest::of(b"other"), None).unwrap().is_none());
        let record = layers.trees_dir().join(earlier.as_str()).join(RECORD);
        let bytes = fs::read(&record).unwrap();
        fs::write(&record, &bytes[..bytes.len() - 1]).unwrap();
        assert!(layers.copied_tree(&shape(), None).unwrap().is_none());
    }
}
