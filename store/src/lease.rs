//! Leases: what the living need.

use kiln_oci::Digest;

use crate::error::Result;
use crate::layers::LayerId;

/// Keeps layers and blobs from being collected while it lives.
#[derive(Debug)]
pub struct Lease {}

impl Lease {
    /// Keeps a layer, and all below it.
    pub fn add_layer(&self, id: &LayerId) -> Result<()> {
        let _ = id;
        todo!()
    }

    /// Keeps a blob.
    pub fn add_blob(&self, digest: &Digest) -> Result<()> {
        let _ = digest;
        todo!()
    }
}
