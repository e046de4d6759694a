//! Packing of layers while later steps run.

use std::error::Error;
use std::sync::Arc;

use kiln_event::Reporter;
use kiln_exporter::{AheadContext, BlobFetcher, Output, PackAhead};
use kiln_store::{LayerBlob, LayerId, Store};
use kiln_worker::{Blobs, CommittedLayers, ImageResolver};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// A background packer of the layers that the outputs will need.
#[derive(Debug)]
pub(super) struct Ahead {
    packer: PackAhead,
    cancel: CancellationToken,
}

impl Ahead {
    /// Creates the packer; `None` if the outputs need no packed layers.
    pub(super) fn new(
        outputs: &[Output],
        store: &Store,
        resolver: &ImageResolver,
    ) -> Option<Arc<Self>> {
        let cancel = CancellationToken::new();
        let fetcher =
            Fetcher { blobs: resolver.blobs(), runtime: Handle::current(), cancel: cancel.clone() };
        let context = AheadContext {
            store: store.clone(),
            limits: resolver.archive_limits(),
            fetcher: Box::new(fetcher),
            progress: Reporter::silent_until(cancel.clone()),
        };
        PackAhead::new(outputs, context).map(|packer| Arc::new(Self { packer, cancel }))
    }

    /// Stops starting new work. The export packs the remaining layers.
    pub(super) fn close(&self) {
        self.packer.close();
    }

    /// Cancels the packing and returns once it has stopped.
    pub(super) fn stop(&self) {
        self.cancel.cancel();
        tokio::task::block_in_place(|| self.packer.finish());
    }
}

impl CommittedLayers for Ahead {
    fn committed(&self, top: &LayerId) {
        self.packer.add(top);
    }
}

struct Fetcher {
    blobs: Blobs,
    runtime: Handle,
    cancel: CancellationToken,
}

impl BlobFetcher for Fetcher {
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>> {
        let silent = Reporter::silent();
        self.runtime.block_on(async {
            tokio::select! {
                fetched = self.blobs.fetch(blob, &silent) => Ok(fetched?),
                () = self.cancel.cancelled() => Err("canceled".into()),
            }
        })
    }

    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(format!("layer {layer} is not needed as a tree").into())
    }
}
