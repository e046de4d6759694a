//! Copies of layers on other chains.

use std::os::fd::AsFd;

use kiln_store::{Layer, LayerId};
use kiln_tree::Dir;

use crate::error::Result;
use crate::relink::relink;
use crate::snapshots::Snapshots;

impl Snapshots {
    /// Creates copies of layers on an empty base. They keep their deletions, which count when the
    /// result is merged.
    ///
    /// # Errors
    /// Fails if a tree can't be copied.
    pub fn rebase(&self, chain: &[Layer]) -> Result<Option<LayerId>> {
        let layers = self.store.layers();
        let mut top: Option<LayerId> = None;
        for layer in chain {
            layers.check_trees([layer])?;
            let pending = layers.begin()?;
            let source = layers.open_tree(&layer.id)?;
            let dest = Dir::open(pending.fs())?;
            let deletions = relink(source.as_fd(), dest.as_fd())?;
            drop(dest);
            if deletions && top.is_none() {
                // The lowest tree of a chain can't have deletions, because it is read without
                // overlayfs. An empty layer goes below it.
                top = Some(self.commit_pending(self.begin(None)?)?);
            }
            top = Some(self.commit_repeated(pending, top.as_ref(), &layer.id)?);
        }
        Ok(top)
    }

    /// Creates copies of the chain of `top` above `below`.
    ///
    /// # Errors
    /// Fails if a tree can't be copied.
    pub fn stack(&self, top: &LayerId, below: LayerId) -> Result<LayerId> {
        let chain = self.store.layers().chain(top)?;
        chain.iter().try_fold(below, |below, layer| self.repeat(layer, &below))
    }

    /// Creates a copy of a layer above `below`. The layer's blobs are recorded for the copy, too.
    fn repeat(&self, layer: &Layer, below: &LayerId) -> Result<LayerId> {
        let layers = self.store.layers();
        layers.check_trees([layer])?;
        let pending = layers.begin()?;
        let source = layers.open_tree(&layer.id)?;
        let dest = Dir::open(pending.fs())?;
        relink(source.as_fd(), dest.as_fd())?;
        drop(dest);
        let repeated = self.commit_repeated(pending, Some(below), &layer.id)?;
        if let Some(diff_id) = &layer.diff_id {
            for blob in layers.blobs(&layer.id)? {
                layers.add_blob(&repeated, diff_id, &blob)?;
            }
        }
        Ok(repeated)
    }
}
