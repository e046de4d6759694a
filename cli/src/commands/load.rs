//! `kiln load`, `kiln image load`.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use kiln::image::{self, Wanted};
use kiln_images::LoadedImage;
use kiln_oci::Digest;
use kiln_store::Store;

use crate::arguments::load::LoadArguments;
use crate::flush;
use crate::rendering::printer::Printer;
use crate::settings::Settings;

/// Runs `kiln load`.
pub(crate) async fn run(
    arguments: LoadArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    let archive: Box<dyn Read + Send> = match &arguments.input {
        Some(path) => {
            Box::new(File::open(path).with_context(|| format!("open {}", path.display()))?)
        }
        None if std::io::stdin().is_terminal() => {
            bail!("requested load from stdin, but stdin is a terminal: redirect it, or use --input")
        }
        None => Box::new(std::io::stdin()),
    };
    let engine = settings.engine()?;
    let loaded = engine.load(archive).await;
    let from =
        arguments.input.as_ref().map_or("standard input".into(), |path| path.to_string_lossy());
    let loaded = match loaded {
        Ok(loaded) => loaded,
        Err(error) => {
            let is_something_else = matches!(error, kiln_images::Error::NoImages(_));
            printer.error(&anyhow::Error::new(error).context(format!("load {from}")));
            if is_something_else {
                let named = arguments.input.as_ref().map_or("-".into(), |it| it.to_string_lossy());
                printer.note(format_args!(
                    "hint: `kiln import {named}` makes an image of an archive of a root file system"
                ));
            }
            return Ok(ExitCode::FAILURE);
        }
    };
    for image in &loaded {
        report(engine.store(), image, printer);
    }
    flush::start(engine.store())?;
    Ok(ExitCode::SUCCESS)
}

/// Prints docker's messages about a loaded image.
fn report(store: &Store, image: &LoadedImage, printer: &Printer) {
    for named in &image.names {
        let name = named.name.familiar();
        if let Some(previous) = &named.previous {
            let id = id_of(store, previous);
            printer.line(format_args!(
                "The image {name} already exists, renaming the old one with ID {id} to empty string"
            ));
        }
        printer.line(format_args!("Loaded image: {name}"));
    }
    if image.names.is_empty() {
        printer.line(format_args!("Loaded image ID: {}", image.id));
    }
}

/// Returns the ID of the image whose manifest has a digest.
fn id_of(store: &Store, digest: &Digest) -> Digest {
    let found = image::find(store, &digest.to_string(), Wanted::Any);
    found.ok().and_then(|found| found.first().map(|image| image.id)).unwrap_or(*digest)
}
