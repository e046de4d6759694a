//! Cache records: keys and the layers that they lead to.

use kiln_oci::Digest;

use crate::error::Result;
use crate::layers::LayerId;

/// The cache records.
#[derive(Clone, Debug)]
pub struct CacheIndex {}

impl CacheIndex {
    /// Returns the canonical key that a definition key was linked to.
    pub fn canonical(&self, definition: &Digest) -> Result<Option<Digest>> {
        let _ = definition;
        todo!()
    }

    /// Links a definition key to a canonical key.
    pub fn link(&self, definition: &Digest, canonical: &Digest) -> Result<()> {
        let _ = (definition, canonical);
        todo!()
    }

    /// Returns the layers stored under a canonical key, one per output (`None`: an empty file
    /// system), if the record is there and every layer of it, and notes that it was used.
    pub fn get(&self, key: &Digest) -> Result<Option<Vec<Option<LayerId>>>> {
        let _ = key;
        todo!()
    }

    /// Stores the layers of a result under its canonical key. `description` is kept as it is.
    pub fn put(&self, key: &Digest, outputs: &[Option<LayerId>], description: &str) -> Result<()> {
        let _ = (key, outputs, description);
        todo!()
    }

    /// Returns the digest of a file's content by its fingerprint (device, inode, size, times).
    pub fn file_digest(&self, fingerprint: &[u8]) -> Result<Option<[u8; 32]>> {
        let _ = fingerprint;
        todo!()
    }

    /// Remembers digests of files by fingerprint, in one transaction.
    pub fn put_file_digests(&self, digests: &[(Vec<u8>, [u8; 32])]) -> Result<()> {
        let _ = digests;
        todo!()
    }
}
