//! `kiln import`, `kiln image import`.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::Engine;
use kiln_frontend::instruction::InstructionKind;
use kiln_frontend::{ContextFiles, Images};
use kiln_frontend::{ImageRequest, Options, ResolveError, ResolvedImage};
use kiln_oci::{ContainerConfig, Digest, ImageConfig, Platform, Reference};
use kiln_registry::{FetchAnswer, FetchRequest};

use crate::arguments::import::ImportArguments;
use crate::flush;
use crate::rendering::printer::Printer;
use crate::settings::Settings;
use crate::settings::limits::size_limit;
use crate::settings::parse_platform;

/// An empty `PATH`, which keeps the frontend from adding the default one to an imported image.
const NO_PATH: &str = "PATH=";

/// Runs `kiln import`.
pub(crate) async fn run(
    arguments: ImportArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let name = arguments.name.as_deref().map(parse_name).transpose()?;
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let platform = platform.unwrap_or_else(Platform::host);
    let config = ImageConfig {
        os: platform.os.clone(),
        architecture: platform.architecture.clone(),
        variant: platform.variant.clone(),
        config: changed(&arguments.changes, &platform)?,
        ..ImageConfig::default()
    };
    let limit = size_limit(&arguments.input_limit).context("invalid --input-limit")?;
    let engine = settings.engine()?;
    let source = arguments.source;
    let is_url = source.starts_with("http://") || source.starts_with("https://");
    // As in docker, the name of a local file isn't recorded.
    let told = if is_url { kiln_registry::redacted(&source) } else { "-".to_owned() };
    let archive: Box<dyn Read + Send> = match source.as_str() {
        "-" => Box::new(std::io::stdin()),
        url if is_url => Box::new(download(url, limit, &engine).await?),
        path => Box::new(File::open(path).with_context(|| format!("open {path}"))?),
    };
    let message = arguments.message.unwrap_or_else(|| format!("Imported from {told}"));
    let id = engine.import(archive, config, message, name).await;
    let id = id.with_context(|| format!("import {}", if is_url { &told } else { &source }))?;
    printer.line(id);
    if !is_url && source != "-" && holds_images(Path::new(&source)) {
        printer.note(format_args!(
            "WARNING: {source} is an archive of images, and was taken for a root file system: \
             `kiln load -i {source}` takes in its images"
        ));
    }
    flush::start(engine.store())?;
    Ok(ExitCode::SUCCESS)
}

/// The most entries of an archive that are inspected to recognize its type.
const ENTRIES: usize = 10_000;

/// Returns `true` for an uncompressed archive of images, as `kiln save` and docker write it.
fn holds_images(path: &Path) -> bool {
    if !path.is_file() {
        return false;
    }
    let Ok(mut file) = File::open(path) else { return false };
    let (mut has_list, mut has_config) = (false, false);
    // Before version 1.10, docker wrote no manifest list.
    let (mut has_json, mut has_layer) = (false, false);
    for _ in 0..ENTRIES {
        let mut header = [0; 512];
        if file.read_exact(&mut header).is_err() || header[0] == 0 {
            break;
        }
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).trim().to_owned()
        };
        let name = text(&header[..100]);
        has_list |= matches!(name.as_str(), "manifest.json" | "index.json");
        has_config |= name == "oci-layout" || name == "repositories" || name.starts_with("blobs/");
        has_json |= name.ends_with("/json");
        has_layer |= name.ends_with("/layer.tar");
        let Ok(size) = i64::from_str_radix(&text(&header[124..136]), 8) else { break };
        if file.seek(SeekFrom::Current((size + 511) / 512 * 512)).is_err() {
            break;
        }
    }
    (has_list && has_config) || (has_json && has_layer)
}

fn parse_name(text: &str) -> Result<Reference> {
    let name: Reference = text.parse().with_context(|| format!("invalid image name {text:?}"))?;
    if name.digest().is_some() {
        bail!("cannot import digest reference");
    }
    Ok(name)
}

/// Downloads a URL into an unnamed file.
async fn download(url: &str, limit: Option<u64>, engine: &Engine) -> Result<File> {
    let request = FetchRequest { url: url.to_owned(), ..FetchRequest::default() };
    let FetchAnswer::File(found) = engine.registries().fetch(&request).await? else {
        bail!("{}: the server says that nothing has changed", kiln_registry::redacted(url));
    };
    let mut file = engine.store().temp_file()?;
    found.copy_to(&mut file, limit, |_| ()).await?;
    file.flush().and_then(|()| file.rewind()).context("read what was downloaded")?;
    Ok(file)
}

/// Applies instructions to an empty config.
fn changed(changes: &[String], platform: &Platform) -> Result<ContainerConfig> {
    let mut text = "FROM base\n".to_owned();
    for change in changes {
        let parsed = kiln_frontend::parser::parse(format!("FROM base\n{change}\n").as_bytes());
        let parsed = parsed.map_err(|errors| refusal(change, errors))?;
        for instruction in parsed.stages.iter().flat_map(|stage| &stage.commands) {
            if !is_change(&instruction.kind) {
                let name = change.split_whitespace().next().unwrap_or_default();
                bail!("{name} is not a valid change command");
            }
        }
        if parsed.stages.len() != 1 {
            bail!("FROM is not a valid change command");
        }
        text.push_str(change);
        text.push('\n');
    }
    let options = Options {
        platform: platform.clone(),
        build_platform: platform.clone(),
        filename: "--change".to_owned(),
        ..Options::default()
    };
    let empty = Empty { platform };
    let lowered = kiln_frontend::lower(text.as_bytes(), &options, &empty, &empty)
        .map_err(|errors| refusal(&changes.join("; "), errors))?;
    let mut config = lowered.image.config;
    config.env.retain(|variable| variable != NO_PATH);
    Ok(config)
}

fn refusal(change: &str, errors: Vec<kiln_frontend::Error>) -> anyhow::Error {
    let message = format!("invalid change {change:?}");
    match errors.into_iter().next() {
        Some(error) => anyhow::Error::new(error).context(message),
        None => anyhow::Error::msg(message),
    }
}

/// Returns `true` if an instruction changes only an image's config.
fn is_change(kind: &InstructionKind) -> bool {
    matches!(
        kind,
        InstructionKind::Cmd(_)
            | InstructionKind::Entrypoint(_)
            | InstructionKind::Env(_)
            | InstructionKind::Expose(_)
            | InstructionKind::Healthcheck(_)
            | InstructionKind::Label(_)
            | InstructionKind::Onbuild(_)
            | InstructionKind::Stopsignal(_)
            | InstructionKind::User(_)
            | InstructionKind::Volume(_)
            | InstructionKind::Workdir(_)
    )
}

/// A base image with an empty config, and a context without files.
struct Empty<'a> {
    platform: &'a Platform,
}

impl Images for Empty<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        let config = ImageConfig {
            os: self.platform.os.clone(),
            architecture: self.platform.architecture.clone(),
            variant: self.platform.variant.clone(),
            config: ContainerConfig { env: vec![NO_PATH.to_owned()], ..ContainerConfig::default() },
            ..ImageConfig::default()
        };
        let image = ResolvedImage::new(Digest::of(b""), config);
        requests.iter().map(|_| Ok(image.clone())).collect()
    }
}

impl ContextFiles for Empty<'_> {
    fn read(&self, _: &str) -> Result<Option<Vec<u8>>, ResolveError> {
        Ok(None)
    }

    fn is_ignored(&self, _: &[String], _: &str) -> Result<bool, ResolveError> {
        Ok(false)
    }
}
