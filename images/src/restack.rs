//! Copies of layers on other chains.

use std::os::fd::AsFd;

use kiln_store::{Layer, LayerId};
use kiln_tree::{Dir, changes_between, extract};

use crate::error::Result;
use crate::relink::relink_changes;
use crate::snapshots::Snapshots;

impl Snapshots {
    /// Creates copies of layers on an empty base, without what is the same below them. They keep
    /// their deletions, which count when the result is merged.
    ///
    /// # Errors
    /// Fails if a tree can't be copied.
    pub fn rebase(&self, chain: &[Layer]) -> Result<Option<LayerId>> {
        let layers = self.store.layers();
        let mut top: Option<LayerId> = None;
        for layer in chain {
            layers.check_trees([layer])?;
            let mut pending = layers.begin()?;
            let source = layers.open_linked_tree(&layer.id)?;
            let dest = Dir::open(pending.fs())?;
            let changes = layers.changes(&layer.id)?;
            let (deletions, changes) = relink_changes(source.as_fd(), dest.as_fd(), &changes)?;
            drop(dest);
            if deletions && top.is_none() {
                top = Some(self.empty_layer()?);
            }
            pending.note(changes);
            top = Some(layers.commit(pending, top.as_ref())?);
        }
        Ok(top)
    }

    /// Creates a layer on an empty base with what makes one chain another one, neither of which is
    /// built on the other. Returns `None` if they have the same files. All trees of the chains must
    /// exist.
    ///
    /// # Errors
    /// Fails if a tree can't be read, or if the store can't be written.
    pub fn difference(
        &self,
        lower: Option<&LayerId>,
        upper: Option<&LayerId>,
    ) -> Result<Option<LayerId>> {
        let (lower, upper) = (self.read(lower)?, self.read(upper)?);
        let touched = changes_between(&lower, &upper)?;
        if touched.is_empty() {
            return Ok(None);
        }
        let layers = self.store.layers();
        let pending = layers.begin()?;
        let file_marks = self.store.snapshotting()?.file_marks;
        let extracted = extract(&upper, &touched, &pending.open()?, file_marks)?;
        let deletes = touched.iter().any(|touched| touched.gone);
        if extracted.file_marks && deletes {
            self.store.note_file_marks()?;
        }
        let below = if deletes { Some(self.empty_layer()?) } else { None };
        Ok(Some(layers.commit(pending, below.as_ref())?))
    }

    /// Creates an empty layer. The lowest tree of a chain can't have deletions, because it is read
    /// without overlayfs. So such a layer goes below it.
    fn empty_layer(&self) -> Result<LayerId> {
        self.commit_pending(self.begin(None)?)
    }

    /// Creates copies of the chain of `top` above `below`.
    ///
    /// # Errors
    /// Fails if a tree can't be copied.
    pub fn stack(&self, top: &LayerId, below: LayerId) -> Result<LayerId> {
        let chain = self.store.layers().chain(top)?;
        chain.iter().try_fold(below, |below, layer| self.repeat(layer, &below))
    }

    /// Creates a copy of a layer above `below`, without what is the same below the layer. It deletes
    /// what the layer has deleted, and no other entries of a directory that the layer has replaced.
    /// The layer's blobs are recorded for the copy, too.
    fn repeat(&self, layer: &Layer, below: &LayerId) -> Result<LayerId> {
        let layers = self.store.layers();
        layers.check_trees([layer])?;
        let mut pending = layers.begin()?;
        let source = layers.open_linked_tree(&layer.id)?;
        let dest = Dir::open(pending.fs())?;
        let changes = layers.changes(&layer.id)?;
        let (_, changes) = relink_changes(source.as_fd(), dest.as_fd(), &changes)?;
        drop(dest);
        pending.note(changes);
        let repeated = layers.commit(pending, Some(below))?;
        if let Some(diff_id) = &layer.diff_id {
            for blob in layers.blobs(&layer.id)? {
                layers.add_blob(&repeated, diff_id, &blob)?;
            }
        }
        Ok(repeated)
    }
}
