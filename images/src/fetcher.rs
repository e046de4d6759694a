//! The layers of base images, for threads that may block.

use kiln_event::Reporter;
use kiln_store::{Layer, LayerBlob, LayerId};
use kiln_tree::Manifest;
use tokio::runtime::Handle;

use crate::error::{Error, Result};
use crate::flight::cancellable;
use crate::snapshots::Snapshots;

/// A source of layers that the store lacks because no step needed them. It waits for downloads on a
/// runtime, so call it only on threads that may block.
#[derive(Clone, Debug)]
pub struct Fetcher {
    snapshots: Snapshots,
    runtime: Handle,
    reporter: Reporter,
}

impl Fetcher {
    /// Creates a fetcher whose downloads report to `reporter` and stop with it.
    pub fn new(snapshots: Snapshots, runtime: Handle, reporter: Reporter) -> Self {
        Self { snapshots, runtime, reporter }
    }

    /// Downloads a blob into the content store and verifies its digest. Does nothing if the blob is
    /// stored already.
    ///
    /// # Errors
    /// Fails with [`Error::Fetch`] if the blob isn't available or is a different one.
    pub fn fetch(&self, blob: &LayerBlob) -> Result<()> {
        let fetched = self.snapshots.blobs.fetch(blob, &self.reporter);
        self.wait(&blob.digest, fetched)
    }

    /// Unpacks the layer and all layers below it that have no tree.
    ///
    /// # Errors
    /// Fails with [`Error::Fetch`] if a layer isn't available or is invalid.
    pub fn unpack(&self, layer: &LayerId) -> Result<()> {
        let silent = Reporter::silent_until(self.reporter.cancel.clone());
        self.wait(layer, self.snapshots.materialise([layer], &silent))
    }

    /// Returns the listing of a layer. Downloads its archive if this machine has neither the archive
    /// nor the tree.
    ///
    /// # Errors
    /// Fails with [`Error::Fetch`] if the layer isn't available or is invalid.
    pub fn list(&self, layer: &Layer) -> Result<Manifest> {
        let silent = Reporter::silent_until(self.reporter.cancel.clone());
        self.wait(&layer.id, self.snapshots.listing(layer, &silent))
    }

    fn wait<T>(
        &self,
        layer: &dyn std::fmt::Display,
        work: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        self.runtime.block_on(cancellable(&self.reporter, work)).map_err(|error| match error {
            Error::Cancelled => error,
            error => Error::Fetch { layer: layer.to_string(), source: Box::new(error) },
        })
    }
}
