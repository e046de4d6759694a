//! Copies that are written straight into a layer's blob.
//!
//! If no step of the build reads the result of a chain of copies, and the outputs need blobs, the
//! files go from their source into the archive. Neither they nor their base get a tree. If a later
//! build mounts the layer, it is unpacked like a base image's.

use kiln_event::Reporter;
use kiln_images::{Base, Packing, Snapshots, blocking, pack_plan};
use kiln_llb::op::{FileAction, FileActionKind, FileOp, InputIndex};
use kiln_store::LayerId;
use kiln_tree::CopyOptions;

use super::{Source, copy, owner, owner_of};
use crate::error::{Error, Result};
use crate::output::{Output, materialise};

/// Creates the layer of a file op without a tree. Returns `None` if the op needs one.
pub(super) async fn run(
    snapshots: &Snapshots,
    op: &FileOp,
    inputs: &[Output],
    packing: Packing,
    reporter: &Reporter,
) -> Result<Option<LayerId>> {
    if !is_chain(op, inputs.len()) {
        return Ok(None);
    }
    let top = match op.actions[0].input.map(|index| &inputs[index as usize]) {
        Some(Output::Layer(layer)) => layer.clone(),
        Some(Output::Local(_)) => return Ok(None),
        None => None,
    };
    materialise(snapshots, &sources(op, inputs), reporter).await?;
    let base = snapshots.below(top.as_ref(), reporter).await?;
    let (snapshots, op, inputs) = (snapshots.clone(), op.clone(), inputs.to_vec());
    let reporter = reporter.clone();
    blocking(move || {
        let copies = Copies { op: &op, inputs: &inputs, top: top.as_ref() };
        copies.pack(&snapshots, base, packing, &reporter)
    })
    .await
}

/// Returns the inputs that the copies read.
fn sources(op: &FileOp, inputs: &[Output]) -> Vec<Output> {
    let read = op.actions.iter().flat_map(|action| super::references(action).skip(1).flatten());
    read.map(|index| inputs[index as usize].clone()).collect()
}

/// A chain of copies and its base.
pub(super) struct Copies<'a> {
    pub(super) op: &'a FileOp,
    pub(super) inputs: &'a [Output],
    pub(super) top: Option<&'a LayerId>,
}

impl Copies<'_> {
    /// Returns the source and the options of each copy, or `None` if an action is no copy.
    pub(super) fn sources(
        &self,
        snapshots: &Snapshots,
    ) -> Result<Option<Vec<(Source, CopyOptions)>>> {
        let source = |index: InputIndex| match index {
            None => Ok(Source::Dir(snapshots.read(None)?)),
            Some(index) => Source::of(snapshots, &self.inputs[index as usize]),
        };
        let mut copies = Vec::with_capacity(self.op.actions.len());
        for action in &self.op.actions {
            let FileActionKind::Copy(copied) = &action.kind else { return Ok(None) };
            let owner = match owner_of(&action.kind) {
                Some(chown) => Some(owner::resolve(chown, source)?),
                None => None,
            };
            let options = copy::options(copied, owner, snapshots.limits)?;
            copies.push((source(action.secondary_input)?, options));
        }
        Ok(Some(copies))
    }

    fn pack(
        &self,
        snapshots: &Snapshots,
        mut base: Base,
        packing: Packing,
        reporter: &Reporter,
    ) -> Result<Option<LayerId>> {
        let Some(copies) = self.sources(snapshots)? else { return Ok(None) };
        let views: Vec<_> =
            copies.iter().map(|(source, options)| (source.view(), options.clone())).collect();
        let sources: Vec<_> = copies.iter().map(|(source, _)| source.view()).collect();
        let plan = |base: &Base| {
            kiln_tree::plan_copies(&views, base.below())
                .map_err(|error| copy::missing(error, &sources))
        };
        let mut planned = plan(&base)?;
        if base.learn(snapshots)? {
            planned = plan(&base)?;
        }
        let Some(plan) = planned else { return Ok(None) };
        let store = &snapshots.store;
        let packed = pack_plan(store, packing, reporter, &plan);
        let cancelled = reporter.is_cancelled();
        let failed =
            |error: kiln_images::Error| if cancelled { Error::Cancelled } else { error.into() };
        let (diff_id, blob) = packed.map_err(failed)?;
        let layers = snapshots.store.layers();
        let layer = layers.commit_blob(self.top, &diff_id, &blob)?;
        // A later copy on top of this layer doesn't need to read the archive.
        layers.put_contents(&diff_id, plan.manifest().as_bytes())?;
        Ok(Some(layer))
    }
}

/// Returns `true` if each action continues the previous one and reads only inputs of the op, and
/// only the last one has an output.
pub(super) fn is_chain(op: &FileOp, inputs: usize) -> bool {
    let last = op.actions.len().saturating_sub(1);
    let is_input = |index: u32| (index as usize) < inputs;
    let is_link = |(position, action): (usize, &FileAction)| {
        let follows = match position.checked_sub(1) {
            None => action.input.is_none_or(is_input),
            Some(before) => action.input == Some((inputs + before) as u32),
        };
        let mut read = super::references(action).skip(1).flatten();
        follows && action.output == (position == last).then_some(0) && read.all(is_input)
    };
    !op.actions.is_empty() && op.actions.iter().enumerate().all(is_link)
}
