//! Copies from a build context that start from the result of an earlier build.
//!
//! The files of a context differ little from one build to the next. If the store has the tree of an
//! earlier version of the same copies, only the differences are written ([`kiln_tree::copy`]'s
//! `difference`), and the new layer's tree is put on top of the earlier one. Nothing but the form of
//! the tree differs from the result of a whole copy.
//!
//! Earlier versions are found by the *shape* of an op: its definition without its inputs, and the
//! identity of the context's directory. A shape needs no precision. If the earlier tree is another
//! one, the differences are many, and the copies create a whole tree.

use std::os::fd::AsFd as _;

use kiln_images::Snapshots;
use kiln_llb::op::{FileActionKind, FileOp, Op, OpKind};
use kiln_oci::Digest;
use kiln_store::LayerId;
use kiln_tree::{View, difference_of_copies};

use super::direct::{Copies, is_chain};
use crate::error::Result;
use crate::output::Output;

/// Returns the shape of an op, or `None` if its results can't be compared.
pub(super) fn shape(
    snapshots: &Snapshots,
    op: &FileOp,
    inputs: &[Output],
) -> Result<Option<Digest>> {
    if snapshots.copies()? || !is_chain(op, inputs.len()) {
        return Ok(None);
    }
    let mut key = b"kiln copies 1\n".to_vec();
    for action in &op.actions {
        let FileActionKind::Copy(_) = &action.kind else { return Ok(None) };
        let source = action.secondary_input.and_then(|index| inputs.get(index as usize));
        let Some(Output::Local(context)) = source else { return Ok(None) };
        let Ok(root) = rustix::fs::fstat(context.dir().as_fd()) else { return Ok(None) };
        key.extend(format!("{} {}\n", root.st_dev, root.st_ino).into_bytes());
    }
    let kind = Some(OpKind::File(op.clone()));
    let op = Op { inputs: Vec::new(), platform: None, constraints: Vec::new(), kind };
    key.extend(op.encode());
    Ok(Some(Digest::of(&key)))
}

/// Creates the layer of copies on top of the tree of an earlier version. Returns `None` if the copies
/// must create a whole tree.
pub(super) fn run(
    snapshots: &Snapshots,
    op: &FileOp,
    inputs: &[Output],
    shape: &Digest,
) -> Result<Option<LayerId>> {
    let top = match op.actions[0].input.map(|index| &inputs[index as usize]) {
        Some(Output::Layer(layer)) => layer.clone(),
        Some(Output::Local(_)) => return Ok(None),
        None => None,
    };
    let Some(earlier) = snapshots.copied_tree(shape, top.as_ref())? else { return Ok(None) };
    let copies = Copies { op, inputs, top: top.as_ref() };
    let Some(sources) = copies.sources(snapshots)? else { return Ok(None) };
    let views: Vec<(View<'_>, _)> =
        sources.iter().map(|(source, options)| (source.view(), options.clone())).collect();
    let below = snapshots.read(top.as_ref())?;
    // The copies into a whole tree report the error of a missing source.
    let Ok(Some(difference)) = difference_of_copies(&views, &below, &earlier.record) else {
        return Ok(None);
    };
    drop(below);
    let changes = difference.changes().clone();
    let writable = snapshots.write_difference(top.as_ref(), &earlier.layer)?;
    difference.write(writable.dir())?;
    Ok(Some(snapshots.commit_difference(writable, changes)?))
}
