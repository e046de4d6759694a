//! The build cache: cache records, digests of files, durations of steps and cache mounts, and the
//! tables that explain misses.
//!
//! # Cache records
//!
//! A cache record has the layers for a key. A look-up checks that the record's checksum is right
//! and that every layer exists. It adds the layers to the process's implicit lease before it
//! returns them.

mod durations;
pub(crate) mod file_digests;
pub(crate) mod listings;
pub(crate) mod lost;
pub(crate) mod mounts;
pub(crate) mod recipes;
mod uses;

use std::sync::Arc;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension};

pub(crate) use self::uses::Uses;
use crate::db::sums;
use crate::error::Result;
use crate::layers::{LayerId, Layers};
use crate::name;
use crate::room::Room;

/// The kind of a part of the cache, with BuildKit's names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheKind {
    /// The result of a step, or a layer of an image.
    #[default]
    Regular,
    /// The files of a Git commit.
    GitCheckout,
    /// The directory of a cache mount.
    CacheMount,
}

impl CacheKind {
    /// All kinds, in order.
    pub const ALL: [Self; 3] = [Self::Regular, Self::GitCheckout, Self::CacheMount];

    /// Returns BuildKit's name of the kind, as `regular`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Regular => "regular",
            Self::GitCheckout => "source.git.checkout",
            Self::CacheMount => "exec.cachemount",
        }
    }

    /// Returns the kind with this name.
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name)
    }
}

/// The cache records of a store.
#[derive(Clone, Debug)]
pub struct CacheIndex {
    room: Arc<Room>,
    layers: Layers,
    uses: Arc<Uses>,
}

impl CacheIndex {
    /// Returns a handle to the cache of an open store. `uses` are the uses that [`Uses::flush`]
    /// writes.
    pub(crate) fn new(room: &Arc<Room>, layers: &Layers, uses: &Arc<Uses>) -> Self {
        Self { room: room.clone(), layers: layers.clone(), uses: uses.clone() }
    }

