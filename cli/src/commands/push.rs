//! `kiln push`.

use std::collections::BTreeMap;
use std::error::Error;
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln::build::step::Step;
use kiln::image::did_you_mean;
use kiln_exporter::push::{PushBlob, PushContext, PushObserver, Shipment, push};
use kiln_exporter::{BlobFetcher, Remote};
use kiln_oci::Reference;
use kiln_registry::{Client, Pushed, Repository};
use kiln_solver::{Event, EventSender, VertexId};
use kiln_store::{ImageRow, LayerBlob, LayerId, Store};
use kiln_worker::{Blobs, ImageResolver, ImageResolverOptions, PullPolicy};
use tokio::runtime::Handle;

use crate::arguments::progress::ProgressMode;
use crate::arguments::push::PushArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress;
use crate::settings::Settings;

/// The store, client and printer of a push.
struct Tools {
    store: Store,
    client: Client,
    blobs: Blobs,
    quiet: bool,
    printer: Printer,
}

/// Runs `kiln push`.
pub(crate) async fn run(
    arguments: PushArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let text = &arguments.image;
    let reference: Reference = text.parse().with_context(|| format!("invalid image {text:?}"))?;
    if reference.digest().is_some() {
        bail!("cannot push a digest reference");
    }
    let (store, client) = (settings.store()?, settings.registries.client());
    let rows = rows(&store, &reference, text, arguments.all_tags)?;
    let resolver = ImageResolver::new(ImageResolverOptions {
        store: store.clone(),
        layouts: BTreeMap::new(),
        registry: client.clone(),
        policy: PullPolicy::default(),
        archive_limits: settings.archive_limits,
    });
    let (blobs, quiet) = (resolver.blobs(), arguments.quiet);
    let tools = Arc::new(Tools { store, client, blobs, quiet, printer: printer.clone() });
    if !arguments.quiet {
        printer.line(format_args!("The push refers to repository [{}]", reference.name()));
    }
    for (row, name) in rows {
        let (events, receiver) = EventSender::channel();
        let live = !arguments.quiet && std::io::stderr().is_terminal();
        let mode = if live { ProgressMode::Tty } else { ProgressMode::Quiet };
        let shown = progress::run(mode, progress::Work::Push, receiver).context("show progress")?;
        let tools = Arc::clone(&tools);
        let runtime = Handle::current();
        let work = move || {
            let step = Step::begin(&events, format!("pushing {name}"));
            let id = step.id();
            step.end(tools.push(&row, &name, id, &events, &runtime))
        };
        let lines = tokio::task::spawn_blocking(work).await.context("push");
        shown.await?;
        for line in lines??.iter().filter(|_| !arguments.quiet) {
            printer.line(line);
        }
    }
    if arguments.quiet {
        let full = if arguments.all_tags { reference.name() } else { reference.to_string() };
        printer.line(full);
    }
    Ok(ExitCode::SUCCESS)
}

/// Returns the images to push, with their names.
fn rows(
    store: &Store,
    reference: &Reference,
    text: &str,
    all_tags: bool,
) -> Result<Vec<(ImageRow, Reference)>> {
    if !all_tags {
        let missing = || {
            let near = did_you_mean(store, text);
            format!("An image does not exist locally with the tag: {text}{near}")
        };
        let row = store.images().get(&reference.to_string())?.with_context(missing)?;
        return Ok(vec![(row, reference.clone())]);
    }
    if format!("{}:latest", text.trim_end_matches(":latest")).parse().as_ref() != Ok(reference) {
        bail!("tag can't be used with --all-tags/-a");
    }
    let mut found = Vec::new();
    for row in store.images().list()? {
        let name = row.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
        if let Some(name) = name.filter(|name| name.name() == reference.name()) {
            found.push((row, name));
        }
    }
    if found.is_empty() {
        bail!("An image does not exist locally with the tag: {text}");
    }
    Ok(found)
}

