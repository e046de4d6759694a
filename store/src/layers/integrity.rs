//! Detection of changes to stored trees.
//!
//! A tree has two records. Its *stamp* ([`kiln_tree::stamp()`]) is taken when the tree is stored, and
//! compared before the tree is used. Each process compares the stamp of a tree with up to [`SMALL`]
//! entries once. A larger tree is compared every ten minutes, since a walk takes some microseconds
//! for each entry. The *seal* of a tree is a digest of all its contents. It requires reading
//! everything, and no build waits for that: the process that flushes the store after a build takes
//! the seal, and `Store::check` compares it.

use std::sync::PoisonError;
use std::time::Duration;

use kiln_oci::Digest;
use kiln_tree::{Dir, Selection, View};
use kiln_tree::{Stamp, stamp};

use super::{Layer, LayerId, Layers};
use crate::db::text_column;
use crate::error::{Error, Result};
use crate::name;
use crate::room::lock::KeyGuard;

/// The number of entries up to which each process checks a tree.
const SMALL: u64 = 100;
/// The time for which a larger tree is not checked again.
const BELIEVED: Duration = Duration::from_mins(10);

/// The records of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TreeRecord {
    pub(crate) stamp: Stamp,
    pub(crate) seal: Option<Digest>,
    /// The time of the last successful check, in nanoseconds since 1970.
    pub(crate) checked_at: i64,
}

impl Layers {
    /// Checks that the trees of those layers that have one are unchanged. Call this before reading
    /// or mounting them.
    ///
    /// # Errors
    /// Fails if a tree was changed.
    pub fn check_trees<'a>(&self, layers: impl IntoIterator<Item = &'a Layer>) -> Result<()> {
        for layer in layers.into_iter().filter(|layer| layer.has_tree) {
            self.check_tree(layer)?;
            if let Some(earlier) = &layer.earlier {
                match self.get(earlier)? {
                    Some(earlier) if earlier.is_whole() => self.check_tree(&earlier)?,
                    _ => return Err(Error::damaged(format!("tree of layer {}", layer.id))),
                }
            }
        }
        Ok(())
    }

    fn check_tree(&self, layer: &Layer) -> Result<()> {
        let Some(record) = &layer.tree else { return Ok(()) };
        if self.is_believed(&layer.id, record) {
            return Ok(());
        }
        if self.stamp_of(&layer.id).ok() != Some(record.stamp) {
            return Err(Error::damaged(format!("tree of layer {}", layer.id)));
        }
        self.believe(&layer.id);
        if record.stamp.entries > SMALL {
            self.note_checked(&layer.id)?;
        }
        Ok(())
    }

    /// Remembers that a tree is unchanged.
    pub(crate) fn believe(&self, id: &LayerId) {
        let mut checked = self.state.checked.lock().unwrap_or_else(PoisonError::into_inner);
        checked.insert(id.as_str().to_owned());
    }

    fn is_believed(&self, id: &LayerId, record: &TreeRecord) -> bool {
        let checked = self.state.checked.lock().unwrap_or_else(PoisonError::into_inner);
        let age = name::now().saturating_sub(record.checked_at);
        let is_fresh = (0..BELIEVED.as_nanos() as i64).contains(&age);
        checked.contains(id.as_str()) || record.stamp.entries > SMALL && is_fresh
    }

    fn note_checked(&self, id: &LayerId) -> Result<()> {
        let sql = "UPDATE layers SET checked_at = ?2 WHERE id = ?1";
        self.room.index().write("note a check", |transaction| {
            transaction.prepare_cached(sql)?.execute((id.as_str(), name::now()))?;
            Ok(())
        })
    }

    pub(crate) fn stamp_of(&self, id: &LayerId) -> Result<Stamp> {
        Ok(stamp(&Dir::open(&self.tree_path(id))?)?)
    }

    /// Returns the digest of all contents of a tree.
    pub(crate) fn seal_of(&self, id: &LayerId) -> Result<Digest> {
        let dir = Dir::open(&self.tree_path(id))?;
        let view = View::of(&dir);
        let whole = Selection { path: "/".to_owned(), ..Selection::default() };
        Ok(kiln_tree::content_digest(view, &[whole], None)?)
    }

    /// Stores the stamp and the seal of a tree, unless it has a seal already.
    pub(crate) fn record(&self, id: &LayerId, stamp: &Stamp, seal: &Digest) -> Result<()> {
        let sql = "UPDATE layers SET stamp = ?2, entries = ?3, seal = ?4, checked_at = ?5
                   WHERE id = ?1 AND has_tree AND seal IS NULL";
        self.room.index().write("seal a tree", |transaction| {
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

    /// Returns the IDs of all layers with trees.
    pub(crate) fn with_trees(&self) -> Result<Vec<LayerId>> {
        self.room.index().read("list trees", |connection| {
            let ids = "SELECT id FROM layers WHERE has_tree ORDER BY created_at";
            let ids = text_column(connection, ids)?;
            Ok(ids.into_iter().map(LayerId::from_index).collect())
        })
    }
}

impl Layers {
    /// Returns the right to seal trees, or `None` if another process has it.
    pub(crate) fn sealer(&self) -> Result<Option<Sealer>> {
        let key = KeyGuard::try_acquire(&self.room.keys(), SEALS)?;
        Ok(key.map(|key| Sealer { layers: self.clone(), _key: key }))
    }
}

/// The key of the process that seals trees.
const SEALS: &str = "seals";

/// The right to seal trees. One process has it at a time.
#[derive(Debug)]
pub struct Sealer {
    layers: Layers,
    _key: KeyGuard,
}

impl Sealer {
    /// Takes the seals of trees that have none, so that [`Store::check`](crate::Store::check) can
    /// detect changes later, including trees that other processes store meanwhile. Reads all of
    /// their contents. Skips trees that were touched, or are removed meanwhile.
    ///
    /// # Errors
    /// Fails if the index fails.
    pub fn seal_trees(&self) -> Result<()> {
        let layers = &self.layers;
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
