//! The stores of blobs of clients, as sources.

use std::io::{self, Read};
use std::pin::Pin;

use bytes::{Buf as _, Bytes};
use futures_util::stream::{Stream, StreamExt as _};
use kiln_images::BlobStore;
use kiln_oci::Digest;
use tokio::runtime::Handle;

use crate::session::ContentStore;

/// A store of a client that blobs are read from.
#[derive(Debug)]
pub(crate) struct FromStore {
    store: ContentStore,
    runtime: Handle,
}

impl FromStore {
    /// Must be called within a Tokio runtime.
    pub(crate) fn new(store: ContentStore) -> Self {
        Self { store, runtime: Handle::current() }
    }
}

impl BlobStore for FromStore {
    fn open(&self, digest: &Digest) -> io::Result<Option<(u64, Box<dyn Read + Send>)>> {
        let found = self.runtime.block_on(self.store.info(digest)).map_err(io::Error::other)?;
        let Some(found) = found else { return Ok(None) };
        let blob = Blob {
            store: self.store.clone(),
            runtime: self.runtime.clone(),
            digest: *digest,
            size: found.size,
            stream: None,
            rest: Bytes::new(),
        };
        Ok(Some((found.size, Box::new(blob))))
    }
}

type Pieces = Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// A blob that is read from the client once somebody reads it.
struct Blob {
    store: ContentStore,
    runtime: Handle,
    digest: Digest,
    size: u64,
    stream: Option<Pieces>,
    rest: Bytes,
}

impl Read for Blob {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let stream = if let Some(stream) = &mut self.stream {
                stream
            } else {
                let read = self.store.read(&self.digest, 0, Some(self.size));
                let stream = self.runtime.block_on(read).map_err(io::Error::other)?;
                self.stream.insert(stream.boxed())
            };
            match self.runtime.block_on(stream.next()) {
                None => return Ok(0),
                Some(piece) => self.rest = piece?,
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
