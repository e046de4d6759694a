//! `kiln pull`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::build::step::Step;
use kiln_event::{Event, EventReceiver, EventSender, LayerState, Spool};
use kiln_images::{ImageResolver, PullRequest, Pulled};
use kiln_oci::{Platform, Reference};
use kiln_registry::Repository;
use time::OffsetDateTime;
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
    let store = settings.store()?;
    let resolver = ImageResolver::new(settings.images(&store));
    let lines = Lines::new(arguments.quiet, printer);
    let references = if arguments.all_tags {
        if !is_bare {
            bail!("tag can't be used with --all-tags/-a");
        }
        let repository = Repository::from(&reference);
        let tags = resolver.tags(&repository).await?;
        let named = |tag: &String| format!("{repository}:{tag}").parse::<Reference>();
        tags.iter().map(named).collect::<Result<Vec<_>, _>>().context("list tags")?
    } else {
        if is_bare {
            lines.now("Using default tag: latest");
        }
        vec![reference.clone()]
    };
    let mut up_to_date = true;
    let together = store.images().together();
    for reference in &references {
        let tag = reference.digest().map(|digest| digest.to_string());
        let tag = tag.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_default();
        lines.now(&format!("{tag}: Pulling from {}", reference.repository()));
        let pulled = Box::pin(pull(&resolver, reference, &platform, &lines)).await?;
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
    flush::start(&store)?;
    Ok(ExitCode::SUCCESS)
}

/// Returns `true` if a name has neither a tag nor a digest.
fn is_bare(text: &str) -> bool {
    !text.contains('@') && !text.rsplit('/').next().unwrap_or(text).contains(':')
}

/// Pulls one image, with a live display on a terminal.
async fn pull(
    resolver: &ImageResolver,
    reference: &Reference,
    platform: &Platform,
    lines: &Lines<'_>,
) -> Result<Pulled> {
    let (events, [receiver, layers]) = EventSender::channels([Spool::none(), Spool::none()]);
    let work = Work::Pull { tells_layers: false };
    let shown = progress::run(lines.mode(), work, receiver).context("show progress")?;
    let now = OffsetDateTime::now_utc().unix_timestamp();
    let request = PullRequest { reference: reference.clone(), platform: platform.clone(), now };
    let pull = async move {
        let step = Step::begin(&events, format!("pulling {}", request.reference));
        let reporter = step.reporter(&CancellationToken::new());
        step.end(resolver.pull(&request, &reporter).await)
    };
    let (pulled, held) = tokio::join!(pull, lines.layers(layers));
    shown.await?;
    for line in &held {
        lines.now(line);
    }
    Ok(pulled?)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_have_no_tag() {
        for (text, bare) in [
            ("alpine", true),
            ("localhost:5000/x", true),
            ("alpine:3", false),
            ("localhost:5000/x:1", false),
            ("x@sha256:00", false),
        ] {
            assert_eq!(is_bare(text), bare, "{text}");
        }
    }
}
