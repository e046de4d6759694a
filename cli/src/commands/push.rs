//! `kiln push`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::Monitor;
use kiln::image::PushedImage;
use kiln::image::did_you_mean;
use kiln_event::{Event, EventReceiver, EventSender, LayerState, Spool};
use kiln_oci::Reference;
use kiln_store::{ImageRow, Store};
use tokio_util::sync::CancellationToken;

use crate::arguments::progress::ProgressMode;
use crate::arguments::push::PushArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress;
use crate::settings::Settings;

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
    let engine = settings.engine()?;
    let rows = rows(engine.store(), &reference, text, arguments.all_tags)?;
    if !arguments.quiet {
        printer.line(format_args!("The push refers to repository [{}]", reference.name()));
    }
    for (row, name) in rows {
        let (events, [receiver, layers]) = EventSender::channels([Spool::none(), Spool::none()]);
        let live = !arguments.quiet && std::io::stderr().is_terminal();
        let mode = if live { ProgressMode::Tty } else { ProgressMode::Quiet };
        let shown = progress::run(mode, progress::Work::Push, receiver).context("show progress")?;
        let monitor = Monitor { events, cancel: CancellationToken::new() };
        let tag = name.tag().unwrap_or_default().to_owned();
        let pushing = engine.push(row, name, monitor);
        let layers = print_layers(layers, arguments.quiet, printer);
        let (pushed, ()) = tokio::join!(pushing, layers);
        shown.await?;
        for line in lines(&pushed?, &tag).iter().filter(|_| !arguments.quiet) {
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

/// Prints docker's messages about layers until the push ends.
async fn print_layers(mut events: EventReceiver, quiet: bool, printer: &Printer) {
    while let Some(event) = events.recv().await {
        let Event::Layer { digest, state, .. } = event else { continue };
        let what = match state {
            LayerState::Waiting => "Preparing".to_owned(),
            LayerState::Exists => "Layer already exists".to_owned(),
            LayerState::Mounted { from } => format!("Mounted from {from}"),
            LayerState::Transferred => "Pushed".to_owned(),
        };
        if !quiet {
            printer.line(format_args!("{}: {what}", digest.short()));
        }
    }
}

/// Returns docker's lines about an image that was pushed.
fn lines(pushed: &PushedImage, tag: &str) -> Vec<String> {
    let PushedImage { digest, size, part_of } = pushed;
    let mut lines = vec![format!("{tag}: digest: {digest} size: {size}")];
    if let Some(whole) = part_of {
        lines.push("Info: not all platforms of the image are here".to_owned());
        lines.push(format!("Info: pushed the only one that is: {whole} -> {digest}"));
    }
    lines
}
