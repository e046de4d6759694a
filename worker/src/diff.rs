//! Diff ops: the layers of one chain above another one, or else the difference between two chains.

use kiln_event::Reporter;
use kiln_images::{Snapshots, blocking};
use kiln_llb::op::{DiffOp, InputIndex};
use kiln_store::LayerId;

use crate::error::{Error, Result};
use crate::output::Output;

/// Returns the layers of the upper input without those of the lower input below them. If the upper
/// input isn't built on the lower one, returns a layer with the difference between their files.
pub(crate) async fn diff(
    snapshots: &Snapshots,
    op: &DiffOp,
    inputs: &[Output],
    reporter: &Reporter,
) -> Result<Output> {
    let input = |index: InputIndex| match index {
        None => Ok(Output::Layer(None)),
        Some(index) => inputs
            .get(index as usize)
            .cloned()
            .ok_or_else(|| Error::Invalid(format!("diff has no input {index}"))),
    };
    let (lower, upper) = (input(op.lower)?, input(op.upper)?);
    let snapshots = snapshots.clone();
    let lower = lower.to_layer(&snapshots)?;
    let upper = upper.to_layer(&snapshots)?;
    let Some(below) = lower else { return Ok(Output::Layer(upper)) };
    let layers = snapshots.store.layers();
    let below_chain = layers.chain(&below)?;
    let chain = upper.as_ref().map(|upper| layers.chain(upper)).transpose()?.unwrap_or_default();
    let shared = chain.iter().zip(&below_chain).take_while(|(a, b)| a.id == b.id).count();
    if shared == below_chain.len() {
        let above = chain[shared..].to_vec();
        snapshots.materialise(upper.iter(), reporter).await?;
        return Ok(Output::Layer(blocking(move || snapshots.rebase(&above)).await?));
    }
    let both: Vec<LayerId> = upper.iter().chain([&below]).cloned().collect();
    snapshots.materialise(&both, reporter).await?;
    let difference = move || snapshots.difference(Some(&below), upper.as_ref());
    Ok(Output::Layer(blocking(difference).await?))
}
