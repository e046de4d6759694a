//! `kiln system`: commands for the whole store, one per file.

mod check;
mod df;
mod prune;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::info::InfoArguments;
use crate::printer::Printer;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(crate) struct SystemArguments {
    #[command(subcommand)]
    command: SystemCommand,
}

#[derive(Debug, Subcommand)]
enum SystemCommand {
    /// Verify everything in the store: its index, blobs, layers and images
    Check(check::CheckArguments),
    /// Show what images, volumes, the cache and everything else take on the disk
    Df(df::DfArguments),
    /// Remove images that have no name, and the build cache
    Prune(prune::PruneArguments),
    /// Show what kiln works with on this machine
    Info(InfoArguments),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Runs a command of `kiln system`.
pub(crate) fn run(
    arguments: &SystemArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match &arguments.command {
        SystemCommand::Check(arguments) => check::run(arguments, settings, printer),
        SystemCommand::Df(arguments) => df::run(arguments, settings, printer),
        SystemCommand::Prune(arguments) => prune::run(arguments, settings, printer),
        SystemCommand::Info(arguments) => super::info::run(arguments, settings, printer),
        SystemCommand::Other(words) => Err(super::other::refuse(&["system"], words)),
    }
}
