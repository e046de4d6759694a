//! `kiln builder`: what docker has for its builders, where it means something without one.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::prune::{self, PruneArguments};
use crate::printer::Printer;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(crate) struct BuilderArguments {
    #[command(subcommand)]
    command: BuilderCommand,
}

#[derive(Debug, Subcommand)]
enum BuilderCommand {
    /// Remove the build cache
    Prune(PruneArguments),
}

/// Looks after the build cache.
pub(crate) fn run(
    arguments: &BuilderArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match &arguments.command {
        BuilderCommand::Prune(arguments) => prune::run(arguments, settings, printer),
    }
}
