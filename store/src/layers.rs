//! Layers in their three forms: trees, diffs and blobs.
//!
//! A row of the index names a layer and its parent. What forms it has is told by its columns: a
//! *tree* where `snapshots/ID/fs` is there, a *diff* where its diff ID is known (the chain ID
//! follows from it and the parent's), *blobs* for each compression that it was packed or pulled in.
//! A layer of a base image may be known by its diff ID and descriptor alone until somebody needs
//! its tree.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Arc, PoisonError};

use kiln_oci::Digest;
use kiln_tree::{Dir, stamp};

use crate::error::{Error, Result};
use crate::integrity::TreeRecord;
use crate::layer_rows::{
    NewLayer, columns, insert, insert_blob, layer, select, select_by_chain, spread_chain_ids,
};
use crate::lock::KeyGuard;
use crate::pending::PendingTree;
use crate::store::Inner;
use crate::{name, sums};

/// Names a layer in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

/// Why a text names no layer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid layer ID {0:?}")]
pub struct ParseLayerIdError(String);

impl LayerId {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn from_index(text: String) -> Self {
        Self(text)
    }
}

impl FromStr for LayerId {
    type Err = ParseLayerIdError;

    fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
        let valid = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if text.is_empty() || text.len() > 64 || !text.bytes().all(valid) {
            return Err(ParseLayerIdError(text.chars().take(100).collect()));
        }
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

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

    /// Makes a layer known by its diff ID and a blob of it, or returns the one that is known with
    /// the same chain ID (and adds the blob to it).
    pub fn declare(
        &self,
        parent: Option<&LayerId>,
        diff_id: &Digest,
        blob: &LayerBlob,
    ) -> Result<LayerId> {
        let below = match parent {
            Some(id) => {
                let parent = self.get(id)?.ok_or_else(|| Error::missing("layer", id))?;
                let unpacked = || Error::missing("chain ID of layer", id);
                Some(parent.chain_id.ok_or_else(unpacked)?)
            }
            None => None,
        };
        let chain = chain_id(below.as_ref(), diff_id);
        self.inner.index.write("declare a layer", |transaction| {
            let id = if let Some(known) = select_by_chain(transaction, &chain)? {
                known.id
            } else {
                let id = LayerId(name::fresh());
                let row = NewLayer { id: &id, parent, diff_id: Some(diff_id), tree: None };
                insert(transaction, &row, Some(&chain))?;
                id
            };
            insert_blob(transaction, &id, blob)?;
            self.inner.hold_layer(transaction, id.as_str())?;
            Ok(id)
        })
    }

    /// Begins a tree.
    pub fn begin(&self) -> Result<PendingTree> {
        PendingTree::create(&self.inner)
    }

    /// Makes a layer of a finished tree on top of `parent`.
    pub fn commit(&self, mut tree: PendingTree, parent: Option<&LayerId>) -> Result<LayerId> {
        let stamp = stamp(&Dir::open(tree.fs())?)?;
        let _placing = self.inner.placing()?;
        let id = loop {
            let id = LayerId(name::fresh());
            if tree.place(&self.inner.trees.join(id.as_str()))? {
                break id;
            }
        };
        let row = NewLayer { id: &id, parent, diff_id: None, tree: Some(stamp) };
        let stored = self.inner.index.write("store a layer", |transaction| {
            if let Some(parent) = parent
                && select(transaction, parent.as_str())?.is_none()
            {
                return Ok(false);
            }
            insert(transaction, &row, None)?;
            self.inner.hold_layer(transaction, id.as_str())?;
            Ok(true)
        });
        match (stored, parent) {
            (Ok(true), _) => {
                self.believe(&id);
                Ok(id)
            }
            (Ok(false), parent) => {
                self.inner.discard(&self.inner.trees.join(id.as_str()))?;
                Err(Error::missing("layer", parent.map_or("", LayerId::as_str)))
            }
            (Err(error), _) => {
                self.inner.discard(&self.inner.trees.join(id.as_str()))?;
                Err(error)
            }
        }
    }

