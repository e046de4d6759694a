//! The packing of layers that no step reads.

use kiln_exporter::Output;
use kiln_images::Packing;

/// Returns the packing of layers that are never mounted as a tree: the first output's. Returns
/// `None` if an output keeps the image in the store, where it is likely to be run, or exports files.
pub(super) fn packing(outputs: &[Output]) -> Option<Packing> {
    let packing = outputs.first()?.packing;
    outputs.iter().all(Output::is_archive).then_some(packing)
}
