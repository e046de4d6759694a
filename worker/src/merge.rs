//! Merge ops: the layers of several inputs in one chain.

use kiln_event::Reporter;
use kiln_images::{Snapshots, blocking};
use kiln_llb::op::MergeOp;

use crate::error::{Error, Result};
use crate::output::{Output, materialise};

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
    materialise(snapshots, stacked.iter().skip(1), reporter).await?;
    let snapshots = snapshots.clone();
    blocking(move || {
        let mut top = None;
        for output in &stacked {
            let Some(layer) = output.to_layer(&snapshots)? else { continue };
            top = Some(match top {
                None => layer,
                Some(below) => snapshots.stack(&layer, below)?,
            });
        }
        Ok(Output::Layer(top))
    })
    .await
}