impl Tools {
    /// Pushes one image, and returns the lines to print at its end.
    fn push(
        &self,
        row: &ImageRow,
        name: &Reference,
        step: VertexId,
        events: &EventSender,
        runtime: &Handle,
    ) -> Result<Vec<String>> {
        let repository = Repository::from(name);
        let mut shipment = Shipment::stored(&self.store, &row.digest, &row.media_type)?;
        let mut notes = Vec::new();
        if !self.has_all(&shipment, &repository, runtime)? {
            let whole = row.digest;
            if !shipment.reduce() {
                let missing = shipment.missing.len();
                bail!(
                    "{missing} images of the index {whole} are neither here nor in {repository}: \
                     pull them, or push the platforms that are here one by one"
                );
            }
            let top = shipment.top().map(|top| top.digest.to_string()).unwrap_or_default();
            notes.push("Info: not all platforms of the image are here".to_owned());
            notes.push(format!("Info: pushed the only one that is: {whole} -> {top}"));
        }
        let observer = PushProgress { quiet: self.quiet, printer: &self.printer, step, events };
        for blob in shipment.freight.iter().filter(|blob| blob.is_layer) {
            observer.line(blob, "Preparing");
        }
        let remote = Remote { client: &self.client, runtime };
        let fetcher = Fetcher { blobs: &self.blobs, runtime, step, events };
        let context =
            PushContext { store: &self.store, remote, fetcher: &fetcher, observer: &observer };
        let digest = push(&shipment, &repository, std::slice::from_ref(name), &context)?;
        let size = shipment.top().map_or(0, |top| top.bytes.len());
        let tag = name.tag().unwrap_or_default();
        notes.insert(0, format!("{tag}: digest: {digest} size: {size}"));
        Ok(notes)
    }

    /// Returns `true` if the repository has all manifests of the index that the store lacks.
    fn has_all(
        &self,
        shipment: &Shipment,
        repository: &Repository,
        runtime: &Handle,
    ) -> Result<bool> {
        for missing in &shipment.missing {
            if !runtime.block_on(self.client.has_manifest(repository, missing))? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A printer of docker's messages about layers.
struct PushProgress<'a> {
    quiet: bool,
    printer: &'a Printer,
    step: VertexId,
    events: &'a EventSender,
}

impl PushProgress<'_> {
    fn line(&self, blob: &PushBlob, what: &str) {
        if !self.quiet {
            self.printer.line(format_args!("{}: {what}", blob.digest.short()));
        }
    }

    fn status(&self, blob: &PushBlob, current: u64, done: bool) {
        let (id, total) = (self.step, Some(blob.size));
        let name = blob.digest.to_string();
        self.events.send(Event::Status { id, name, current, total, done });
    }
}

impl PushObserver for PushProgress<'_> {
    fn sending(&self, blob: &PushBlob, sent: u64) {
        self.status(blob, sent, false);
    }

    fn done(&self, blob: &PushBlob, how: &Pushed) {
        if *how == Pushed::Sent {
            self.status(blob, blob.size, true);
        }
        if !blob.is_layer {
            return;
        }
        match how {
            Pushed::Existed => self.line(blob, "Layer already exists"),
            Pushed::Mounted(from) => self.line(blob, &format!("Mounted from {}", from.name())),
            Pushed::Sent => self.line(blob, "Pushed"),
        }
    }
}

/// A fetcher of base image layers that the store lacks because no step needed them.
struct Fetcher<'a> {
    blobs: &'a Blobs,
    runtime: &'a Handle,
    step: VertexId,
    events: &'a EventSender,
}

impl BlobFetcher for Fetcher<'_> {
    fn fetch(&self, blob: &LayerBlob) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(self.runtime.block_on(self.blobs.fetch_for(blob, self.step, self.events))?)
    }

    fn unpack(&self, layer: &LayerId) -> Result<(), Box<dyn Error + Send + Sync>> {
        Err(format!("layer {layer}: a push unpacks nothing").into())
    }
}
