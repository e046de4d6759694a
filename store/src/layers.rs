//! Layers in their three forms: trees, diffs and blobs.
//!
//! A row of the index names a layer and its parent. What forms it has is told by its columns: a
//! *tree* where `snapshots/ID/fs` is there, a *diff* where its diff ID is known (the chain ID
//! follows from it and the parent's), *blobs* for each compression that it was packed or pulled in.
//! A layer of a base image may be known by its diff ID and descriptor alone until somebody needs
//! its tree.

mod blobs;
mod id;
#[cfg(test)]
mod tests;
mod trees;

use std::sync::{Arc, PoisonError};

use kiln_oci::Digest;

pub use self::id::{LayerId, ParseLayerIdError};
use crate::error::{Error, Result};
use crate::integrity::TreeRecord;
use crate::layer_rows::{columns, layer, select, select_by_chain};
use crate::store::Inner;

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the store.
    pub id: LayerId,
    /// The layer below.
    pub parent: Option<LayerId>,
    /// The digest of its uncompressed tar, once it has been packed or was pulled.
    pub diff_id: Option<Digest>,
    /// The identity of the chain up to it (OCI image specification, "Layer `ChainID`").
    pub chain_id: Option<Digest>,
    /// Whether it has a tree.
    pub has_tree: bool,
    /// When it was made or declared, nanoseconds since 1970.
    pub created_at: i64,
    /// What made it, as people are to read it in an image's history.
    pub description: Option<String>,
    /// How its tree was when it was stored.
    pub(crate) tree: Option<TreeRecord>,
}

/// A packed form of a layer. The blob itself need not be in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it can be had, as `docker.io/library/alpine` or a layout's directory, behind
    /// [`CACHE_ORIGIN`] where that is a cache; `None` where it was made here.
    pub origin: Option<String>,
}

/// What the origin of a blob begins with that a cache elsewhere has: until somebody has seen that
/// it is what the cache says, nobody may take it for the layer.
pub const CACHE_ORIGIN: &str = "cache=";

impl LayerBlob {
    /// Returns the place of the cache that has it, where it isn't verified yet.
    pub fn cache_place(&self) -> Option<&str> {
        self.origin.as_deref()?.strip_prefix(CACHE_ORIGIN)
    }

    /// Tells whether it is a base image's own.
    pub fn came_with_an_image(&self) -> bool {
        self.origin.is_some() && self.cache_place().is_none()
    }
}

/// The layers.
#[derive(Clone, Debug)]
pub struct Layers {
    pub(crate) inner: Arc<Inner>,
}

/// Returns the identity of the chain that ends in a layer with `diff_id` on top of the chain
/// `parent`. (OCI image specification, "Layer `ChainID`".)
pub fn chain_id(parent: Option<&Digest>, diff_id: &Digest) -> Digest {
    match parent {
        None => *diff_id,
        Some(parent) => Digest::of(format!("{parent} {diff_id}").as_bytes()),
    }
}

impl Layers {
    /// Returns what is known of a layer.
    pub fn get(&self, id: &LayerId) -> Result<Option<Layer>> {
        self.inner.index.read("look up a layer", |connection| select(connection, id.as_str()))
    }

    /// Tells whether the store knows the layer.
    pub fn exists(&self, id: &LayerId) -> Result<bool> {
        Ok(self.get(id)?.is_some())
    }

    /// Returns the layer and all below it, base first.
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
        let chain = self.inner.index.read("look up a chain", |connection| {
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

    /// Returns a layer by its chain ID; one with a tree where there is a choice.
    pub fn by_chain_id(&self, chain_id: &Digest) -> Result<Option<Layer>> {
        self.inner.index.read("look up a chain", |connection| select_by_chain(connection, chain_id))
    }

    /// Notes what made a layer, for histories of images whose config doesn't tell.
    pub fn describe(&self, id: &LayerId, description: &str) -> Result<()> {
        self.inner.index.write("describe a layer", |transaction| {
            transaction
                .prepare_cached("UPDATE layers SET description = ?2 WHERE id = ?1")?
                .execute((id.as_str(), description))?;
            Ok(())
        })
    }

    /// Holds layers, and all below them, by the process's implicit lease, and tells whether all are
    /// there.
    pub fn hold<'a>(&self, ids: impl IntoIterator<Item = &'a LayerId>) -> Result<bool> {
        let mut held = self.inner.held.lock().unwrap_or_else(PoisonError::into_inner);
        let new: Vec<&LayerId> = ids.into_iter().filter(|id| !held.contains(id.as_str())).collect();
        if new.is_empty() {
            return Ok(true);
        }
        let all = self.inner.index.write("hold layers", |transaction| {
            let mut there = transaction.prepare_cached("SELECT 1 FROM layers WHERE id = ?1")?;
            for id in &new {
                if !there.exists([id.as_str()])? {
                    return Ok(false);
                }
                self.inner.hold_layer(transaction, id.as_str())?;
            }
            Ok(true)
        })?;
        if all {
            held.extend(new.iter().map(|id| id.as_str().to_owned()));
        }
        Ok(all)
    }

    /// Holds the packed forms of layers that are there, by the process's implicit lease: all at once,
    /// which takes less than one after the other.
    pub fn hold_blobs<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Result<()> {
        let held = self.inner.index.write("hold packed layers", |transaction| {
            let sql = "SELECT digest FROM layer_blobs
                       WHERE layer = ?1 AND digest IN (SELECT digest FROM blobs)";
            let mut find = transaction.prepare_cached(sql)?;
            let mut held = Vec::new();
            for layer in layers {
                let found = find.query_map([layer.id.as_str()], |row| row.get(0))?;
                for digest in found {
                    let digest = Digest::from_bytes(digest?);
                    self.inner.hold_blob(transaction, &digest)?;
                    held.push(digest);
                }
            }
            Ok(held)
        })?;
        self.inner.held_blobs().extend(held);
        Ok(())
    }
}
