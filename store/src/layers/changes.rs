//! The differences between the tars of layers and their trees, by layer.
//!
//! They are determined when a layer is created, from the layers below it. They can't be determined
//! again later, because the layer may be reused on top of another one. They are removed with the
//! layer.

use kiln_tree::Changes;
use rusqlite::{Connection, OptionalExtension};

use super::{LayerId, Layers};
use crate::db::sums;
use crate::error::{Error, Result};

impl Layers {
    /// Returns the differences between the tar of a layer and its tree.
    ///
    /// # Errors
    /// Fails if the index is damaged.
    pub fn changes(&self, id: &LayerId) -> Result<Changes> {
        let sql = format!(
            "SELECT changes, sum IS {} FROM layer_changes WHERE layer = ?1",
            sums::LAYER_CHANGES
        );
        let found = self.room.index().read("look up the changes of a layer", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_row([id.as_str()], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?)))
                .optional()
        })?;
        match found {
            None => Ok(Changes::default()),
            Some((bytes, true)) => Changes::from_bytes(&bytes)
                .ok_or_else(|| Error::damaged(format!("changes of layer {id}"))),
            Some((_, false)) => Err(Error::damaged(format!("changes of layer {id}"))),
        }
    }
}

/// Stores the differences between the tar of a new layer and its tree.
pub(crate) fn put_changes(
    transaction: &Connection,
    id: &LayerId,
    changes: &Changes,
) -> rusqlite::Result<()> {
    if changes.is_empty() {
        return Ok(());
    }
    let sql = "INSERT OR REPLACE INTO layer_changes VALUES (?1, ?2, row_sum(?1, ?2))";
    transaction.prepare_cached(sql)?.execute((id.as_str(), changes.to_bytes()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn changes_go_with_their_layer() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let layers = store.layers();
        let changes = Changes::from_bytes(b"ua\0ub/c\0").unwrap();
        let mut tree = layers.begin().unwrap();
        tree.note(changes.clone());
        let layer = layers.commit(tree, None).unwrap();
        let other = layers.commit(layers.begin().unwrap(), None).unwrap();
        assert_eq!(layers.changes(&layer).unwrap(), changes);
        assert!(layers.changes(&other).unwrap().is_empty());
        let execute = |sql: &str| {
            let write = layers
                .room
                .index()
                .write("test", |transaction| transaction.execute(sql, [layer.as_str()]));
            write.unwrap()
        };
        execute("UPDATE layer_changes SET changes = x'7561' WHERE layer = ?1");
        assert!(layers.changes(&layer).is_err(), "a damaged row is believed");
        execute("DELETE FROM layers WHERE id = ?1");
        assert!(layers.changes(&layer).unwrap().is_empty());
    }
}
