//! `kiln system`: the store as a whole, one file for each command.

mod check;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

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
}

/// Looks after the store.
pub(crate) fn run(
    arguments: &SystemArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match &arguments.command {
        SystemCommand::Check(arguments) => check::run(arguments, settings, printer),
    }
}