    /// Returns the canonical key that is linked to a definition key.
    pub fn canonical(&self, definition: &Digest) -> Result<Option<Digest>> {
        let sql = format!(
            "SELECT canonical FROM cache_links WHERE definition = ?1 AND sum IS {}",
            sums::LINK
        );
        self.room.index().read("look up a key", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_row([definition.as_bytes()], |row| Ok(Digest::from_bytes(row.get(0)?)))
                .optional()
        })
    }

    /// Links a definition key to a canonical key.
    pub fn link(&self, definition: &Digest, canonical: &Digest) -> Result<()> {
        let sql = "INSERT OR REPLACE INTO cache_links VALUES (?1, ?2, ?3, row_sum(?1, ?2))";
        self.room.index().write("link a key", |transaction| {
            transaction.prepare_cached(sql)?.execute((
                definition.as_bytes(),
                canonical.as_bytes(),
                name::now(),
            ))?;
            Ok(())
        })
    }

    /// Returns the layers stored under a canonical key, one per output (`None` for an empty file
    /// system), if the record and all of its layers exist. Records the use.
    pub fn get(&self, key: &Digest) -> Result<Option<Vec<Option<LayerId>>>> {
        let found = self.room.index().read("look up a result", |connection| {
            let record =
                format!("SELECT 1 FROM cache_records WHERE key = ?1 AND sum IS {}", sums::RECORD);
            if !connection.prepare_cached(&record)?.exists([key.as_bytes()])? {
                return Ok(None);
            }
            let outputs = "SELECT layer FROM cache_outputs WHERE key = ?1 ORDER BY number";
            connection
                .prepare_cached(outputs)?
                .query_map([key.as_bytes()], |row| {
                    Ok(row.get::<_, Option<String>>(0)?.map(LayerId::from_index))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()
                .map(Some)
        })?;
        let Some(outputs) = found else { return Ok(None) };
        if !self.layers.hold(outputs.iter().flatten())? {
            self.forget_lost(key)?;
            return Ok(None);
        }
        if self.uses.note_record(key) {
            self.uses.flush(self.room.index())?;
        }
        Ok(Some(outputs))
    }

    /// Stores the layers of a result under its canonical key. `description` is stored unchanged.
    pub fn put(&self, key: &Digest, outputs: &[Option<LayerId>], description: &str) -> Result<()> {
        self.put_as(CacheKind::Regular, key, outputs, description)
    }

    /// Stores the layers of a result of the given kind, like [`CacheIndex::put`].
    pub fn put_as(
        &self,
        kind: CacheKind,
        key: &Digest,
        outputs: &[Option<LayerId>],
        description: &str,
    ) -> Result<()> {
        self.room.index().write("store a result", |transaction| {
            transaction
                .prepare_cached("DELETE FROM cache_outputs WHERE key = ?1")?
                .execute([key.as_bytes()])?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO cache_records
                         (key, description, created_at, used_at, kind) VALUES (?1, ?2, ?3, ?3, ?4)",
                )?
                .execute((key.as_bytes(), description, name::now(), kind.as_str()))?;
            let mut output =
                transaction.prepare_cached("INSERT INTO cache_outputs VALUES (?1, ?2, ?3)")?;
            for (number, layer) in outputs.iter().enumerate() {
                let layer = layer.as_ref().map(LayerId::as_str);
                output.execute((key.as_bytes(), number as i64, layer))?;
            }
            let sum = format!("UPDATE cache_records SET sum = {} WHERE key = ?1", sums::RECORD);
            transaction.prepare_cached(&sum)?.execute([key.as_bytes()])?;
            Ok(())
        })
    }

    /// Removes the record of a key.
    pub fn remove(&self, key: &Digest) -> Result<()> {
        self.room.index().write("remove a result", |transaction| forget(transaction, key))
    }

    /// Removes the record of a key whose layers are incomplete.
    fn forget_lost(&self, key: &Digest) -> Result<()> {
        self.room.index().write("remove a result", |transaction| {
            forget(transaction, key)?;
            recipes::note_lost(transaction, key)
        })
    }

    /// Returns the description that was stored with a record.
    pub fn description(&self, key: &Digest) -> Result<Option<String>> {
        let sql = "SELECT description FROM cache_records WHERE key = ?1";
        self.room.index().read("look up a result", |connection| {
            connection.prepare_cached(sql)?.query_row([key.as_bytes()], |row| row.get(0)).optional()
        })
    }

    /// Removes all records and links. Returns the number of records. Garbage collection removes the
    /// layers.
    pub fn clear(&self) -> Result<u64> {
        self.room.index().write("clear the cache", |transaction| {
            transaction.execute("DELETE FROM cache_links", [])?;
            transaction.execute("DELETE FROM cache_outputs", [])?;
            Ok(transaction.execute("DELETE FROM cache_records", [])? as u64)
        })
    }
}

/// Deletes the record of a key within a transaction.
pub(crate) fn forget(transaction: &Connection, key: &Digest) -> rusqlite::Result<()> {
    for sql in
        ["DELETE FROM cache_outputs WHERE key = ?1", "DELETE FROM cache_records WHERE key = ?1"]
    {
        transaction.prepare_cached(sql)?.execute([key.as_bytes()])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn records_lead_to_layers() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (cache, layers) = (store.cache(), store.layers());
        let (definition, key) = (Digest::of(b"definition"), Digest::of(b"key"));
        assert_eq!(cache.canonical(&definition).unwrap(), None);
        cache.link(&definition, &key).unwrap();
        assert_eq!(cache.canonical(&definition).unwrap(), Some(key));
        assert_eq!(cache.get(&key).unwrap(), None);
        let layer = layers.commit(layers.begin().unwrap(), None).unwrap();
        let outputs = [Some(layer), None];
        cache.put(&key, &outputs, "RUN x").unwrap();
        assert_eq!(cache.get(&key).unwrap().as_deref(), Some(&outputs[..]));
        assert_eq!(cache.description(&key).unwrap().as_deref(), Some("RUN x"));
        cache.put(&key, &[], "").unwrap();
        assert_eq!(cache.get(&key).unwrap(), Some(vec![]));
        assert_eq!(cache.clear().unwrap(), 1);
        assert_eq!(cache.get(&key).unwrap(), None);
    }

    #[test]
    fn a_record_of_a_layer_that_is_gone_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let key = Digest::of(b"key");
        store.cache().put(&key, &["gone".parse().ok()], "").unwrap();
        assert_eq!(store.cache().get(&key).unwrap(), None);
        assert_eq!(store.cache().description(&key).unwrap(), None, "and is removed");
    }
}
