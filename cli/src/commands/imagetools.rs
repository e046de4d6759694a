//! `kiln imagetools`: commands for images in registries, one per file.

mod create;
mod inspect;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::printer::Printer;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(crate) struct ImagetoolsArguments {
    #[command(subcommand)]
    command: ImagetoolsCommand,
}

#[derive(Debug, Subcommand)]
enum ImagetoolsCommand {
    /// Make an image of images that there are, without a build
    Create(create::CreateArguments),
    /// Show an image of a registry
    Inspect(inspect::InspectArguments),
}

/// Runs a command of `kiln imagetools`.
pub(crate) async fn run(
    arguments: ImagetoolsArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        ImagetoolsCommand::Create(arguments) => create::run(arguments, settings, printer).await,
        ImagetoolsCommand::Inspect(arguments) => inspect::run(arguments, settings, printer).await,
    }
}
