//! The image of a container for the requested platform.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use kiln::build::Step;
use kiln::container::Failure;
use kiln::image::{StoredImage, Wanted, did_you_mean, find_rows};
use kiln_event::EventSender;
use kiln_images::{PullPolicy, PullRequest};
use kiln_oci::error::chain;
use kiln_oci::{Digest, Platform, Reference, media_type};
use kiln_store::Store;
use kiln_worker::container::{ContainerImage, Containers};
use kiln_worker::emulation;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;

use crate::arguments::progress::ProgressMode;
use crate::arguments::run::{Pull, RunArguments};
use crate::rendering::printer::Printer;
use crate::rendering::progress::{self, Work};
use crate::settings::parse_platform;

/// A finder of container images that shows its progress.
#[derive(Debug)]
struct Finder<'a> {
    containers: &'a Containers,
    store: &'a Store,
    arguments: &'a RunArguments,
    printer: &'a Printer,
}

/// The source of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source<'a> {
    /// The store. The digest is that of a manifest or an index.
    Store(&'a Digest),
    /// The store or the registry, as the pull policy decides.
    Policy(&'a Reference),
    /// The registry only.
    Registry(&'a Reference),
}

/// Returns the image from the store or its registry, and checks that its platform can run here.
pub(super) async fn find_image(
    containers: &Containers,
    store: &Store,
    arguments: &RunArguments,
    printer: &Printer,
) -> Result<ContainerImage, Failure> {
    // An empty environment variable counts as unset.
    let asked = arguments.platform.as_deref().filter(|text| !text.is_empty());
    let asked = asked.map(parse_platform).transpose()?;
    let finder = Finder { containers, store, arguments, printer };
    let image = finder.load(asked.as_ref()).await?;
    let (host, platform) = (Platform::host(), image.config.platform());
    if platform.architecture.is_empty() {
        return Ok(image);
    }
    if asked.is_none() && !kiln_registry::platform::runs(&host, &platform) {
        printer.note(format_args!(
            "WARNING: the image's platform ({platform}) is not this machine's ({host}), and \
             --platform asks for none"
        ));
    }
    emulation::check(&platform).map_err(anyhow::Error::from)?;
    Ok(image)
}

impl Finder<'_> {
    async fn load(&self, asked: Option<&Platform>) -> Result<ContainerImage> {
        let (text, policy) = (self.arguments.image(), self.arguments.pull);
        let host = Platform::host();
        let platform = asked.unwrap_or(&host);
        if policy != Pull::Always
            && let Some(row) = find_rows(self.store, text)?.into_iter().next()
        {
            let digest = if asked.is_none() && !media_type::is_index(&row.media_type) {
                // A single image needs no choice of a platform.
                row.digest
            } else {
                let wanted = asked.map_or(Wanted::Here, Wanted::Platform);
                let is_named = row.name.is_some();
                let lacking = match StoredImage::load(self.store, row, wanted) {
                    Ok(image) => return self.prepare(&image.digest, platform).await,
                    Err(lacking) => lacking.context(format!("image {text}")),
                };
                // The store has another platform's image; the registry may have the requested one.
                if let Ok(reference) = text.parse::<Reference>()
                    && is_named
                    && policy != Pull::Never
                {
                    let pulled = self.shown(Source::Registry(&reference), platform).await;
                    let lacking = chain(lacking.as_ref());
                    return pulled.with_context(|| format!("{lacking}; pull {text}"));
                }
                return Err(lacking);
            };
            return self.prepare(&digest, platform).await;
        }
        let reference: Reference =
            text.parse().with_context(|| format!("invalid image name {text:?}"))?;
        let pulled = self.shown(Source::Policy(&reference), platform).await;
        pulled.map_err(|error| {
            // The error names the image, except in the user's spelling.
            let near =
                if policy == Pull::Always { String::new() } else { did_you_mean(self.store, text) };
            if near.is_empty() { error } else { error.context(format!("no image {text}{near}")) }
        })
    }

    async fn prepare(&self, digest: &Digest, platform: &Platform) -> Result<ContainerImage> {
        let prepared = self.shown(Source::Store(digest), platform).await;
        prepared.with_context(|| format!("prepare the image {}", self.arguments.image()))
    }

    /// Loads an image and shows the progress.
    async fn shown(&self, source: Source<'_>, platform: &Platform) -> Result<ContainerImage> {
        let text = self.arguments.image();
        let reference = match source {
            Source::Policy(_) if self.arguments.pull == Pull::Never => None,
            Source::Policy(reference) | Source::Registry(reference) => Some(reference),
            Source::Store(_) => None,
        };
        let mode = match (self.arguments.quiet, std::io::stderr().is_terminal()) {
            (true, _) => ProgressMode::Quiet,
            (false, true) => ProgressMode::Tty,
            (false, false) => ProgressMode::Plain,
        };
        let (work, name) = match reference {
            Some(reference) => (Work::Pull { tells_layers: true }, format!("pulling {reference}")),
            None => (Work::Prepare, format!("preparing {text}")),
        };
        let reference = reference.filter(|_| mode != ProgressMode::Quiet);
        if let Some(reference) = reference {
            self.announce(reference, mode);
        }
        let (sender, receiver) = EventSender::channel();
        let shown = progress::run(mode, work, receiver).context("show progress")?;
        let step = Step::begin(&sender, name);
        let reporter = step.reporter(&CancellationToken::new());
        let pull = async |reference: &Reference, policy| {
            let (reference, platform) = (reference.clone(), platform.clone());
            let now = OffsetDateTime::now_utc().unix_timestamp();
            let request = PullRequest { reference, platform, now };
            let (image, pulled) = self.containers.pull(&request, policy, &reporter).await?;
            Ok((image, pulled.was_known))
        };
        let found = match source {
            Source::Store(digest) => {
                self.containers.local(digest, platform, &reporter).await.map(|image| (image, true))
            }
            Source::Policy(reference) => pull(reference, None).await,
            Source::Registry(reference) => pull(reference, Some(PullPolicy::Always)).await,
        };
        let found = step.end(found);
        // The display ends with the last sender.
        drop((reporter, sender));
        shown.await?;
        let (image, was_known) = found?;
        if let Some(reference) = reference.filter(|_| mode == ProgressMode::Plain) {
            self.conclude(reference, &image, was_known);
        }
        Ok(image)
    }

    /// Prints docker's messages before the pull of an image.
    fn announce(&self, reference: &Reference, mode: ProgressMode) {
        if self.arguments.pull == Pull::Missing {
            let name = reference.familiar();
            self.printer.note(format_args!("Unable to find image '{name}' locally"));
        }
        if mode == ProgressMode::Plain {
            let tag = reference.digest().map(|digest| digest.to_string());
            let tag = tag.or_else(|| reference.tag().map(str::to_owned)).unwrap_or_default();
            self.printer.note(format_args!("{tag}: Pulling from {}", reference.repository()));
        }
    }

    /// Prints docker's messages after the pull of an image.
    fn conclude(&self, reference: &Reference, image: &ContainerImage, was_known: bool) {
        let status = if was_known { "Image is up to date" } else { "Downloaded newer image" };
        self.printer.note(format_args!("Digest: {}", image.digest));
        self.printer.note(format_args!("Status: {status} for {}", reference.familiar()));
    }
}
