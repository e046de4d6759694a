//! Stores of blobs that the caller provides: those of a server's clients.
//!
//! A store is registered for the time of a build, and named by a text of the caller's choice. The
//! index of kiln's store keeps that name as the origin of layers. Once the build has ended, such a
//! layer counts as unavailable unless kiln's store has its blob.

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError};

use kiln_oci::Digest;

use crate::error::{Error, Result};

/// A store of blobs. Its methods block.
pub trait BlobStore: fmt::Debug + Send + Sync {
    /// Opens a blob for reading. Returns `None` if the store doesn't have it. The bytes aren't
    /// verified.
    ///
    /// # Errors
    /// Fails if the store does.
    fn open(&self, digest: &Digest) -> std::io::Result<Option<(u64, Box<dyn Read + Send>)>>;
}

/// The registered stores by name.
#[derive(Debug, Default)]
pub struct BlobStores(Mutex<BTreeMap<String, Arc<dyn BlobStore>>>);

impl BlobStores {
    /// Registers a store. Replaces an earlier one of the same name.
    pub fn add(&self, name: &str, store: Arc<dyn BlobStore>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), store);
    }

    /// Opens a blob of a registered store. Returns `None` if the store doesn't have it. Blocks.
    ///
    /// # Errors
    /// Fails if no store has that name, or if the store fails.
    pub fn open(&self, name: &str, digest: &Digest) -> Result<Option<(u64, Box<dyn Read + Send>)>> {
        let store = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let store = store.ok_or_else(|| Error::image(name, "the client has no such store"))?;
        store.open(digest).map_err(Error::kernel("read blob", digest))
    }

    /// Reads a blob of at most `limit` bytes, and verifies it. Blocks.
    ///
    /// # Errors
    /// Fails if the blob doesn't exist, is too large, or has another digest.
    pub fn read(&self, name: &str, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let found = self.open(name, digest)?;
        let (_, blob) =
            found.ok_or_else(|| Error::image(name, format!("no blob {digest} in the store")))?;
        let mut bytes = Vec::new();
        let read = blob.take(limit + 1).read_to_end(&mut bytes);
        read.map_err(Error::kernel("read blob", digest))?;
        if bytes.len() as u64 > limit {
            return Err(Error::image(name, format!("{digest} is larger than {limit} bytes")));
        }
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(kiln_store::Error::DigestMismatch { expected: *digest, actual }.into());
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct One(&'static [u8], Digest);

    impl BlobStore for One {
        fn open(&self, digest: &Digest) -> std::io::Result<Option<(u64, Box<dyn Read + Send>)>> {
            let size = self.0.len() as u64;
            Ok((*digest == self.1).then(|| (size, Box::new(self.0) as Box<dyn Read + Send>)))
        }
    }

    #[test]
    fn blobs_are_verified() {
        let stores = BlobStores::default();
        let (good, bad) = (Digest::of(b"good"), Digest::of(b"other"));
        assert!(stores.read("good", &good, 4).is_err(), "not registered");
        stores.add("good", Arc::new(One(b"good", good)));
        stores.add("bad", Arc::new(One(b"bad", bad)));
        assert_eq!(stores.read("good", &good, 4).unwrap(), b"good");
        assert!(stores.read("good", &good, 3).is_err(), "too large");
        assert!(stores.read("bad", &bad, 9).is_err(), "wrong digest");
        assert!(stores.read("bad", &good, 9).is_err(), "missing");
    }
}
