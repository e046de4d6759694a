//! Whether trees are what they were when they were stored.
//!
//! A tree gets two records. Its *stamp* ([`kiln_tree::stamp`]) is taken when it is stored, and looked
//! at before it is used: in each process once for a tree of up to [`SMALL`] entries, and for a larger
//! one every ten minutes, since a walk takes a few microseconds for each entry. Its *seal* is a
//! digest of all that it holds. Taking it means reading everything, which nobody waits for: what
//! flushes the store after a build takes it, and [`Store::check`] compares.

use std::sync::PoisonError;
use std::time::Duration;

use kiln_oci::Digest;
use kiln_tree::stamp::{Stamp, stamp};
use kiln_tree::{Dir, Selection, View};

use crate::error::{Error, Result};
use crate::layers::{Layer, LayerId, Layers};
use crate::lock::KeyGuard;
use crate::name;
use crate::store::Store;

/// Trees of more entries are not looked at each time.
const SMALL: u64 = 100;
/// How long a large tree is believed to be what it was.
const BELIEVED: Duration = Duration::from_mins(10);

/// What is known of how a tree was when it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeRecord {
    pub(crate) stamp: Stamp,
    pub(crate) seal: Option<Digest>,
    /// When it was last found to be so.
    pub(crate) checked_at: i64,
}

impl Layers {
    /// Checks that the trees of layers, of those that have one, are as they were stored. To be called
    /// before they are read or mounted.
    ///
    /// # Errors
    /// Fails where somebody has changed one.
    pub fn check_trees<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Result<()> {
        for layer in layers.into_iter().filter(|layer| layer.has_tree) {
            let Some(record) = &layer.tree else { continue };
            if self.is_believed(&layer.id, record) {
                continue;
            }
            if self.stamp_of(&layer.id).ok() != Some(record.stamp) {
                return Err(Error::damaged(format!("tree of layer {}", layer.id)));
            }
            self.believe(&layer.id);
            if record.stamp.entries > SMALL {
                self.note_checked(&layer.id)?;
            }
        }
        Ok(())
    }

    /// Takes note that a tree is as it was stored.
    pub(crate) fn believe(&self, id: &LayerId) {
        let mut checked = self.inner.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.insert(id.as_str().to_owned());
    }

    fn is_believed(&self, id: &LayerId, record: &TreeRecord) -> bool {
        let checked = self.inner.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let age = name::now().saturating_sub(record.checked_at);
        let is_fresh = (0..BELIEVED.as_nanos() as i64).contains(&age);
        checked.contains(id.as_str()) || record.stamp.entries > SMALL && is_fresh
    }

    fn note_checked(&self, id: &LayerId) -> Result<()> {
        let sql = "UPDATE layers SET checked_at = ?2 WHERE id = ?1";
        self.inner.index.write("note a check", |transaction| {
            transaction.prepare_cached(sql)?.execute((id.as_str(), name::now()))?;
            Ok(())
        })
    }

    pub(crate) fn stamp_of(&self, id: &LayerId) -> Result<Stamp> {
        Ok(stamp(&Dir::open(&self.tree_path(id))?)?)
    }

    /// Returns the digest of all that a tree holds.
    pub(crate) fn seal_of(&self, id: &LayerId) -> Result<Digest> {
        let dir = Dir::open(&self.tree_path(id))?;
        let view = View::of(&dir);
        let whole = Selection { path: "/".to_owned(), ..Selection::default() };
        Ok(kiln_tree::content_digest(view, &[whole], None)?)
    }

    /// Records what a tree holds, where that isn't known yet.
    pub(crate) fn record(&self, id: &LayerId, stamp: &Stamp, seal: &Digest) -> Result<()> {
        let sql = "UPDATE layers SET stamp = ?2, entries = ?3, seal = ?4, checked_at = ?5
                   WHERE id = ?1 AND has_tree AND seal IS NULL";
        self.inner.index.write("seal a tree", |transaction| {
            transaction.prepare_cached(sql)?.execute((
                id.as_str(),
                stamp.digest.as_bytes(),
                stamp.entries.cast_signed(),
                seal.as_bytes(),
                name::now(),
            ))?;
            Ok(())
        })
    }

    /// Returns all layers that have trees.
    pub(crate) fn with_trees(&self) -> Result<Vec<LayerId>> {
        self.inner.index.read("list trees", |connection| {
            let ids = "SELECT id FROM layers WHERE has_tree ORDER BY created_at";
            let ids = crate::recovery::text_column(connection, ids)?;
            Ok(ids.into_iter().map(LayerId::from_index).collect())
        })
    }
}

impl Store {
    /// Returns the right to seal trees, unless another process has it: each would read the same files.
    ///
    /// # Errors
    /// Fails where the file of keys can't be opened.
    pub fn sealer(&self) -> Result<Option<Sealer>> {
        let key = KeyGuard::try_acquire(&self.inner().keys(), SEALS)?;
        Ok(key.map(|key| Sealer { store: self.clone(), _key: key }))
    }
}

/// The key of the process that seals trees.
const SEALS: &str = "seals";

/// The right to seal trees, which one process has at a time.
#[derive(Debug)]
pub struct Sealer {
    store: Store,
    _key: KeyGuard,
}

impl Sealer {
    /// Takes the seals of trees that have none yet, so that [`Store::check`] can tell later whether
    /// they are still what they are now, of those that others store meanwhile, too. Reads everything in
    /// them. A tree that is removed meanwhile or was touched is left alone.
    ///
    /// # Errors
    /// Fails where the index does.
    pub fn seal_trees(&self) -> Result<()> {
        let layers = self.store.layers();
        loop {
            let mut sealed = 0;
            for id in layers.with_trees()? {
                let Ok(Some(layer)) = layers.get(&id) else { continue };
                let Some(TreeRecord { stamp, seal: None, .. }) = layer.tree else { continue };
                let Ok(seal) = layers.seal_of(&id) else { continue };
                if layers.stamp_of(&id).ok() == Some(stamp) {
                    layers.record(&id, &stamp, &seal)?;
                    sealed += 1;
                }
            }
            if sealed == 0 {
                return Ok(());
            }
        }
    }
}
