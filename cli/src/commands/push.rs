//! `kiln push`.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln::build::step::Step;
use kiln::image::did_you_mean;
use kiln_event::{Event, EventReceiver, EventSender, LayerState, Reporter, Spool};
use kiln_exporter::Remote;
use kiln_exporter::push::{PushContext, Shipment, push};
use kiln_images::{Fetcher, ImageResolver, Snapshots};
use kiln_oci::Reference;
use kiln_registry::{Client, Repository};
use kiln_store::{ImageRow, Store};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::arguments::progress::ProgressMode;
use crate::arguments::push::PushArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress;
use crate::settings::Settings;

/// The store, client and printer of a push.
struct Tools {
    store: Store,
    client: Client,
    snapshots: Snapshots,
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
    let resolver = ImageResolver::new(settings.images(&store));
    let snapshots = Snapshots::new(store.clone(), &resolver);
    let tools = Arc::new(Tools {
        store,
        client,
        snapshots,
        quiet: arguments.quiet,
        printer: printer.clone(),
    });
    if !arguments.quiet {
        printer.line(format_args!("The push refers to repository [{}]", reference.name()));
    }
    for (row, name) in rows {
        let (events, [receiver, layers]) = EventSender::channels([Spool::none(), Spool::none()]);
        let live = !arguments.quiet && std::io::stderr().is_terminal();
        let mode = if live { ProgressMode::Tty } else { ProgressMode::Quiet };
        let shown = progress::run(mode, progress::Work::Push, receiver).context("show progress")?;
        let pusher = Arc::clone(&tools);
        let runtime = Handle::current();
        let work = move || {
            let step = Step::begin(&events, format!("pushing {name}"));
            let reporter = step.reporter(&CancellationToken::new());
            step.end(pusher.push(&row, &name, &reporter, &runtime))
        };
        let (lines, ()) =
            tokio::join!(tokio::task::spawn_blocking(work), tools.print_layers(layers));
        shown.await?;
        for line in lines.context("push")??.iter().filter(|_| !arguments.quiet) {
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
        reporter: &Reporter,
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
        let remote = Remote { client: &self.client, runtime };
        let fetcher = Fetcher::new(self.snapshots.clone(), runtime.clone(), reporter.clone());
        let context =
            PushContext { store: &self.store, remote, fetcher: &fetcher, progress: reporter };
        let digest = push(&shipment, &repository, std::slice::from_ref(name), &context)?;
        let size = shipment.top().map_or(0, |top| top.bytes.len());
        let tag = name.tag().unwrap_or_default();
        notes.insert(0, format!("{tag}: digest: {digest} size: {size}"));
        Ok(notes)
    }

    /// Prints docker's messages about layers until the push ends.
    async fn print_layers(&self, mut events: EventReceiver) {
        while let Some(event) = events.recv().await {
            let Event::Layer { digest, state, .. } = event else { continue };
            let what = match state {
                LayerState::Waiting => "Preparing".to_owned(),
                LayerState::Exists => "Layer already exists".to_owned(),
                LayerState::Mounted { from } => format!("Mounted from {from}"),
                LayerState::Transferred => "Pushed".to_owned(),
            };
            if !self.quiet {
                self.printer.line(format_args!("{}: {what}", digest.short()));
            }
        }
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
