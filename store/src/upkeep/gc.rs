//! Garbage collection, and removal of chosen parts of the cache.
//!
//! [`Inventory`] determines the garbage. The rows are deleted in one transaction, leaves first, and
//! then the files, all while the root lock is held exclusively. So a process that stores a removed
//! blob again waits, and its file isn't deleted under its row. Trees are moved aside under the lock
//! and removed after it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_oci::Digest;
use rusqlite::Connection;

use super::inventory::{ImageReach, Inventory, Node};
use super::{Upkeep, recovery, tree_sizes};
use crate::cache::{self, Uses};
use crate::content::{Content, ingest};
use crate::error::{Error, Result};
use crate::room::Room;
use crate::room::lock::RootLock;
use crate::room::remove::remove_tree;

/// The result of a garbage collection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// The number of layers removed.
    pub layers: u64,
    /// The number of blobs removed.
    pub blobs: u64,
    /// The disk space freed, in bytes.
    pub bytes: u64,
}

impl Upkeep {
    /// Removes every blob and layer that no image, cache record or living lease reaches.
    pub(crate) fn collect(&self) -> Result<Collected> {
        let (mut collected, ()) = collect_with(&self.room, &self.uses, |_| (Vec::new(), ()))?;
        collected.bytes += ingest::sweep(self.room.root())?;
        self.builds().prune()?;
        Ok(collected)
    }
}

/// Lets `choose` select cache records of the inventory, by index. Removes these records and
/// then everything that is no longer reachable.
pub(super) fn collect_with<T>(
    room: &Arc<Room>,
    uses: &Uses,
    choose: impl FnOnce(&mut Inventory) -> (Vec<usize>, T),
) -> Result<(Collected, T)> {
    uses.flush(room.index())?;
    let images = ImageReach::of(room)?;
    let content = Content::new(room);
    let mut collected = Collected::default();
    let mut trees = Vec::new();
    let value = {
        let _alone = RootLock::exclusive(room.root())?;
        recovery::reap(room)?;
        let (doomed, value) = room.index().write("collect garbage", |transaction| {
            let mut inventory = Inventory::take(transaction, &images)?;
            let (records, value) = choose(&mut inventory);
            for record in records {
                cache::forget(transaction, &inventory.records[record].key)?;
            }
            Ok((Unreachable::of(transaction, &inventory)?, value))
        })?;
        collected.layers = doomed.layers.len() as u64;
        collected.blobs = doomed.blobs.len() as u64;
        for id in &doomed.layers {
            trees.extend(set_aside(room, id)?);
        }
        for digest in &doomed.blobs {
            collected.bytes += unlink_blob(&content, digest)?;
        }
        value
    };
    for tree in &trees {
        collected.bytes += remove_tree(tree).map_err(Error::io("remove", tree))?;
    }
    if !trees.is_empty() {
        tree_sizes::recount_shared(room)?;
    }
    Ok((collected, value))
}

/// The parts whose rows are deleted.
struct Unreachable {
    layers: Vec<String>,
    blobs: Vec<Digest>,
}

impl Unreachable {
    /// Deletes the rows of unreachable parts.
    fn of(transaction: &Connection, inventory: &Inventory) -> rusqlite::Result<Self> {
        let garbage = inventory.garbage();
        let layers: Vec<String> = garbage
            .iter()
            .map(|place| &inventory.layers[*place])
            .map(|Node { id, .. }| id.clone())
            .collect();
        for id in &layers {
            for sql in
                ["DELETE FROM layer_blobs WHERE layer = ?1", "DELETE FROM layers WHERE id = ?1"]
            {
                transaction.prepare_cached(sql)?.execute([id])?;
            }
        }
        let blobs = inventory.loose_blobs();
        for digest in &blobs {
            transaction
                .prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
                .execute([digest.as_bytes()])?;
        }
        let orphans = "DELETE FROM blob_repositories WHERE digest NOT IN
                       (SELECT digest FROM blobs UNION SELECT digest FROM layer_blobs)";
        transaction.prepare_cached(orphans)?.execute([])?;
        Ok(Self { layers, blobs })
    }
}

/// Moves a tree to a path that no other process knows. Returns the path if the tree existed.
fn set_aside(room: &Room, id: &str) -> Result<Option<PathBuf>> {
    let (from, to) = (room.trees().join(id), room.process().fresh());
    match fs::rename(&from, &to) {
        Ok(()) => Ok(Some(to)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("rename", from)(error)),
    }
}

fn unlink_blob(content: &Content, digest: &Digest) -> Result<u64> {
    let path = content.path(digest);
    let bytes = fs::symlink_metadata(&path).map_or(0, |file| file.blocks() * 512);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(bytes),
    }
}
