//! Diff ops: the layers of one chain above another one.

use kiln_event::Reporter;
use kiln_images::{Snapshots, blocking};
use kiln_llb::op::{DiffOp, InputIndex};

use crate::error::{Error, Result};
use crate::output::Output;

/// Returns the layers of the upper input without those of the lower input below them.
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
    let lower = match lower {
        Output::Layer(None) => return Ok(upper),
        Output::Layer(Some(lower)) => lower,
        Output::Local(_) => return Err(unrelated()),
    };
    let Output::Layer(Some(upper)) = upper else { return Err(unrelated()) };
    let layers = snapshots.store.layers();
    let (lower, chain) = (layers.chain(&lower)?, layers.chain(&upper)?);
    let below = lower.len();
    let shared = chain.iter().zip(&lower).take_while(|(a, b)| a.id == b.id).count();
    if shared != below {
        return Err(unrelated());
    }
    let above = chain[below..].to_vec();
    snapshots.materialise([&upper], reporter).await?;
    Ok(Output::Layer(blocking(move || snapshots.rebase(&above)).await?))
}

fn unrelated() -> Error {
    Error::Unsupported("a diff of an input that isn't built on the other".to_owned())
}
