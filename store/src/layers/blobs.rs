//! The packed forms of layers.

use kiln_oci::Digest;
use rusqlite::Connection;

use super::rows::{
    NewLayer, has_other_blobs, insert, insert_blob, select, select_for_blob, spread_chain_ids,
};
use super::{LayerBlob, LayerId, Layers, chain_id};
use crate::db::sums;
use crate::error::{Error, Result};

impl Layers {
    /// Declares a layer by its diff ID and a blob. Returns the existing layer if one has the same
    /// chain ID, and the same blob or a tree.
    ///
    /// Until the blob is unpacked, only an image states that it has the diff ID. So the blob is not
    /// added to the packed forms of an existing layer, nor to a layer that was never unpacked.
    /// Otherwise, another image with the same layer could be exported with a wrong blob.
    pub fn declare(
        &self,
        parent: Option<&LayerId>,
        diff_id: &Digest,
        blob: &LayerBlob,
    ) -> Result<LayerId> {
        let chain = self.chain_on(parent, diff_id)?;
        self.room.index().write("declare a layer", |transaction| {
            self.declare_in(transaction, parent, &chain, diff_id, blob)
        })
    }

    /// Declares the layers of an image, base first, like [`Layers::declare`]. Returns the uppermost
    /// layer.
    pub fn declare_all(&self, layers: &[(Digest, LayerBlob)]) -> Result<Option<LayerId>> {
        self.room.index().write("declare layers", |transaction| {
            let mut below: Option<(LayerId, Digest)> = None;
            for (diff_id, blob) in layers {
                let chain = chain_id(below.as_ref().map(|(_, chain)| chain), diff_id);
                let parent = below.as_ref().map(|(id, _)| id);
                let id = self.declare_in(transaction, parent, &chain, diff_id, blob)?;
                below = Some((id, chain));
            }
            Ok(below.map(|(id, _)| id))
        })
    }

    fn declare_in(
        &self,
        transaction: &Connection,
        parent: Option<&LayerId>,
        chain: &Digest,
        diff_id: &Digest,
        blob: &LayerBlob,
    ) -> rusqlite::Result<LayerId> {
        let known = select_for_blob(transaction, parent, chain, &blob.digest)?;
        let id = if let Some(known) = known {
            known
        } else {
            let id = LayerId::fresh();
            let row = NewLayer::without_tree(&id, parent, diff_id);
            insert(transaction, &row, Some(chain))?;
            id
        };
        if !has_other_blobs(transaction, &id, &blob.digest)? {
            insert_blob(transaction, &id, blob)?;
        }
        self.room.hold_layer(transaction, id.as_str())?;
        Ok(id)
    }

    /// Returns the chain ID of a layer with `diff_id` on `parent`, whose own chain ID must be
    /// known.
    pub(crate) fn chain_on(&self, parent: Option<&LayerId>, diff_id: &Digest) -> Result<Digest> {
        let below = match parent {
            Some(id) => {
                let parent = self.get(id)?.ok_or_else(|| Error::missing("layer", id))?;
                let unpacked = || Error::missing("chain ID of layer", id);
                Some(parent.chain_id.ok_or_else(unpacked)?)
            }
            None => None,
        };
        Ok(chain_id(below.as_ref(), diff_id))
    }

    /// Creates a layer on top of `parent` for a blob that was created here. Returns the existing
    /// layer if one has the same chain ID, and a tree or the same blob.
    pub fn commit_blob(
        &self,
        parent: Option<&LayerId>,
        diff_id: &Digest,
        blob: &LayerBlob,
    ) -> Result<LayerId> {
        let stored = self.room.index().write("store a layer", |transaction| {
            let below = match parent {
                Some(parent) => match select(transaction, parent.as_str())? {
                    Some(parent) => Some(parent.chain_id),
                    None => return Ok(None),
                },
                None => None,
            };
            let chain = match below {
                None => Some(chain_id(None, diff_id)),
                Some(below) => below.map(|below| chain_id(Some(&below), diff_id)),
            };
            let known = match &chain {
                Some(chain) => select_for_blob(transaction, parent, chain, &blob.digest)?,
                None => None,
            };
            let id = if let Some(known) = known {
                known
            } else {
                let id = LayerId::fresh();
                let row = NewLayer::without_tree(&id, parent, diff_id);
                insert(transaction, &row, chain.as_ref())?;
                id
            };
            insert_blob(transaction, &id, blob)?;
            self.room.hold_layer(transaction, id.as_str())?;
            Ok(Some(id))
        })?;
        stored.ok_or_else(|| Error::missing("layer", parent.map_or("", LayerId::as_str)))
    }

    /// Records a packed form of a layer, and the digest of its uncompressed tar.
    ///
    /// # Errors
    /// Fails if the layer has another diff ID, since a tree packs to a single tar.
    pub fn add_blob(&self, id: &LayerId, diff_id: &Digest, blob: &LayerBlob) -> Result<()> {
        let known = self.room.index().write("record a packed layer", |transaction| {
            let Some(layer) = select(transaction, id.as_str())? else { return Ok(None) };
            if layer.diff_id.is_none() {
                transaction
                    .prepare_cached("UPDATE layers SET diff_id = ?2 WHERE id = ?1")?
                    .execute((id.as_str(), diff_id.as_bytes()))?;
                spread_chain_ids(transaction, id.as_str())?;
            } else if layer.diff_id != Some(*diff_id) {
                return Ok(layer.diff_id);
            }
            insert_blob(transaction, id, blob)?;
            Ok(Some(*diff_id))
        })?;
        match known {
            None => Err(Error::missing("layer", id)),
            Some(known) if known != *diff_id => {
                Err(Error::DigestMismatch { expected: known, actual: *diff_id })
            }
            Some(_) => Ok(()),
        }
    }

    /// Returns the packed forms of a layer, sorted by media type and digest.
    pub fn blobs(&self, id: &LayerId) -> Result<Vec<LayerBlob>> {
        let sql = format!(
            "SELECT media_type, digest, size, origin, sum IS {} FROM layer_blobs
             WHERE layer = ?1 ORDER BY media_type, digest",
            sums::LAYER_BLOB
        );
        self.room.index().read("look up packed layers", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_map([id.as_str()], |row| {
                    sums::check(row, 4)?;
                    Ok(LayerBlob {
                        media_type: row.get(0)?,
                        digest: Digest::from_bytes(row.get(1)?),
                        size: row.get::<_, i64>(2)?.cast_unsigned(),
                        origin: row.get(3)?,
                    })
                })?
                .collect()
        })
    }

    /// Returns the places where a blob is available: the origins in all layers with this packed
    /// form.
    pub fn origins(&self, blob: &Digest) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT origin FROM layer_blobs
                   WHERE digest = ?1 AND origin IS NOT NULL ORDER BY origin";
        self.room.index().read("look up origins", |connection| {
            connection
                .prepare_cached(sql)?
                .query_map([blob.as_bytes()], |row| row.get(0))?
                .collect()
        })
    }
}
