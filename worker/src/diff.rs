//! Diff ops: the layers of one chain above another one.

use std::os::fd::AsFd;

use kiln_event::Reporter;
use kiln_llb::op::{DiffOp, InputIndex};
use kiln_store::{Layer, LayerId};
use kiln_tree::Dir;

use crate::blobs::blocking;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::relink::relink;
use crate::snapshots::Snapshots;

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
    snapshots.materialise([&Output::Layer(Some(upper))], reporter).await?;
    blocking(move || snapshots.rebase(&above)).await.map(Output::Layer)
}

fn unrelated() -> Error {
    Error::Unsupported("a diff of an input that isn't built on the other".to_owned())
}

impl Snapshots {
    /// Creates copies of layers on an empty base. They keep their deletions, which count when the
    /// result is merged.
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
                // The lowest tree of a chain can't have deletions, because it is read without
                // overlayfs. An empty layer goes below it.
                top = Some(self.commit_pending(self.begin(None)?)?);
            }
            top = Some(self.commit_repeated(pending, top.as_ref(), &layer.id)?);
        }
        Ok(top)
    }
}
