//! Layers of copies, of which later ones write only the differences.

use kiln_oci::Digest;
use kiln_store::{CopiedTree, LayerId};
use kiln_tree::{Changes, CopiedFiles};

use crate::draft::{Draft, Finished};
use crate::error::Result;
use crate::snapshots::{Snapshots, Writable};

impl Snapshots {
    /// Returns the latest whole tree of copies of the same shape on which a layer above `parent` can
    /// be put. The store keeps it as long as the process runs.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub fn copied_tree(
        &self,
        shape: &Digest,
        parent: Option<&LayerId>,
    ) -> Result<Option<CopiedTree>> {
        if self.copies()? {
            return Ok(None);
        }
        Ok(self.store.layers().copied_tree(shape, parent)?)
    }

    /// Starts a tree that has only the differences from the tree of another layer, and opens it.
    /// The directory shows the other tree on top of the chain of `parent`. All trees must exist.
    ///
    /// # Errors
    /// Fails if the layers can't be mounted.
    pub fn write_difference(
        &self,
        parent: Option<&LayerId>,
        earlier: &LayerId,
    ) -> Result<Writable> {
        let mut pending = self.begin(parent)?;
        pending.put_on(earlier.clone());
        let mut lowers = vec![self.store.layers().tree_path(earlier)];
        lowers.extend(self.lowers(parent)?);
        Writable::open(Draft::on_lowers(pending, parent.cloned(), lowers))
    }

    /// Commits a tree of [`Snapshots::write_difference`] as a layer with these changes.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn commit_difference(&self, writable: Writable, changes: Changes) -> Result<LayerId> {
        let Finished { mut pending, parent, .. } = writable.close().finish(&self.store)?;
        pending.note(changes);
        Ok(self.store.layers().commit(pending, parent.as_ref())?)
    }

    /// Commits the tree of copies of a shape as a layer, like [`Snapshots::commit`]. Later copies of
    /// this shape may be put on top of it.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn commit_copied(
        &self,
        writable: Writable,
        shape: &Digest,
        copied: CopiedFiles,
    ) -> Result<LayerId> {
        let mut draft = writable.close();
        draft.pending.record(copied);
        let layer = self.commit_draft(draft)?;
        self.store.layers().note_copied_tree(shape, &layer)?;
        Ok(layer)
    }
}
