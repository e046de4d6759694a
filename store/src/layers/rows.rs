//! The rows of layers in the index.

use kiln_oci::Digest;
use kiln_tree::{DiskUse, Stamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::integrity::TreeRecord;
use super::{Layer, LayerBlob, LayerId, chain_id};
use crate::db::sums;
use crate::name;

/// Returns the columns of a layer for a query.
pub(crate) fn columns() -> String {
    let sum = sums::LAYER;
    format!(
        "layers.id, layers.parent, layers.diff_id, layers.chain_id, layers.has_tree,
         layers.created_at, layers.description, layers.stamp, layers.entries, layers.seal,
         layers.checked_at, layers.sum IS {sum}, layers.earlier"
    )
}

/// A layer to insert.
pub(crate) struct NewLayer<'a> {
    pub(crate) id: &'a LayerId,
    pub(crate) parent: Option<&'a LayerId>,
    pub(crate) diff_id: Option<&'a Digest>,
    /// The records of the layer's tree, if it has one.
    pub(crate) tree: Option<NewTree>,
    /// The layer whose tree is the lower part of the tree.
    pub(crate) earlier: Option<&'a LayerId>,
}

impl<'a> NewLayer<'a> {
    /// Returns a layer with a diff ID and without a tree.
    pub(crate) fn without_tree(
        id: &'a LayerId,
        parent: Option<&'a LayerId>,
        diff_id: &'a Digest,
    ) -> Self {
        Self { id, parent, diff_id: Some(diff_id), tree: None, earlier: None }
    }
}

/// The records of a tree that are taken when it is stored.
pub(crate) struct NewTree {
    pub(crate) stamp: Stamp,
    pub(crate) room: DiskUse,
}

pub(crate) fn insert(
    transaction: &Connection,
    row: &NewLayer<'_>,
    chain: Option<&Digest>,
) -> rusqlite::Result<()> {
    let sql = "INSERT INTO layers (id, parent, diff_id, chain_id, has_tree, created_at, stamp,
                                   entries, disk, shared, earlier, tree_epoch, checked_at)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,
                       (SELECT value FROM meta WHERE key = 'epoch'), ?6)";
    let room = row.tree.as_ref().map_or_else(DiskUse::default, |tree| tree.room);
    transaction.prepare_cached(sql)?.execute((
        row.id.as_str(),
        row.parent.map(LayerId::as_str),
        row.diff_id.map(Digest::as_bytes),
        chain.map(Digest::as_bytes),
        row.tree.is_some(),
        name::now(),
        row.tree.as_ref().map(|tree| tree.stamp.digest.as_bytes()),
        row.tree.as_ref().map(|tree| tree.stamp.entries.cast_signed()),
        room.own.cast_signed(),
        room.shared.cast_signed(),
        row.earlier.map(LayerId::as_str),
    ))?;
    Ok(())
}

pub(crate) fn insert_blob(
    transaction: &Connection,
    id: &LayerId,
    blob: &LayerBlob,
) -> rusqlite::Result<()> {
    // A known origin is kept, and an unchanged row isn't written.
    let resolution = "SET media_type = excluded.media_type,
                      origin = coalesce(excluded.origin, origin)
                      WHERE media_type <> excluded.media_type
                      OR origin IS NOT coalesce(excluded.origin, origin)";
    upsert_blob(transaction, id, blob, resolution)
}

/// Inserts the row of a layer's blob. `resolution` is the update of SQL if the row exists.
pub(super) fn upsert_blob(
    transaction: &Connection,
    id: &LayerId,
    blob: &LayerBlob,
    resolution: &'static str,
) -> rusqlite::Result<()> {
    let sql = format!(
        "INSERT INTO layer_blobs (layer, digest, media_type, size, origin)
         VALUES (?1, ?2, ?3, ?4, ?5)
         ON CONFLICT DO UPDATE {resolution}"
    );
    transaction.prepare_cached(&sql)?.execute((
        id.as_str(),
        blob.digest.as_bytes(),
        &blob.media_type,
        blob.size.cast_signed(),
        &blob.origin,
    ))?;
    Ok(())
}

