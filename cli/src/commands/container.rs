//! `kiln container`: docker's container commands that make sense without keeping containers.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::run::{self, RunArguments};
use super::{other, report};
use crate::printer::Printer;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(crate) struct ContainerArguments {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    /// Run a command in a new container
    Run(Box<RunArguments>),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Runs a command of `kiln container`.
pub(crate) async fn run(
    arguments: ContainerArguments,
    settings: &Settings,
    printer: &Printer,
) -> ExitCode {
    match arguments.command {
        ContainerCommand::Run(arguments) => run::run(*arguments, settings, printer).await,
        ContainerCommand::Other(words) => report(printer, &other::refuse(&["container"], &words)),
    }
}
