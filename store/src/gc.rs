//! Garbage collection.

use crate::error::Result;
use crate::store::Store;

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers removed.
    pub layers: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Bytes freed, in real disk blocks.
    pub bytes: u64,
}

impl Store {
    /// Removes every blob and layer that no image, no cache record and no living lease reaches.
    pub fn collect(&self) -> Result<Collected> {
        todo!()
    }
}
