//! `kiln imagetools create`.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::build::Step;
use kiln::remote_image::combine::{Annotations, Combined, Source, combine, digest};
use kiln::remote_image::copy::Copier;
use kiln::remote_image::{RemoteImage, parse_reference};
use kiln_event::EventSender;
use kiln_oci::{Digest, Reference};
use kiln_registry::{Client, Repository};
use serde_json::{Map, Value};

use crate::arguments::imagetools::CreateArguments;
use crate::rendering::printer::Printer;
use crate::rendering::progress;
use crate::settings::Settings;

/// Runs `kiln imagetools create`.
pub(crate) async fn run(
    arguments: CreateArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    if arguments.tags.is_empty() && !arguments.dry_run {
        bail!("can't push with no tags specified, please set --tag or --dry-run");
    }
    let tags = arguments.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>>>()?;
    let mut annotations = Annotations::default();
    for text in &arguments.annotations {
        annotations.add(text)?;
    }
    let client = settings.registries.client();
    let sources = sources(&client, &arguments, &tags).await?;
    let combined = combine(&client, &sources, &annotations, arguments.prefer_index).await?;
    if arguments.dry_run {
        printer.bytes(&combined.bytes);
        printer.line("");
        return Ok(ExitCode::SUCCESS);
    }
    let copier = Copier::new(client, settings.store()?);
    let (events, receiver) = EventSender::channel();
    let shown = progress::run(arguments.progress, progress::Work::Build, receiver)
        .context("show progress")?;
    let mut pushed = Ok(());
    for tag in &tags {
        let step = Step::begin(&events, format!("[internal] pushing {tag}"));
        pushed = step.end(push(&copier, &combined, &sources, tag).await);
        if pushed.is_err() {
            break;
        }
    }
    drop(events);
    shown.await?;
    pushed?;
    Ok(ExitCode::SUCCESS)
}

fn parse_tag(text: &str) -> Result<Reference> {
    let tag = parse_reference(text)?;
    if tag.digest().is_some() {
        bail!("invalid tag {text:?}: an image that is made has a digest of its own");
    }
    Ok(tag)
}

/// Returns the sources in their order: the image that `--append` extends, files, and arguments.
async fn sources(
    client: &Client,
    arguments: &CreateArguments,
    tags: &[Reference],
) -> Result<Vec<Source>> {
    let mut found = Vec::new();
    if arguments.append {
        let first = tags.first().context("--append takes a --tag: the image to add to")?;
        let image = RemoteImage::find(client, first).await?;
        found.push(Source { image, more: Map::new() });
    }
    for file in &arguments.files {
        let text = std::fs::read_to_string(file);
        let text = text.with_context(|| format!("read {}", file.display()))?;
        let source = source(client, text.trim(), tags).await;
        found.push(source.with_context(|| format!("source {}", file.display()))?);
    }
    for text in &arguments.sources {
        found.push(source(client, text, tags).await?);
    }
    if found.is_empty() {
        bail!("there is nothing to make an image of: name images, or --file");
    }
    Ok(found)
}

/// Resolves a source: a descriptor, a digest, or a name.
async fn source(client: &Client, text: &str, tags: &[Reference]) -> Result<Source> {
    if text.starts_with('{') {
        let more: Map<String, Value> = serde_json::from_str(text).context("invalid descriptor")?;
        let named: Option<Digest> =
            more.get("digest").and_then(Value::as_str).and_then(|digest| digest.parse().ok());
        let named = named.context("invalid descriptor: there is no digest")?;
        let image = in_repository(client, &named, tags).await?;
        return Ok(Source { image, more });
    }
    let image = match text.parse::<Digest>() {
        Ok(digest) => in_repository(client, &digest, tags).await?,
        Err(_) => RemoteImage::find(client, &parse_reference(text)?).await?,
    };
    Ok(Source { image, more: Map::new() })
}

/// Finds an image by its digest in the repositories of the tags.
async fn in_repository(
    client: &Client,
    digest: &Digest,
    tags: &[Reference],
) -> Result<RemoteImage> {
    let mut problem = anyhow::anyhow!("{digest} is of no repository: name it as NAME@{digest}");
    for tag in tags {
        match RemoteImage::by_digest(client, &Repository::from(tag), digest).await {
            Ok(found) => return Ok(found),
            Err(error) => problem = error,
        }
    }
    Err(problem)
}

/// Copies all parts into the repository of a tag and pushes the result under the tag.
async fn push(
    copier: &Copier,
    combined: &Combined,
    sources: &[Source],
    tag: &Reference,
) -> Result<()> {
    let to = Repository::from(tag);
    for (from, part) in &combined.parts {
        copier.document(part, from, &to).await?;
    }
    let whole = digest(combined);
    // If the result is a single source unchanged, its blobs aren't parts and are copied here.
    for source in sources.iter().filter(|source| source.image.digest == whole) {
        copier.contents(&source.image, &to).await?;
    }
    let bytes = combined.bytes.clone().into();
    copier.client.push_manifest(tag, &combined.media_type, bytes).await?;
    Ok(())
}
