//! The port to the source of base images' layers.

use std::error::Error;

use kiln_store::{LayerBlob, LayerId};

/// A source of layers that the store doesn't have.
pub trait BlobFetcher: Send + Sync {
    /// Downloads a blob into the content store and verifies its digest. Does nothing if the blob is
    /// stored already.
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Unpacks the layer and all layers below it that have no tree.
    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>>;
}
