//! Layers that are packed while later steps run.

use std::error::Error;
use std::sync::Arc;

use kiln_exporter::{AheadContext, BlobFetcher, Output, PackAhead, Progress};
use kiln_store::{LayerBlob, LayerId, Store};
use kiln_worker::{Blobs, CommittedLayers, ImageResolver};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Packs layers that the outputs will need, in the background.
#[derive(Debug)]
pub(super) struct Ahead {
    packer: PackAhead,
    cancel: CancellationToken,
}

impl Ahead {
    /// Prepares it; `None` where the outputs need no packed layers.
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
            progress: Box::new(Silent(cancel.clone())),
        };
        PackAhead::new(outputs, context).map(|packer| Arc::new(Self { packer, cancel }))
    }

    /// Begins nothing more: what is left is the export's.
    pub(super) fn close(&self) {
        self.packer.close();
    }

    /// Gives up, and returns when nothing is being packed any more.
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

/// Shows nothing: the display speaks of steps, and of the export.
struct Silent(CancellationToken);

impl Progress for Silent {
    fn status(&self, _name: &str, _current: u64, _total: Option<u64>, _done: bool) {}

    fn cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

struct Fetcher {
    blobs: Blobs,
    runtime: Handle,
    cancel: CancellationToken,
}

impl BlobFetcher for Fetcher {
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>> {
        self.runtime.block_on(async {
            tokio::select! {
                fetched = self.blobs.fetch(blob) => Ok(fetched?),
                () = self.cancel.cancelled() => Err("canceled".into()),
            }
        })
    }

    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(format!("layer {layer} is not needed as a tree").into())
    }
}
