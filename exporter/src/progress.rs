//! The ports of an export: who is told how far it is, and who gets the layers of base images.

use std::error::Error;

use kiln_store::{LayerBlob, LayerId};

/// Is told how far an export is.
pub trait Progress: Send + Sync {
    /// Says that the part `name` has done `current` of `total` bytes; `done` once, at its end. Comes
    /// often, and must return at once.
    fn status(&self, name: &str, current: u64, total: Option<u64>, done: bool);

    /// Tells whether the export is to stop.
    fn cancelled(&self) -> bool {
        false
    }
}

/// Gets layers that the store only knows by name.
pub trait BlobFetcher: Send + Sync {
    /// Brings a blob into the store's content, verified, unless it is there.
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>>;

    /// Gives trees to the layer and all below it, where they have none.
    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>>;
}

/// Tells nobody.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn status(&self, _name: &str, _current: u64, _total: Option<u64>, _done: bool) {}
}
