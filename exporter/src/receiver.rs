//! Receivers of blobs, for outputs and caches that the caller stores.

use std::error::Error as StdError;
use std::fmt;
use std::io::{self, Cursor, Read};
use std::sync::Arc;

use kiln_oci::{Digest, Document};
use kiln_store::Store;

use crate::error::{Error, Result};

/// A function that opens a blob.
pub type OpenBlob<'a> = dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync + 'a;

/// A receiver of blobs. Its method blocks.
pub trait BlobReceiver: fmt::Debug + Send + Sync {
    /// Takes a blob of `size` bytes. A receiver that has the blob doesn't open it.
    ///
    /// # Errors
    /// Fails if the blob can't be read or doesn't arrive.
    fn receive(
        &self,
        digest: &Digest,
        size: u64,
        open: &OpenBlob<'_>,
    ) -> std::result::Result<(), Box<dyn StdError + Send + Sync>>;
}

/// A shared receiver. Two of them are equal if they are the same receiver.
#[derive(Clone, Debug)]
pub struct BlobSink(pub Arc<dyn BlobReceiver>);

impl PartialEq for BlobSink {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for BlobSink {}

impl BlobSink {
    /// Hands over a blob of the store.
    pub(crate) fn blob(&self, store: &Store, digest: &Digest, size: u64) -> Result<()> {
        let open = || {
            let file = store.content().open(digest).map_err(io::Error::other)?;
            Ok(Box::new(file) as Box<dyn Read + Send>)
        };
        self.0.receive(digest, size, &open).map_err(Error::Receive)
    }

    /// Hands over a document.
    pub(crate) fn document(&self, document: &Document) -> Result<()> {
        let open = || Ok(Box::new(Cursor::new(document.bytes.clone())) as Box<dyn Read + Send>);
        let size = document.bytes.len() as u64;
        self.0.receive(&document.digest, size, &open).map_err(Error::Receive)
    }
}
