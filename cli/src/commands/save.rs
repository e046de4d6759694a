//! `kiln save`, `kiln image save`.

use std::io::IsTerminal;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::build::step::Step;
use kiln::image::named::is_tagged;
use kiln::image::{StoredImage, Wanted, find_rows, no_such_image};
use kiln_event::{EventSender, Reporter};
use kiln_exporter::{Destination, ExportContext, SavedImage, save};
use kiln_images::{Fetcher, ImageResolver, Snapshots};
use kiln_oci::{Platform, Reference};
use kiln_store::{ImageRow, Store};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::arguments::progress::ProgressMode;
use crate::arguments::save::SaveArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress::{self, Work};
use crate::settings::Settings;
use crate::settings::parse_platform;

/// Runs `kiln save`.
pub(crate) async fn run(
    arguments: SaveArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let dest = match arguments.output {
        Some(path) => Destination::Path(path),
        None if std::io::stdout().is_terminal() => {
            bail!("cowardly refusing to save to a terminal. Use the -o flag or redirect")
        }
        None => Destination::Stdout,
    };
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let store = settings.store()?;
    let images = choose(&store, &arguments.images, platform.as_ref())?;
    let resolver = ImageResolver::new(settings.images(&store));
    let snapshots = Snapshots::new(store.clone(), &resolver);
    let (limits, runtime) = (settings.archive_limits, Handle::current());
    let mut stdout = printer.stdout();
    let mode =
        if std::io::stderr().is_terminal() { ProgressMode::Tty } else { ProgressMode::Plain };
    let (events, receiver) = EventSender::channel();
    let shown = progress::run(mode, Work::Prepare, receiver).context("show progress")?;
    let work = move || {
        let step = Step::begin(&events, "fetching layers".to_owned());
        let reporter = step.reporter(&CancellationToken::new());
        let fetcher = Fetcher::new(snapshots, runtime, reporter);
        let mut context = ExportContext {
            store: &store,
            fetcher: &fetcher,
            limits,
            progress: &Reporter::silent(),
            remote: None,
            stdout: &mut stdout,
        };
        step.end(save(&images, &dest, &mut context))
    };
    let saved = tokio::task::spawn_blocking(work).await.context("save")?;
    shown.await?;
    saved?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the images to save, without duplicates.
fn choose(store: &Store, texts: &[String], platform: Option<&Platform>) -> Result<Vec<SavedImage>> {
    let mut images: Vec<SavedImage> = Vec::new();
    for text in texts {
        for (row, name) in rows(store, text)? {
            let image = load(store, row, platform).with_context(|| format!("image {text}"))?;
            match images.iter_mut().find(|known| known.digest == image.digest) {
                Some(known) => known.names.extend(name.filter(|name| !known.names.contains(name))),
                None => images.push(SavedImage { names: name.into_iter().collect(), ..image }),
            }
        }
    }
    Ok(images)
}

/// Returns the images that a text names, with the names to save them under. An image named by its
/// ID is saved without a name.
fn rows(store: &Store, text: &str) -> Result<Vec<(ImageRow, Option<Reference>)>> {
    let reference = text.parse::<Reference>().ok();
    if let Some(reference) = reference.as_ref().filter(|_| is_bare(text)) {
        let mut all = Vec::new();
        for row in store.images().list()? {
            let name = row.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
            let is_meant = |name: &Reference| is_tagged(name) && name.name() == reference.name();
            if let Some(name) = name.filter(is_meant) {
                all.push((row, Some(name)));
            }
        }
        all.sort_by(|(_, a), (_, b)| a.cmp(b));
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let Some(row) = find_rows(store, text)?.into_iter().next() else {
        return Err(no_such_image(store, text));
    };
    let named = row
        .name
        .clone()
        .filter(|name| reference.is_some_and(|reference| reference.to_string() == *name));
    let name = named.and_then(|name| name.parse().ok()).filter(is_tagged);
    Ok(vec![(row, name)])
}

/// Returns `true` if a name has neither a tag nor a digest.
fn is_bare(text: &str) -> bool {
    !text.contains('@') && !text.rsplit('/').next().unwrap_or(text).contains(':')
}

fn load(store: &Store, row: ImageRow, platform: Option<&Platform>) -> Result<SavedImage> {
    let wanted = platform.map_or(Wanted::Any, Wanted::Platform);
    let image = StoredImage::load(store, row, wanted)?;
    let (mut digest, mut size) = (image.row.digest, image.row.size);
    let mut media_type = image.row.media_type;
    if let Some((entry, _)) =
        image.entries.iter().find(|(entry, _)| entry.digest().is_ok_and(|it| it == image.digest))
        && platform.is_some()
    {
        (digest, size) = (image.digest, entry.size);
        media_type.clone_from(&entry.media_type);
    }
    Ok(SavedImage { digest, media_type, size, manifest: image.digest, names: Vec::new() })
}