    /// Makes a layer of a blob that was made here, on top of `parent`, or returns the one that is
    /// known with the same chain ID.
    pub fn commit_blob(
        &self,
        parent: Option<&LayerId>,
        diff_id: &Digest,
        blob: &LayerBlob,
    ) -> Result<LayerId> {
        let stored = self.inner.index.write("store a layer", |transaction| {
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
                Some(chain) => select_by_chain(transaction, chain)?,
                None => None,
            };
            let id = if let Some(known) = known {
                known.id
            } else {
                let id = LayerId(name::fresh());
                let row = NewLayer { id: &id, parent, diff_id: Some(diff_id), tree: None };
                insert(transaction, &row, chain.as_ref())?;
                id
            };
            insert_blob(transaction, &id, blob)?;
            self.inner.hold_layer(transaction, id.as_str())?;
            Ok(Some(id))
        })?;
        stored.ok_or_else(|| Error::missing("layer", parent.map_or("", LayerId::as_str)))
    }

    /// Gives a declared layer its tree. Where it has got one meanwhile, `tree` is dropped.
    pub fn attach(&self, mut tree: PendingTree, layer: &LayerId) -> Result<()> {
        let key = format!("attach-{layer}");
        let _alone = KeyGuard::acquire(&self.inner.keys(), &key)?;
        if self.get(layer)?.ok_or_else(|| Error::missing("layer", layer))?.has_tree {
            return Ok(());
        }
        let target = self.inner.trees.join(layer.as_str());
        let stamp = stamp(&Dir::open(tree.fs())?)?;
        let _placing = self.inner.placing()?;
        if !tree.place(&target)? {
            // Nobody else is about to name it: a process was killed before it could.
            self.inner.discard(&target)?;
            tree.place(&target)?;
        }
        let known = self.inner.index.write("attach a tree", |transaction| {
            let sql = "UPDATE layers SET has_tree = 1, stamp = ?2, entries = ?3, seal = NULL,
                       checked_at = ?4, tree_epoch = (SELECT value FROM meta WHERE key = 'epoch')
                       WHERE id = ?1";
            let changed = transaction.prepare_cached(sql)?.execute((
                layer.as_str(),
                stamp.digest.as_bytes(),
                stamp.entries.cast_signed(),
                name::now(),
            ))?;
            if changed == 1 {
                self.inner.hold_layer(transaction, layer.as_str())?;
            }
            Ok(changed == 1)
        })?;
        if !known {
            self.inner.discard(&target)?;
            return Err(Error::missing("layer", layer));
        }
        self.believe(layer);
        Ok(())
    }

    /// Returns where the layer's tree lies, or would lie.
    pub fn tree_path(&self, id: &LayerId) -> PathBuf {
        self.inner.trees.join(id.as_str()).join("fs")
    }

    /// Returns the directory that holds all trees as `ID/fs`, for mounts with short names.
    pub fn trees_dir(&self) -> &Path {
        &self.inner.trees
    }

    /// Records a packed form of the layer, and the digest of its uncompressed tar.
    ///
    /// # Errors
    /// Fails where the layer is known by another diff ID: a tree packs to one tar only.
    pub fn add_blob(&self, id: &LayerId, diff_id: &Digest, blob: &LayerBlob) -> Result<()> {
        let known = self.inner.index.write("record a packed layer", |transaction| {
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

    /// Returns the packed forms of a layer.
    pub fn blobs(&self, id: &LayerId) -> Result<Vec<LayerBlob>> {
        let sql = format!(
            "SELECT media_type, digest, size, origin, sum IS {} FROM layer_blobs
             WHERE layer = ?1 ORDER BY media_type, digest",
            sums::LAYER_BLOB
        );
        self.inner.index.read("look up packed layers", |connection| {
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

    /// Returns where a blob can be had: the origins of all layers that it is a packed form of.
    pub fn origins(&self, blob: &Digest) -> Result<Vec<String>> {
        let sql = "SELECT DISTINCT origin FROM layer_blobs
                   WHERE digest = ?1 AND origin IS NOT NULL ORDER BY origin";
        self.inner.index.read("look up origins", |connection| {
            connection
                .prepare_cached(sql)?
                .query_map([blob.as_bytes()], |row| row.get(0))?
                .collect()
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn blob(text: &str) -> LayerBlob {
        LayerBlob {
            media_type: kiln_oci::media_type::OCI_LAYER_GZIP.to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: text.len() as u64,
            origin: Some("example.com/x".to_owned()),
        }
    }

    fn opened() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn trees_become_layers() {
        use std::os::unix::fs::PermissionsExt;

        let (_dir, store) = opened();
        let layers = store.layers();
        let base = layers.begin().unwrap();
        std::fs::write(base.fs().join("a"), "a").unwrap();
        // As overlayfs leaves it.
        let inner = base.work().join("work");
        std::fs::create_dir(&inner).unwrap();
        std::fs::set_permissions(&inner, std::fs::Permissions::from_mode(0o000)).unwrap();
        let base = layers.commit(base, None).unwrap();
        let top = layers.commit(layers.begin().unwrap(), Some(&base)).unwrap();
        assert_eq!(std::fs::read_to_string(layers.tree_path(&base).join("a")).unwrap(), "a");
        let mode = std::fs::metadata(layers.tree_path(&base)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o755);
        assert!(!layers.trees_dir().join(base.as_str()).join("work").exists());
        let chain = layers.chain(&top).unwrap();
        assert_eq!(chain.iter().map(|layer| &layer.id).collect::<Vec<_>>(), [&base, &top]);
        assert!(chain[1].has_tree && chain[1].chain_id.is_none());
        let nobody = "0".parse().unwrap();
        assert!(matches!(layers.chain(&nobody), Err(Error::Missing { .. })));
        let lost = layers.commit(layers.begin().unwrap(), Some(&nobody));
        assert!(matches!(lost, Err(Error::Missing { .. })));
        assert_eq!(std::fs::read_dir(layers.trees_dir()).unwrap().count(), 2);
    }

    #[test]
    fn chain_ids_follow_from_diff_ids_in_any_order() {
        let (_dir, store) = opened();
        let layers = store.layers();
        let base = layers.commit(layers.begin().unwrap(), None).unwrap();
        let middle = layers.commit(layers.begin().unwrap(), Some(&base)).unwrap();
        let top = layers.commit(layers.begin().unwrap(), Some(&middle)).unwrap();
        let (a, b, c) = (Digest::of(b"a"), Digest::of(b"b"), Digest::of(b"c"));
        layers.add_blob(&top, &c, &blob("c")).unwrap();
        layers.add_blob(&middle, &b, &blob("b")).unwrap();
        assert_eq!(layers.get(&top).unwrap().unwrap().chain_id, None);
        layers.add_blob(&base, &a, &blob("a")).unwrap();
        let expected = chain_id(Some(&chain_id(Some(&a), &b)), &c);
        assert_eq!(
            expected,
            Digest::of(format!("{} {c}", Digest::of(format!("{a} {b}").as_bytes())).as_bytes())
        );
        assert_eq!(layers.get(&top).unwrap().unwrap().chain_id, Some(expected));
        assert_eq!(layers.by_chain_id(&expected).unwrap().unwrap().id, top);
        assert_eq!(layers.blobs(&top).unwrap(), [blob("c")]);
        assert!(matches!(layers.add_blob(&top, &a, &blob("a")), Err(Error::DigestMismatch { .. })));
    }

    #[test]
    fn declared_layers_are_found_again_and_get_trees() {
        let (_dir, store) = opened();
        let layers = store.layers();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let base = layers.declare(None, &a, &blob("a")).unwrap();
        assert_eq!(layers.declare(None, &a, &blob("a, smaller")).unwrap(), base);
        assert_eq!(layers.blobs(&base).unwrap().len(), 2);
        let top = layers.declare(Some(&base), &b, &blob("b")).unwrap();
        assert_ne!(layers.declare(None, &b, &blob("b")).unwrap(), top);
        assert!(!layers.get(&top).unwrap().unwrap().has_tree);
        let tree = layers.begin().unwrap();
        std::fs::write(tree.fs().join("x"), "1").unwrap();
        layers.attach(tree, &top).unwrap();
        let second = layers.begin().unwrap();
        std::fs::write(second.fs().join("x"), "2").unwrap();
        layers.attach(second, &top).unwrap();
        assert!(layers.get(&top).unwrap().unwrap().has_tree);
        assert_eq!(std::fs::read(layers.tree_path(&top).join("x")).unwrap(), b"1");
    }

    #[test]
    fn blobs_become_layers_whatever_is_known_of_those_below() {
        let (_dir, store) = opened();
        let layers = store.layers();
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        let base = layers.commit(layers.begin().unwrap(), None).unwrap();
        let top = layers.commit_blob(Some(&base), &b, &blob("b")).unwrap();
        let found = layers.get(&top).unwrap().unwrap();
        assert_eq!((found.diff_id, found.chain_id, found.has_tree), (Some(b), None, false));
        layers.add_blob(&base, &a, &blob("a")).unwrap();
        let chain = chain_id(Some(&chain_id(None, &a)), &b);
        assert_eq!(layers.get(&top).unwrap().unwrap().chain_id, Some(chain));
        // Made once more, it is the same layer.
        assert_eq!(layers.commit_blob(Some(&base), &b, &blob("b")).unwrap(), top);
        let nobody = "0".parse().unwrap();
        assert!(matches!(
            layers.commit_blob(Some(&nobody), &b, &blob("b")),
            Err(Error::Missing { .. })
        ));
    }

    #[test]
    fn hostile_ids_are_refused() {
        for text in ["", "..", "a/b", "A", &"a".repeat(65)] {
            assert!(text.parse::<LayerId>().is_err(), "{text}");
        }
    }
}
