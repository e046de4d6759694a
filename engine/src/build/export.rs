//! The export of a build's result.

use std::error::Error;
use std::sync::Arc;

use anyhow::{Context, Result};
use kiln_attest::Attestations;
use kiln_exporter::{
    BlobFetcher, CacheExported, CacheRequest, CacheTarget, CacheTo, ExportContext, ExportRequest,
    Exported, Progress, Remote, export_cache,
};
use kiln_solver::{Event, EventSender, VertexId};
use kiln_store::{LayerBlob, LayerId, Store};
use kiln_tree::ArchiveLimits;
use kiln_worker::{Blobs, Worker};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::attest::attester;
use super::spec::OutputStream;
use super::step::Step;

/// The context of an export.
pub(super) struct Exporting {
    pub(super) store: Store,
    pub(super) worker: Arc<Worker>,
    pub(super) blobs: Blobs,
    pub(super) limits: ArchiveLimits,
    pub(super) events: EventSender,
    pub(super) cancel: CancellationToken,
    /// The stream of outputs whose destination is `-`.
    pub(super) stream: OutputStream,
}

impl Exporting {
    /// Writes every output.
    pub(super) async fn export(
        self,
        mut request: ExportRequest,
        attestations: Attestations,
    ) -> Result<Exported> {
        let work = move |context: &mut ExportContext<'_>| {
            request.attester = attester(attestations, &request, context)?;
            kiln_exporter::export(&request, context)
        };
        self.work("exporting", work).await
    }

    /// Writes a cache.
    pub(super) async fn export_cache(
        self,
        request: CacheRequest,
        to: CacheTo,
    ) -> Result<CacheExported> {
        let name = match &to.target {
            CacheTarget::Local { .. } => "exporting cache to client directory",
            CacheTarget::Registry { .. } => "exporting cache to registry",
            CacheTarget::Inline => "exporting cache",
        };
        let work = move |context: &mut ExportContext<'_>| export_cache(&request, &to, context);
        self.work(name, work).await
    }

    /// Runs the work of a step on a thread that may block.
    async fn work<T: Send + 'static>(
        self,
        name: &'static str,
        work: impl FnOnce(&mut ExportContext<'_>) -> kiln_exporter::Result<T> + Send + 'static,
    ) -> Result<T> {
        let runtime = Handle::current();
        let work = move || {
            let step = Step::begin(&self.events, name.to_owned());
            let id = step.id();
            let reporter = Reporter { id, events: &self.events, cancel: &self.cancel };
            let (blobs, worker) = (&self.blobs, &*self.worker);
            let report = (id, &self.events);
            let fetcher = Fetcher { blobs, worker, runtime: runtime.clone(), report };
            let mut context = ExportContext {
                store: &self.store,
                fetcher: &fetcher,
                limits: self.limits,
                progress: &reporter,
                remote: Some(Remote { client: self.blobs.client(), runtime: &runtime }),
                stdout: &mut self.stream.clone(),
            };
            step.end(work(&mut context))
        };
        Ok(tokio::task::spawn_blocking(work).await.context("export")??)
    }
}

/// A reporter of an export, as a step or as part of one.
pub(super) struct Reporter<'a> {
    pub(super) id: VertexId,
    pub(super) events: &'a EventSender,
    pub(super) cancel: &'a CancellationToken,
}

impl Progress for Reporter<'_> {
    fn status(&self, name: &str, current: u64, total: Option<u64>, done: bool) {
        let name = name.to_owned();
        self.events.send(Event::Status { id: self.id, name, current, total, done });
    }

    fn cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// A fetcher of layers of base images, for threads that may block.
struct Fetcher<'a> {
    blobs: &'a Blobs,
    worker: &'a Worker,
    runtime: Handle,
    /// The step that fetches the layers, and the sender of its events.
    report: (VertexId, &'a EventSender),
}

impl BlobFetcher for Fetcher<'_> {
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.runtime.block_on(self.blobs.fetch_for(blob, self.report.0, self.report.1))?)
    }

    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>> {
        let output = kiln_worker::Output::Layer(Some(layer.clone()));
        Ok(self.runtime.block_on(self.worker.materialise(&output))?)
    }
}
