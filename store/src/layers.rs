//! Layers in their three forms: trees, diffs and blobs.
//!
//! A row of the index names a layer and its parent. Its columns show the forms of the layer: it has
//! a *tree* if `snapshots/ID/fs` exists, a *diff* if its diff ID is known (the chain ID follows
//! from it and the parent's), and *blobs* for each compression in which it was packed or pulled.
//! For a layer of a base image, only the diff ID and the descriptor may be known until its tree is
//! needed.

mod blobs;
mod changes;
mod contents;
mod id;
pub(crate) mod integrity;
pub(crate) mod lease;
pub(crate) mod parts;
pub(crate) mod pending;
pub(crate) mod remote;
pub(crate) mod rows;
pub(crate) mod snapshotter;
#[cfg(test)]
mod tests;
pub(crate) mod trees;
pub(crate) mod views;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, OnceLock};

use kiln_oci::Digest;

pub use self::id::{LayerId, ParseLayerIdError};
use self::integrity::TreeRecord;
use self::parts::LinkedTrees;
use self::rows::{columns, layer, select, select_by_chain};
use self::snapshotter::{Snapshotter, Snapshotting};
use self::views::Views;
use crate::error::{Error, Result};
use crate::room::Room;

/// The row of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// The ID of the layer in the store.
    pub id: LayerId,
    /// The ID of the layer below; `None` for a base.
    pub parent: Option<LayerId>,
    /// The digest of the uncompressed tar, once the layer was packed or pulled.
    pub diff_id: Option<Digest>,
    /// The identity of the chain up to this layer (OCI image specification, "Layer `ChainID`").
    pub chain_id: Option<Digest>,
    /// `true` if the layer has a tree.
    pub has_tree: bool,
    /// The time when the layer was created or declared, in nanoseconds since 1970.
    pub created_at: i64,
    /// The instruction that created the layer, for display in an image's history.
    pub description: Option<String>,
    /// The records of the tree, for detecting changes.
    pub(crate) tree: Option<TreeRecord>,
    /// The layer whose tree is the lower part of this layer's tree ([`parts`]).
    pub(crate) earlier: Option<LayerId>,
}

/// A packed form of a layer. The blob itself need not be in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// The media type of the blob.
    pub media_type: String,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The place where the blob is available, as `docker.io/library/alpine` or a layout's
    /// directory, prefixed by [`CACHE_ORIGIN`] for a cache; `None` for a blob that was created
    /// here.
    pub origin: Option<String>,
}

/// The prefix of the origin of a blob in a remote cache. Such a blob must not be used as the layer
/// until its contents are verified.
pub const CACHE_ORIGIN: &str = "cache=";

impl LayerBlob {
    /// Returns the place of the cache that has the blob, if the blob isn't verified yet.
    pub fn cache_place(&self) -> Option<&str> {
        self.origin.as_deref()?.strip_prefix(CACHE_ORIGIN)
    }

    /// Returns `true` if the blob belongs to a base image.
    pub fn came_with_an_image(&self) -> bool {
        self.origin.is_some() && self.cache_place().is_none()
    }
}

/// The layers of a store.
#[derive(Clone, Debug)]
pub struct Layers {
    room: Arc<Room>,
    state: Arc<State>,
}

/// The state that all handles to the layers of an open store share.
#[derive(Debug, Default)]
struct State {
    /// The layers whose trees this process has checked or created.
    checked: Mutex<HashSet<String>>,
    /// The requested snapshotter, if there is one.
    wanted: Option<Snapshotter>,
    /// The chosen snapshotter, once it was needed.
    snapshotting: Arc<OnceLock<Snapshotting>>,
    views: Views,
    linked: LinkedTrees,
}

/// Returns the identity of the chain that ends in a layer with `diff_id` on top of the chain
/// `parent` (OCI image specification, "Layer `ChainID`").
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
    }
}

impl Layers {
    /// Returns a handle to the layers of an open store, with the requested snapshotter.
    pub(crate) fn new(room: &Arc<Room>, wanted: Option<Snapshotter>) -> Self {
        let state = State { wanted, ..State::default() };
        Self { room: room.clone(), state: Arc::new(state) }
    }

