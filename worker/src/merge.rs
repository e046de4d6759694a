//! Merge ops: the layers of several inputs in one chain.

use std::os::fd::AsFd;

use kiln_event::Reporter;
use kiln_llb::op::MergeOp;
use kiln_store::{Layer, LayerId};
use kiln_tree::Dir;

use crate::blobs::blocking;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::relink::relink;
use crate::snapshots::Snapshots;

/// Stacks the inputs of a merge. The lowest chain is used as it is, without reading its files.
pub(crate) async fn merge(
    snapshots: &Snapshots,
    op: &MergeOp,
    inputs: &[Output],
    reporter: &Reporter,
) -> Result<Output> {
    let mut stacked = Vec::with_capacity(op.inputs.len());
    for input in op.inputs.iter().flatten() {
        let output = inputs
            .get(*input as usize)
            .ok_or_else(|| Error::Invalid(format!("merge has no input {input}")))?;
        if !matches!(output, Output::Layer(None)) {
            stacked.push(output.clone());
        }
    }
    snapshots.materialise(stacked.iter().skip(1), reporter).await?;
    let snapshots = snapshots.clone();
    blocking(move || {
        let mut top = None;
        for output in &stacked {
            let Some(layer) = snapshots.layer(output)? else { continue };
            top = Some(match top {
                None => layer,
                Some(below) => snapshots.stack(&layer, below)?,
            });
        }
        Ok(Output::Layer(top))
    })
    .await
}

impl Snapshots {
    /// Creates copies of the chain of `top` above `below`.
    fn stack(&self, top: &LayerId, below: LayerId) -> Result<LayerId> {
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
