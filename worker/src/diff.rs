//! Diff: what a chain has above another one.

use std::os::fd::AsFd;

use kiln_llb::op::{DiffOp, InputIndex};
use kiln_solver::StepContext;
use kiln_store::{Layer, LayerId};
use kiln_tree::Dir;

use crate::blobs::blocking;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::relink::relink;
use crate::snapshots::Snapshots;

/// Takes away the layers of the lower input from below the upper one.
pub(crate) async fn diff(
    snapshots: &Snapshots,
    op: &DiffOp,
    inputs: &[Output],
    context: &StepContext,
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
    snapshots.materialise([&Output::Layer(Some(upper))], Some(context)).await?;
    blocking(move || snapshots.rebase(&above)).await.map(Output::Layer)
}

fn unrelated() -> Error {
    Error::Unsupported("a diff of an input that isn't built on the other".to_owned())
}

impl Snapshots {
    /// Repeats layers above nothing. Deletions are kept: they count when the result is merged.
    fn rebase(&self, chain: &[Layer]) -> Result<Option<LayerId>> {
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
                // The lowest tree of a chain has none: it is read without overlayfs.
                top = Some(self.commit_pending(self.begin(None)?)?);
            }
            top = Some(self.commit_repeated(pending, top.as_ref(), &layer.id)?);
        }
        Ok(top)
    }
}
