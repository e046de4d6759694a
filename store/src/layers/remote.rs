//! Layers in remote caches.
//!
//! Such a layer is declared with the properties that the cache states. Its blob has the origin of a
//! cache ([`CACHE_ORIGIN`]) until it is downloaded and verified ([`Layers::confirm_cached`]). From
//! then on, it is the same as a local layer. If it can't be downloaded, or has other contents, it
//! is removed with everything that depends on it (`CacheIndex::distrust`), and the build creates it
//! again.
//!
//! The statements of a cache never change other knowledge: a layer with a tree, a blob in the store
//! or a blob of a base image gets no blob of a cache.

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension};

use super::rows::{NewLayer, insert, select_by_chain, upsert_blob};
use super::{CACHE_ORIGIN, LayerBlob, LayerId, Layers};
use crate::error::Result;
use crate::name;

/// A layer as a cache states it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLayer {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The creation time, in nanoseconds since 1970.
    pub created_at: i64,
    /// `true` if the layer belongs to a base image. The image then has the creation time.
    pub base: bool,
    /// The blob, with the origin of a cache.
    pub blob: LayerBlob,
}

impl Layers {
    /// Declares a layer of a cache. Returns the existing layer if one has the same chain ID and
    /// creation time. The chain ID of `parent` must be known.
    pub fn declare_cached(
        &self,
        parent: Option<&LayerId>,
        cached: &CachedLayer,
    ) -> Result<LayerId> {
        let chain = self.chain_on(parent, &cached.diff_id)?;
        self.room.index().write("declare a layer", |transaction| {
            let known = known(transaction, &chain, cached)?;
            let id = if let Some(known) = known {
                known
            } else {
                let id = LayerId::from_index(name::fresh());
                let row = NewLayer::without_tree(&id, parent, &cached.diff_id);
                insert(transaction, &row, Some(&chain))?;
                transaction
                    .prepare_cached("UPDATE layers SET created_at = ?2 WHERE id = ?1")?
                    .execute((id.as_str(), cached.created_at))?;
                id
            };
            if !can_be_had(transaction, &id)? {
                let resolution = "SET media_type = excluded.media_type,
                                  size = excluded.size, origin = excluded.origin";
                upsert_blob(transaction, &id, &cached.blob, resolution)?;
            }
            self.room.hold_layer(transaction, id.as_str())?;
            Ok(id)
        })
    }

    /// Returns the diff IDs that caches state for a blob.
    pub fn cached_diff_ids(&self, blob: &Digest) -> Result<Vec<Digest>> {
        let sql = format!(
            "SELECT DISTINCT diff_id FROM layers JOIN layer_blobs ON layers.id = layer_blobs.layer
             WHERE digest = ?1 AND diff_id IS NOT NULL AND {}",
            of_cache()
        );
        self.room.index().read("look up cached layers", |connection| {
            connection
                .prepare_cached(&sql)?
                .query_map([blob.as_bytes()], |row| Ok(Digest::from_bytes(row.get(0)?)))?
                .collect()
        })
    }

    /// Records that a blob in the store is a packed form of the layers with this diff ID, as caches
    /// stated.
    pub fn confirm_cached(&self, blob: &Digest, diff_id: &Digest) -> Result<()> {
        let sql = format!(
            "UPDATE layer_blobs SET origin = NULL WHERE digest = ?1 AND {}
             AND layer IN (SELECT id FROM layers WHERE diff_id = ?2)",
            of_cache()
        );
        self.room.index().write("confirm a cached layer", |transaction| {
            transaction.prepare_cached(&sql)?.execute((blob.as_bytes(), diff_id.as_bytes()))?;
            Ok(())
        })
    }
}

/// Deletes the rows of a blob that only caches are stated to have.
pub(crate) fn forget_cached(transaction: &Connection, blob: &Digest) -> rusqlite::Result<()> {
    let sql = format!("DELETE FROM layer_blobs WHERE digest = ?1 AND {}", of_cache());
    transaction.prepare_cached(&sql)?.execute([blob.as_bytes()]).map(|_| ())
}

/// Returns the SQL condition that a blob's origin is a cache.
fn of_cache() -> String {
    format!("origin >= '{CACHE_ORIGIN}' AND origin < '{CACHE_ORIGIN}\u{10ffff}'")
}

/// Returns the layer that a cache refers to. Histories of images contain the creation times of
/// layers, so of two layers with the same content, the one with the same time is chosen.
fn known(
    transaction: &Connection,
    chain: &Digest,
    cached: &CachedLayer,
) -> rusqlite::Result<Option<LayerId>> {
    if cached.base {
        return Ok(select_by_chain(transaction, chain)?.map(|layer| layer.id));
    }
    let sql = "SELECT id FROM layers WHERE chain_id = ?1 AND created_at = ?2
               ORDER BY has_tree DESC LIMIT 1";
    transaction
        .prepare_cached(sql)?
        .query_row((chain.as_bytes(), cached.created_at), |row| row.get(0))
        .optional()
        .map(|id| id.map(LayerId::from_index))
}