/// Computes the chain IDs of a layer and of those above it, as far as their diff IDs are known.
pub(crate) fn spread_chain_ids(transaction: &Connection, id: &str) -> rusqlite::Result<()> {
    let mut waiting = vec![id.to_owned()];
    while let Some(id) = waiting.pop() {
        let Some(layer) = select(transaction, &id)? else { continue };
        let Some(diff_id) = layer.diff_id else { continue };
        let below = match &layer.parent {
            Some(parent) => match select(transaction, parent.as_str())?.and_then(|p| p.chain_id) {
                Some(chain) => Some(chain),
                None => continue,
            },
            None => None,
        };
        transaction
            .prepare_cached("UPDATE layers SET chain_id = ?2 WHERE id = ?1")?
            .execute((&id, chain_id(below.as_ref(), &diff_id).as_bytes()))?;
        let above: Vec<String> = transaction
            .prepare_cached(
                "SELECT id FROM layers
                 WHERE parent = ?1 AND diff_id IS NOT NULL AND chain_id IS NULL",
            )?
            .query_map([&id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        waiting.extend(above);
    }
    Ok(())
}

pub(crate) fn select(connection: &Connection, id: &str) -> rusqlite::Result<Option<Layer>> {
    let sql = format!("SELECT {} FROM layers WHERE id = ?1", columns());
    connection.prepare_cached(&sql)?.query_row([id], layer).optional()
}

pub(crate) fn select_by_chain(
    connection: &Connection,
    chain: &Digest,
) -> rusqlite::Result<Option<Layer>> {
    let sql = format!(
        "SELECT {} FROM layers WHERE chain_id = ?1 ORDER BY has_tree DESC, created_at LIMIT 1",
        columns()
    );
    connection.prepare_cached(&sql)?.query_row([chain.as_bytes()], layer).optional()
}

/// Returns the layer on `parent` for a blob: a layer with this blob, or else one with a tree, whose
/// contents are verified. An image's statement about a blob doesn't apply to the layers of other
/// images.
pub(crate) fn select_for_blob(
    connection: &Connection,
    parent: Option<&LayerId>,
    chain: &Digest,
    blob: &Digest,
) -> rusqlite::Result<Option<LayerId>> {
    let sql = "SELECT id, EXISTS (
                   SELECT 1 FROM layer_blobs WHERE layer = layers.id AND digest = ?3) AS is_packed
               FROM layers WHERE chain_id = ?1 AND parent IS ?2 AND (has_tree OR is_packed)
               ORDER BY is_packed DESC, has_tree DESC, created_at LIMIT 1";
    let parameters = (chain.as_bytes(), parent.map(LayerId::as_str), blob.as_bytes());
    connection
        .prepare_cached(sql)?
        .query_row(parameters, |row| Ok(LayerId::from_index(row.get(0)?)))
        .optional()
}

/// Returns `true` if a layer has packed forms, but not this blob.
pub(crate) fn has_other_blobs(
    connection: &Connection,
    id: &LayerId,
    blob: &Digest,
) -> rusqlite::Result<bool> {
    let sql = "SELECT 1 FROM layer_blobs WHERE layer = ?1
               AND NOT EXISTS (SELECT 1 FROM layer_blobs WHERE layer = ?1 AND digest = ?2)";
    connection.prepare_cached(sql)?.exists((id.as_str(), blob.as_bytes()))
}

/// Converts a row with [`columns`] to a layer.
pub(crate) fn layer(row: &Row<'_>) -> rusqlite::Result<Layer> {
    sums::check(row, 11)?;
    let digest = |column: usize| -> rusqlite::Result<Option<Digest>> {
        Ok(row.get::<_, Option<[u8; 32]>>(column)?.map(Digest::from_bytes))
    };
    let entries = row.get::<_, Option<i64>>(8)?.map(i64::cast_unsigned);
    let stamp = digest(7)?.zip(entries).map(|(digest, entries)| Stamp { entries, digest });
    let (seal, checked_at) = (digest(9)?, row.get(10)?);
    Ok(Layer {
        id: LayerId::from_index(row.get(0)?),
        parent: row.get::<_, Option<String>>(1)?.map(LayerId::from_index),
        diff_id: digest(2)?,
        chain_id: digest(3)?,
        has_tree: row.get(4)?,
        created_at: row.get(5)?,
        description: row.get(6)?,
        tree: stamp.map(|stamp| TreeRecord { stamp, seal, checked_at }),
        earlier: row.get::<_, Option<String>>(12)?.map(LayerId::from_index),
    })
}
