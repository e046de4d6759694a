//! Removal of what lost files and distrusted blobs leave behind.

use kiln_oci::Digest;
use rusqlite::Connection;

use super::{CacheIndex, recipes};
use crate::db::digest_column;
use crate::error::Result;
use crate::layers::parts::forget_incomplete;
use crate::layers::remote::forget_cached;

impl CacheIndex {
    /// Removes a blob of a remote cache that can't be downloaded or has other contents, and
    /// everything that depends on it: layers, and records of results.
    pub fn distrust(&self, blob: &Digest) -> Result<()> {
        self.room.index().write("drop a cached layer", |transaction| {
            forget_cached(transaction, blob)?;
            forget_lost(transaction)
        })
    }
}

/// Deletes the rows of layers without any form, and of layers that have a diff ID but no packed
/// form (a tree that came from another layer doesn't pack to that diff ID). Also deletes the layers
/// above them, and the images and cache records that need them.
pub(crate) fn forget_lost(transaction: &Connection) -> rusqlite::Result<()> {
    forget_incomplete(transaction)?;
    loop {
        forget_lost_layers(transaction)?;
        // A lost layer's tree may have been a part of other trees.
        if forget_incomplete(transaction)? == 0 {
            break;
        }
    }
    let lost = "DELETE FROM cache_records WHERE key IN (
            SELECT key FROM cache_outputs
            WHERE layer IS NOT NULL AND layer NOT IN (SELECT id FROM layers))
        RETURNING key";
    for key in digest_column(transaction, lost)? {
        recipes::note_lost(transaction, &key)?;
    }
    let orphans = "DELETE FROM cache_outputs WHERE key NOT IN (SELECT key FROM cache_records)";
    transaction.execute(orphans, []).map(|_| ())
}

fn forget_lost_layers(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "WITH RECURSIVE lost(id) AS (
             SELECT id FROM layers WHERE NOT has_tree AND NOT EXISTS (
                 SELECT 1 FROM layer_blobs WHERE layer = layers.id AND (
                     origin IS NOT NULL OR digest IN (SELECT digest FROM blobs)))
                OR parent NOT IN (SELECT id FROM layers)
                OR diff_id IS NOT NULL AND id NOT IN (SELECT layer FROM layer_blobs)
             UNION
             SELECT layers.id FROM layers JOIN lost ON layers.parent = lost.id
         )
         DELETE FROM layers WHERE id IN (SELECT id FROM lost);
         DELETE FROM layer_blobs WHERE layer NOT IN (SELECT id FROM layers);
         DELETE FROM images WHERE digest NOT IN (SELECT digest FROM blobs);",
    )
}
