//! `kiln diff`.

use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::sync;
use crate::build::parse_platform;
use kiln::diff::{Finder, compare};

use crate::diff::render;
use crate::printer::Printer;
use crate::settings::Settings;

/// Show what makes two images differ
///
/// An image is named as it is in the store, by the path of an archive or an OCI layout
/// (DIR[:TAG][@DIGEST]), or by its name in a registry; oci-archive:, docker-archive:, oci: and
/// docker:// say which is meant. The exit status is 0 where the images are the same byte for byte,
/// 1 where they differ, and 2 where something went wrong.
#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The first image
    #[arg(value_name = "A")]
    a: String,
    /// The second image
    #[arg(value_name = "B")]
    b: String,
    /// Compare the images for this platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<String>,
    /// The format of the output
    #[arg(long, value_enum, default_value = "text", hide_default_value = true)]
    format: Format,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// The exit status for an error, as for `diff`.
const TROUBLE: u8 = 2;

/// Runs `kiln diff`.
pub(crate) async fn run(
    arguments: DiffArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match differ(&arguments, settings, printer).await {
        Ok(true) => Ok(ExitCode::FAILURE),
        Ok(false) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            printer.error(&error);
            Ok(ExitCode::from(TROUBLE))
        }
    }
}

/// Prints the differences between two images. Returns `true` if they differ.
async fn differ(arguments: &DiffArguments, settings: &Settings, printer: &Printer) -> Result<bool> {
    let platform = arguments.platform.as_deref().map(parse_platform).transpose()?;
    let engine = settings.engine()?;
    let finder = Finder::new(&engine, platform);
    let (a, b) = (finder.find(&arguments.a).await?, finder.find(&arguments.b).await?);
    let (limits, store) = (engine.archive_limits(), engine.store().clone());
    let work = move || compare(&a, &b, &store, limits);
    let report = tokio::task::spawn_blocking(work).await.context("compare")??;
    match arguments.format {
        Format::Text => printer.raw(&render(&report)),
        Format::Json => printer.line(serde_json::to_string_pretty(&report)?),
    }
    sync::start(engine.store())?;
    Ok(!report.identical)
}
