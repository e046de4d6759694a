//! `kiln builder`: docker's commands for its builder that make sense without a daemon.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::build::{self, BuildArguments};
use super::other;
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
    /// Build an image from a Dockerfile
    Build(Box<BuildArguments>),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl BuilderArguments {
    /// Returns `true` if the command creates, reads or removes files of images.
    pub(crate) fn needs_ids(&self) -> bool {
        match &self.command {
            BuilderCommand::Build(arguments) => arguments.needs_ids(),
            BuilderCommand::Prune(_) => true,
            BuilderCommand::Other(_) => false,
        }
    }
}

/// Runs a command of `kiln builder`.
pub(crate) async fn run(
    arguments: BuilderArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        BuilderCommand::Prune(arguments) => prune::run(&arguments, settings, printer),
        BuilderCommand::Build(arguments) => {
            Box::pin(build::run(*arguments, settings, printer)).await
        }
        BuilderCommand::Other(words) => Err(other::refuse(&["builder"], &words)),
    }
}
