//! The contents of the archives of layers, by diff ID.
//!
//! They are derived from blobs and can be derived again. A trigger of the index removes them with
//! the last layer that has the diff ID.

use kiln_oci::Digest;
use rusqlite::OptionalExtension;

use super::Layers;
use crate::db::sums;
use crate::error::{Error, Result};

/// The compression level. The contents have a few hundred kilobytes and are written once.
const LEVEL: i32 = 3;
/// The maximal size in bytes.
const MOST: usize = 1 << 28;

impl Layers {
    /// Returns the data that was stored with [`Layers::put_contents`].
    pub fn contents(&self, diff_id: &Digest) -> Result<Option<Vec<u8>>> {
        let sql = format!(
            "SELECT content FROM layer_contents WHERE diff_id = ?1 AND sum IS {}",
            sums::LAYER_CONTENTS
        );
        let packed = self.room.index().read("look up what a layer holds", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_row([diff_id.as_bytes()], |row| row.get::<_, Vec<u8>>(0))
                .optional()
        })?;
        // Data that can't be decompressed counts as missing, and is derived again.
        Ok(packed.and_then(|packed| zstd::bulk::decompress(&packed, MOST).ok()))
    }

    /// Stores the contents of a layer's archive. The caller defines the format.
    pub fn put_contents(&self, diff_id: &Digest, contents: &[u8]) -> Result<()> {
        if contents.len() > MOST {
            return Ok(());
        }
        let packed = zstd::bulk::compress(contents, LEVEL)
            .map_err(Error::io("compress", self.room.root().join("kiln.db")))?;
        let sql = "INSERT OR REPLACE INTO layer_contents VALUES (?1, ?2, row_sum(?1, ?2))";
        self.room.index().write("store what a layer holds", |transaction| {
            transaction.prepare_cached(sql)?.execute((diff_id.as_bytes(), packed))?;
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LayerBlob, Store};

    #[test]
    fn layer_contents_go_with_their_last_layer() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers = store.layers();
        let diff_id = Digest::of(b"layer");
        let blob = LayerBlob {
            media_type: kiln_oci::media_type::OCI_LAYER_GZIP.to_owned(),
            digest: Digest::of(b"blob"),
            size: 4,
            origin: Some("example.com/x".to_owned()),
        };
        let base = layers.declare(None, &diff_id, &blob).unwrap();
        let top = layers.declare(Some(&base), &diff_id, &blob).unwrap();
        assert_eq!(layers.contents(&diff_id).unwrap(), None);
        let contents = b"what is there".repeat(1000);
        layers.put_contents(&diff_id, &contents).unwrap();
        assert_eq!(layers.contents(&diff_id).unwrap().as_deref(), Some(&contents[..]));
        let delete = |id: &crate::LayerId| {
            let sql = "DELETE FROM layers WHERE id = ?1";
            let id = id.as_str();
            layers
                .room
                .index()
                .write("delete", |transaction| transaction.execute(sql, [id]))
                .unwrap();
        };
        delete(&top);
        assert!(layers.contents(&diff_id).unwrap().is_some());
        delete(&base);
        assert_eq!(layers.contents(&diff_id).unwrap(), None);
    }
}
