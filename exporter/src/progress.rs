//! The ports of an export: progress reports and the source of base images' layers.

use std::error::Error;

use kiln_store::{LayerBlob, LayerId};

/// A receiver of an export's progress.
pub trait Progress: Send + Sync {
    /// Reports that the part `name` has processed `current` of `total` bytes. `done` is `true`
    /// once, at the end. Calls are frequent, so the implementation must return at once.
    fn status(&self, name: &str, current: u64, total: Option<u64>, done: bool);

    /// Returns `true` if the export should stop.
    fn cancelled(&self) -> bool {
        false
    }
}

/// A source of layers that the store doesn't have.
pub trait BlobFetcher: Send + Sync {
    /// Downloads a blob into the content store and verifies its digest. Does nothing if the blob is
    /// stored already.
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Unpacks the layer and all layers below it that have no tree.
    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// A [`Progress`] that ignores all reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn status(&self, _name: &str, _current: u64, _total: Option<u64>, _done: bool) {}
}