/// Returns `true` if a layer is available without a cache.
fn can_be_had(transaction: &Connection, id: &LayerId) -> rusqlite::Result<bool> {
    let sql = format!(
        "SELECT 1 FROM layers WHERE id = ?1 AND (has_tree OR EXISTS (
             SELECT 1 FROM layer_blobs WHERE layer = ?1 AND (
                 digest IN (SELECT digest FROM blobs) AND NOT ({0})
                 OR origin IS NOT NULL AND NOT ({0}))))",
        format_args!("origin IS NOT NULL AND {}", of_cache())
    );
    transaction.prepare_cached(&sql)?.exists([id.as_str()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn cached(name: &str, created_at: i64) -> CachedLayer {
        let blob = LayerBlob {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".to_owned(),
            digest: Digest::of(format!("blob of {name}").as_bytes()),
            size: 1,
            origin: Some(format!("{CACHE_ORIGIN}example.com/cache")),
        };
        CachedLayer { diff_id: Digest::of(name.as_bytes()), created_at, base: false, blob }
    }

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn layers_of_caches_keep_their_times() {
        let (_dir, store) = store();
        let layers = store.layers();
        let base = layers.declare_cached(None, &cached("base", 1)).unwrap();
        let one = layers.declare_cached(Some(&base), &cached("x", 2)).unwrap();
        let two = layers.declare_cached(Some(&base), &cached("x", 3)).unwrap();
        assert_ne!(one, two);
        assert_eq!(layers.declare_cached(Some(&base), &cached("x", 3)).unwrap(), two);
        assert_eq!(layers.get(&two).unwrap().unwrap().created_at, 3);
        // The image has the creation time of a layer of a base image.
        let of_base = CachedLayer { base: true, ..cached("x", 9) };
        assert!([one, two].contains(&layers.declare_cached(Some(&base), &of_base).unwrap()));
    }

    #[test]
    fn what_is_known_by_other_means_is_not_changed() {
        let (_dir, store) = store();
        let (layers, cached) = (store.layers(), cached("base", 1));
        let image = LayerBlob {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
            digest: Digest::of(b"the image's"),
            size: 1,
            origin: Some("example.com/base".to_owned()),
        };
        let base = layers.declare(None, &cached.diff_id, &image).unwrap();
        let of_base = CachedLayer { base: true, ..cached.clone() };
        assert_eq!(layers.declare_cached(None, &of_base).unwrap(), base);
        assert_eq!(layers.blobs(&base).unwrap(), std::slice::from_ref(&image));
        assert!(image.came_with_an_image() && image.cache_place().is_none());
        assert!(!cached.blob.came_with_an_image());
        assert_eq!(cached.blob.cache_place(), Some("example.com/cache"));
    }

    #[test]
    fn a_blob_of_a_cache_is_confirmed_or_dropped_with_what_rests_on_it() {
        let (_dir, store) = store();
        let (layers, cache) = (store.layers(), store.cache());
        let (good, bad) = (cached("good", 1), cached("bad", 1));
        let below = layers.declare_cached(None, &good).unwrap();
        let top = layers.declare_cached(Some(&below), &bad).unwrap();
        let keys = [Digest::of(b"below"), Digest::of(b"top")];
        cache.put(&keys[0], &[Some(below.clone())], "").unwrap();
        cache.put(&keys[1], &[Some(top.clone())], "").unwrap();
        assert_eq!(layers.cached_diff_ids(&good.blob.digest).unwrap(), [good.diff_id]);
        layers.confirm_cached(&good.blob.digest, &Digest::of(b"another")).unwrap();
        assert_eq!(layers.cached_diff_ids(&good.blob.digest).unwrap(), [good.diff_id]);
        let blob = store.content().put(b"blob of good").unwrap();
        assert_eq!(blob.digest, good.blob.digest);
        layers.confirm_cached(&blob.digest, &good.diff_id).unwrap();
        assert!(layers.cached_diff_ids(&blob.digest).unwrap().is_empty());
        assert_eq!(layers.blobs(&below).unwrap()[0].origin, None);
        cache.distrust(&bad.blob.digest).unwrap();
        cache.distrust(&good.blob.digest).unwrap();
        assert!(layers.get(&top).unwrap().is_none() && cache.get(&keys[1]).unwrap().is_none());
        assert_eq!(cache.get(&keys[0]).unwrap(), Some(vec![Some(below)]));
    }
}
