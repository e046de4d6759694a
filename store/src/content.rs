//! Blobs: an OCI image layout.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use kiln_oci::Digest;

use crate::error::Result;

/// The blobs.
#[derive(Clone, Debug)]
pub struct Content {}

/// A blob in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
}

/// A blob that is being written. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub struct BlobWriter {}

impl Content {
    /// Returns the blob's size, or `None` where the store hasn't got it.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let _ = digest;
        todo!()
    }

    /// Returns where the blob lies.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        let _ = digest;
        todo!()
    }

    /// Opens a blob.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        let _ = digest;
        todo!()
    }

    /// Reads a small blob (a manifest, a config) whole, and verifies it. Fails beyond `limit` bytes.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let _ = (digest, limit);
        todo!()
    }

    /// Begins a blob.
    pub fn writer(&self) -> Result<BlobWriter> {
        todo!()
    }

    /// Stores bytes.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let _ = bytes;
        todo!()
    }
}

impl BlobWriter {
    /// Ends the blob: verifies it against `expected` where that is given, and gives it its name.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Blob> {
        let _ = expected;
        todo!()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = bytes;
        todo!()
    }

    fn flush(&mut self) -> std::io::Result<()> {
        todo!()
    }
}
