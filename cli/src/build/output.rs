//! The outputs of a build.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln_event::EventSender;
use kiln_exporter::{
    Annotations, CacheExported, CacheRequest, CacheTarget, CacheTo, EngineChoice, ExportContext,
    ExportRequest, Exported, Output, OutputKind, Remote, export_cache,
};
use kiln_images::Fetcher;
use kiln_oci::Reference;
use kiln_store::Store;
use kiln_tree::ArchiveLimits;
use kiln_worker::Worker;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::destinations;
use super::images::Step;
use crate::commands::build::{BuildArguments, Right};
use crate::printer::Stdout;

/// Returns the outputs that the arguments name, or an image in the store.
pub(super) fn resolve(arguments: &BuildArguments, tags: &[Reference]) -> Result<Vec<Output>> {
    let texts = arguments.outputs.iter().filter(|text| !text.is_empty());
    let mut outputs = texts.map(|text| Output::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if arguments.push {
        let goes_there = |it: &Output| matches!(it.kind, OutputKind::Image | OutputKind::Registry);
        if !outputs.iter().any(goes_there) {
            outputs.push(Output::new(OutputKind::Registry));
        }
        outputs.iter_mut().filter(|it| goes_there(it)).for_each(|output| output.push = true);
    }
    if arguments.load && !outputs.iter().any(|it| matches!(it.kind, OutputKind::Load(_))) {
        outputs.push(Output::new(OutputKind::Load(EngineChoice::default())));
    }
    if outputs.is_empty() {
        outputs.push(Output::new(OutputKind::Image));
    }
    for output in &mut outputs {
        for tag in tags {
            if !output.names.contains(tag) {
                output.names.push(tag.clone());
            }
        }
        output.check_names()?;
    }
    annotate(&mut outputs, &arguments.annotations)?;
    if arguments.iidfile.is_some() && outputs.iter().any(Output::is_files) {
        bail!("local and tar exporters are incompatible with image ID file");
    }
    destinations::check(&outputs, arguments.allow.contains(&Right::LocalDelete))?;
    Ok(outputs)
}

/// Adds the annotations of `--annotation` to every image.
fn annotate(outputs: &mut [Output], texts: &[String]) -> Result<()> {
    let mut annotations = Annotations::default();
    for text in texts.iter().filter(|text| !text.is_empty()) {
        annotations.add(text)?;
    }
    if annotations.is_empty() {
        return Ok(());
    }
    if !outputs.iter().any(Output::is_image) {
        bail!("--annotation is for images, and no output is one");
    }
    for output in outputs.iter_mut().filter(|output| output.is_image()) {
        output.annotations.extend(&annotations);
    }
    Ok(())
}

/// The context of an export.
pub(super) struct Exporting {
    pub(super) store: Store,
    pub(super) worker: Arc<Worker>,
    pub(super) limits: ArchiveLimits,
    pub(super) events: EventSender,
    pub(super) cancel: CancellationToken,
    /// The standard output, for outputs that are streams.
    pub(super) stdout: Stdout,
}

impl Exporting {
    /// Writes every output.
    pub(super) async fn export(self, request: ExportRequest) -> Result<Exported> {
        let work = move |context: &mut ExportContext<'_>| kiln_exporter::export(&request, context);
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
            let reporter = step.reporter(&self.cancel);
            let snapshots = self.worker.snapshots();
            let fetcher = Fetcher::new(snapshots.clone(), runtime.clone(), reporter.clone());
            let mut context = ExportContext {
                store: &self.store,
                fetcher: &fetcher,
                limits: self.limits,
                progress: &reporter,
                remote: Some(Remote { client: snapshots.blobs.client(), runtime: &runtime }),
                stdout: &mut self.stdout.clone(),
            };
            step.end(work(&mut context))
        };
        Ok(tokio::task::spawn_blocking(work).await.context("export")??)
    }
}
