//! Copies whose result is a blob from the beginning.
//!
//! Where nothing in the build reads what a chain of copies makes, and the outputs want blobs, files
//! go from their source into the archive: no tree is made of them. Should somebody mount the layer
//! later, it is unpacked like a base image's.

use std::io::Write;

use kiln_llb::op::{FileAction, FileActionKind, FileOp, InputIndex};
use kiln_oci::Digest;
use kiln_solver::StepContext;
use kiln_store::{LayerBlob, LayerId};

use super::{Source, copy, owner, owner_of};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::snapshots::Snapshots;

/// Writes an archive into what it is given.
pub type Fill<'a> = dyn FnMut(&mut dyn Write) -> kiln_tree::Result<()> + 'a;

/// The port to how layers are packed: compression is the exporter's business.
pub trait LayerPacker: std::fmt::Debug + Send + Sync {
    /// Makes a blob of the archive that `fill` writes, as the outputs of the build want it, and
    /// returns the digest of the archive and the blob.
    ///
    /// # Errors
    /// Fails where `fill` or the store does, or the step is cancelled.
    fn pack(
        &self,
        context: &StepContext,
        fill: &mut Fill<'_>,
    ) -> std::result::Result<(Digest, LayerBlob), Box<dyn std::error::Error + Send + Sync>>;
}

/// Makes the layer of a file op without a tree; `None` where it takes one.
pub(super) fn run(
    snapshots: &Snapshots,
    op: &FileOp,
    inputs: &[Output],
    (packer, context): (&dyn LayerPacker, &StepContext),
) -> Result<Option<LayerId>> {
    if !is_chain(op, inputs) {
        return Ok(None);
    }
    let below = match op.actions[0].input.map(|index| &inputs[index as usize]) {
        Some(Output::Layer(layer)) => layer.as_ref(),
        Some(Output::Local(_)) => return Ok(None),
        None => None,
    };
    let source = |index: InputIndex| match index {
        None => Ok(Source::Dir(snapshots.read(None)?)),
        Some(index) => Source::of(snapshots, &inputs[index as usize]),
    };
    let mut copies = Vec::with_capacity(op.actions.len());
    for action in &op.actions {
        let FileActionKind::Copy(copied) = &action.kind else { return Ok(None) };
        let owner = match owner_of(&action.kind) {
            Some(chown) => Some(owner::resolve(chown, source)?),
            None => None,
        };
        let options = copy::options(copied, (owner, snapshots.limits))?;
        copies.push((source(action.secondary_input)?, options));
    }
    let views: Vec<_> =
        copies.iter().map(|(source, options)| (source.view(), options.clone())).collect();
    let tree = snapshots.read(below)?;
    let plan = kiln_tree::plan_copies(&views, &tree).map_err(copy::missing)?;
    let Some(plan) = plan else { return Ok(None) };
    let packed = packer.pack(context, &mut |sink| plan.write(sink).map(drop));
    let cancelled = context.cancel.is_cancelled();
    let failed = |error| if cancelled { Error::Cancelled } else { Error::Pack(error) };
    let (diff_id, blob) = packed.map_err(failed)?;
    Ok(Some(snapshots.store.layers().commit_blob(below, &diff_id, &blob)?))
}

/// Tells whether each action goes on with the result of the one before, reads nothing but inputs,
/// and only the last one makes an output.
fn is_chain(op: &FileOp, inputs: &[Output]) -> bool {
    let last = op.actions.len().saturating_sub(1);
    let is_input = |index: u32| (index as usize) < inputs.len();
    let is_link = |(position, action): (usize, &FileAction)| {
        let follows = match position.checked_sub(1) {
            None => action.input.is_none_or(is_input),
            Some(before) => action.input == Some((inputs.len() + before) as u32),
        };
        let mut read = super::references(action).skip(1).flatten();
        follows && action.output == (position == last).then_some(0) && read.all(is_input)
    };
    !op.actions.is_empty() && op.actions.iter().enumerate().all(is_link)
}