    /// Returns a handle to the layers of another room of the same store, with the same snapshotter.
    pub(crate) fn beside(&self, room: &Arc<Room>) -> Self {
        let State { wanted, snapshotting, .. } = &*self.state;
        let (wanted, snapshotting) = (*wanted, Arc::clone(snapshotting));
        let state = State { wanted, snapshotting, ..State::default() };
        Self { room: room.clone(), state: Arc::new(state) }
    }

    /// Returns the row of a layer, if it exists.
    pub fn get(&self, id: &LayerId) -> Result<Option<Layer>> {
        self.room.index().read("look up a layer", |connection| select(connection, id.as_str()))
    }

    /// Returns `true` if the layer exists.
    pub fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.get(id)?.is_some())
    }

    /// Returns the layer and all layers below it, base first.
    pub fn chain(&self, id: &LayerId) -> Result<Vec<Layer>> {
        let sql = format!(
            "WITH RECURSIVE up(id, depth) AS (
                 SELECT ?1, 0
                 UNION ALL
                 SELECT layers.parent, depth + 1 FROM layers JOIN up ON layers.id = up.id
                 WHERE layers.parent IS NOT NULL
             )
             SELECT {} FROM up LEFT JOIN layers ON layers.id = up.id ORDER BY depth DESC",
            columns()
        );
        let chain = self.room.index().read("look up a chain", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_map([id.as_str()], |row| {
                    let known: Option<String> = row.get(0)?;
                    known.map(|_| layer(row)).transpose()
                })?
                .collect::<rusqlite::Result<Option<Vec<Layer>>>>()
        })?;
        chain.ok_or_else(|| Error::missing("layer", format!("{id} or one below it")))
    }

    /// Returns a layer with this chain ID, preferably one with a tree.
    pub fn by_chain_id(&self, chain_id: &Digest) -> Result<Option<Layer>> {
        self.room
            .index()
            .read("look up a chain", |connection| select_by_chain(connection, chain_id))
    }

    /// Records the instruction that created a layer, for histories of images whose config doesn't
    /// have it.
    pub fn describe(&self, id: &LayerId, description: &str) -> Result<()> {
        self.room.index().write("describe a layer", |transaction| {
            transaction
                .prepare_cached("UPDATE layers SET description = ?2 WHERE id = ?1")?
                .execute((id.as_str(), description))?;
            Ok(())
        })
    }

    /// Adds layers, and all layers below them, to the process's implicit lease. Returns `true` if
    /// all exist.
    pub fn hold<'a>(&self, ids: impl IntoIterator<Item = &'a LayerId>) -> Result<bool> {
        let mut held = self.room.held_layers();
        let new: Vec<&LayerId> = ids.into_iter().filter(|id| !held.contains(id.as_str())).collect();
        if new.is_empty() {
            return Ok(true);
        }
        let all = self.room.index().write("hold layers", |transaction| {
            let mut there = transaction.prepare_cached("SELECT 1 FROM layers WHERE id = ?1")?;
            for id in &new {
                if !there.exists([id.as_str()])? {
                    return Ok(false);
                }
                self.room.hold_layer(transaction, id.as_str())?;
            }
            Ok(true)
        })?;
        if all {
            held.extend(new.iter().map(|id| id.as_str().to_owned()));
        }
        Ok(all)
    }

    /// Adds the packed forms of layers that are in the store to the process's implicit lease, in
    /// one transaction for speed.
    pub fn hold_blobs<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Result<()> {
        let held = self.room.index().write("hold packed layers", |transaction| {
            let sql = "SELECT digest FROM layer_blobs
                       WHERE layer = ?1 AND digest IN (SELECT digest FROM blobs)";
            let mut find = transaction.prepare_cached(sql)?;
            let mut held = Vec::new();
            for layer in layers {
                let found = find.query_map([layer.id.as_str()], |row| row.get(0))?;
                for digest in found {
                    let digest = Digest::from_bytes(digest?);
                    self.room.hold_blob(transaction, &digest)?;
                    held.push(digest);
                }
            }
            Ok(held)
        })?;
        self.room.held_blobs().extend(held);
        Ok(())
    }
}
