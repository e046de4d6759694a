//! The export of a build's result.

use std::sync::Arc;

use anyhow::{Context, Result};
use kiln_attest::Attestations;
use kiln_event::EventSender;
use kiln_exporter::push::Remote;
use kiln_exporter::{
    CacheExported, CacheRequest, CacheTarget, CacheTo, ExportContext, ExportRequest, Exported,
    export_cache,
};
use kiln_images::Fetcher;
use kiln_store::Store;
use kiln_tree::ArchiveLimits;
use kiln_worker::Worker;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::attest::attester;
use super::spec::OutputStream;
use super::step::Step;

/// The context of an export.
pub(super) struct Exporting {
    pub(super) store: Store,
    pub(super) worker: Arc<Worker>,
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
        request: ExportRequest,
        attestations: Attestations,
    ) -> Result<Exported> {
        self.export_as("exporting", request, attestations).await
    }

    /// Writes every output, as a step of this title.
    pub(super) async fn export_as(
        self,
        title: &'static str,
        mut request: ExportRequest,
        attestations: Attestations,
    ) -> Result<Exported> {
        let work = move |context: &mut ExportContext<'_>| {
            request.attester = attester(attestations, &request, context)?;
            kiln_exporter::export(&request, context)
        };
        self.work(title, work).await
    }

    /// Writes a cache.
    pub(super) async fn export_cache(
        self,
        request: CacheRequest,
        to: CacheTo,
    ) -> Result<CacheExported> {
        let name = match &to.target {
            CacheTarget::Local { .. } | CacheTarget::Receiver(_) => {
                "exporting cache to client directory"
            }
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
            let reporter = step.reporter(&self.cancel);
            let snapshots = self.worker.snapshots();
            let fetcher = Fetcher::new(snapshots.clone(), runtime.clone(), reporter.clone());
            let mut context = ExportContext {
                store: &self.store,
                fetcher: &fetcher,
                limits: self.limits,
                progress: &reporter,
                remote: Some(Remote { client: snapshots.blobs.client(), runtime: &runtime }),
                stdout: &mut self.stream.clone(),
            };
            step.end(work(&mut context))
        };
        Ok(tokio::task::spawn_blocking(work).await.context("export")??)
    }
}
