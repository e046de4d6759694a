//! Packing of layers while the build runs.

use std::error::Error;
use std::sync::Arc;

use kiln_event::Reporter;
use kiln_exporter::{Output, Packing, pack_stream};
use kiln_oci::Digest;
use kiln_store::{LayerBlob, Store};
use kiln_worker::{Fill, LayerPacker};

/// A packer with the first output's compression.
#[derive(Debug)]
struct Packer {
    store: Store,
    packing: Packing,
}

/// Returns a packer for layers that are never mounted as a tree. Returns `None` if an output keeps
/// the image in the store, where it is likely to be run, or exports files.
pub(super) fn packer(store: &Store, outputs: &[Output]) -> Option<Arc<dyn LayerPacker>> {
    let packing = outputs.first()?.packing;
    outputs
        .iter()
        .all(Output::is_archive)
        .then(|| Arc::new(Packer { store: store.clone(), packing }) as Arc<dyn LayerPacker>)
}

impl LayerPacker for Packer {
    fn pack(
        &self,
        reporter: &Reporter,
        fill: &mut Fill<'_>,
    ) -> Result<(Digest, LayerBlob), Box<dyn Error + Send + Sync>> {
        Ok(pack_stream(&self.store, self.packing, reporter, fill)?)
    }
}
