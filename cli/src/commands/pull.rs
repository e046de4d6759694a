//! `kiln pull`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::image::is_bare;
use kiln::{Engine, Monitor};
use kiln_event::{Event, EventReceiver, EventSender, LayerState, Spool};
use kiln_images::Pulled;
use kiln_oci::{Platform, Reference};
use kiln_registry::Repository;
use tokio_util::sync::CancellationToken;

use crate::arguments::progress::ProgressMode;
use crate::arguments::pull::PullArguments;
use crate::flush;
use crate::rendering::printer::Printer;
use crate::rendering::progress::{self, Work};
use crate::settings::Settings;

/// Runs `kiln pull`.
pub(crate) async fn run(
    arguments: PullArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let text = &arguments.image;
    let reference: Reference = text.parse().with_context(|| format!("invalid image {text:?}"))?;
    let platform = match &arguments.platform {
        Some(text) => text.parse().with_context(|| format!("invalid platform {text:?}"))?,
        None => Platform::host(),
    };
    let is_bare = is_bare(text);
    let engine = settings.engine()?;
    let lines = Lines::new(arguments.quiet, printer);
    let references = if arguments.all_tags {
        if !is_bare {
            bail!("tag can't be used with --all-tags/-a");
        }
        let repository = Repository::from(&reference);
        let tags = engine.tags(&repository).await?;
        let named = |tag: &String| format!("{repository}:{tag}").parse::<Reference>();
        tags.iter().map(named).collect::<Result<Vec<_>, _>>().context("list tags")?
    } else {
        if is_bare {
            lines.now("Using default tag: latest");
        }
        vec![reference.clone()]
    };
    let mut up_to_date = true;
    let together = engine.store().images().together();
    for reference in &references {
        let tag = reference.digest().map(|digest| digest.to_string());
        let tag = tag.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_default();
        lines.now(&format!("{tag}: Pulling from {}", reference.repository()));
        let pulled = Box::pin(pull(&engine, reference, &platform, &lines)).await?;
        lines.now(&format!("Digest: {}", pulled.digest));
        up_to_date &= pulled.was_known;
    }
    together.end()?;
    let (familiar, full) = if arguments.all_tags {
        let familiar = reference.familiar();
        let name = familiar.rsplit_once(':').map_or(familiar.as_str(), |(name, _)| name);
        (name.to_owned(), reference.name())
    } else {
        (reference.familiar(), reference.to_string())
    };
    let status = if up_to_date { "Image is up to date" } else { "Downloaded newer image" };
    lines.now(&format!("Status: {status} for {familiar}"));
    printer.line(full);
    flush::start(engine.store())?;
    Ok(ExitCode::SUCCESS)
}

/// Pulls one image, with a live display on a terminal.
async fn pull(
    engine: &Engine,
    reference: &Reference,
    platform: &Platform,
    lines: &Lines<'_>,
) -> Result<Pulled> {
    let (events, [receiver, layers]) = EventSender::channels([Spool::none(), Spool::none()]);
    let work = Work::Pull { tells_layers: false };
    let shown = progress::run(lines.mode(), work, receiver).context("show progress")?;
    let monitor = Monitor { events, cancel: CancellationToken::new() };
    let pulling = engine.pull(reference, platform, monitor);
    let (pulled, held) = tokio::join!(pulling, lines.layers(layers));
    shown.await?;
    for line in &held {
        lines.now(line);
    }
    pulled
}

/// A printer of docker's messages about a pull.
struct Lines<'a> {
    quiet: bool,
    live: bool,
    printer: &'a Printer,
}

impl<'a> Lines<'a> {
    fn new(quiet: bool, printer: &'a Printer) -> Self {
        let live = !quiet && std::io::stderr().is_terminal();
        Self { quiet, live, printer }
    }

    fn mode(&self) -> ProgressMode {
        match (self.quiet, self.live) {
            (true, _) => ProgressMode::Quiet,
            (false, true) => ProgressMode::Tty,
            (false, false) => ProgressMode::Plain,
        }
    }

    fn now(&self, line: &str) {
        if !self.quiet {
            self.printer.line(line);
        }
    }

    /// Prints the messages about layers until the pull ends. Returns the messages that a live
    /// display delays until it has ended.
    async fn layers(&self, mut events: EventReceiver) -> Vec<String> {
        let mut held = Vec::new();
        while let Some(event) = events.recv().await {
            let Event::Layer { digest, state, .. } = event else { continue };
            let words: &[&str] = match (state, self.live) {
                (LayerState::Exists, _) => &["Already exists"],
                (LayerState::Waiting, false) => &["Pulling fs layer"],
                (LayerState::Transferred, false) => &["Download complete", "Pull complete"],
                (LayerState::Transferred, true) => &["Pull complete"],
                (LayerState::Waiting, true) | (LayerState::Mounted { .. }, _) => &[],
            };
            for what in words {
                let line = format!("{}: {what}", digest.short());
                if self.live {
                    held.push(line);
                } else {
                    self.now(&line);
                }
            }
        }
        held
    }
}
