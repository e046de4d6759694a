//! Packing of layers while later steps run.

use std::sync::Arc;

use kiln_event::Reporter;
use kiln_exporter::{Output, pack_ahead};
use kiln_images::{AheadContext, Fetcher, ImageResolver, PackAhead, Snapshots};
use kiln_store::Store;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// A background packer of the layers that the outputs will need.
#[derive(Debug)]
pub(super) struct Ahead {
    /// The packer, which the worker gives each layer at its commit.
    pub(super) packer: Arc<PackAhead>,
    cancel: CancellationToken,
}

impl Ahead {
    /// Creates the packer; `None` if the outputs need no packed layers.
    pub(super) fn new(outputs: &[Output], store: &Store, resolver: &ImageResolver) -> Option<Self> {
        let cancel = CancellationToken::new();
        // The display shows steps and the export only.
        let silent = Reporter::silent_until(cancel.clone());
        let snapshots = Snapshots::new(store.clone(), resolver);
        let context = AheadContext {
            store: store.clone(),
            limits: resolver.archive_limits(),
            fetcher: Fetcher::new(snapshots, Handle::current(), silent.clone()),
            progress: silent,
        };
        pack_ahead(outputs, context).map(|packer| Self { packer: Arc::new(packer), cancel })
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
