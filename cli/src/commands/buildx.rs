//! `kiln buildx`: the build commands under the name of docker's plugin, for scripts that use it.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::build::{self, BuildArguments};
use super::builds::{self, BuildsArguments};
use super::imagetools::{self, ImagetoolsArguments};
use super::other;
use super::prune::{self, PruneArguments};
use super::version::{self, VersionArguments};
use crate::printer::Printer;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(crate) struct BuildxArguments {
    #[command(subcommand)]
    command: BuildxCommand,
}

#[derive(Debug, Subcommand)]
enum BuildxCommand {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildArguments>),
    /// Look into the history of builds
    History(BuildsArguments),
    /// Work on images of registries, without a build
    Imagetools(ImagetoolsArguments),
    /// Remove the build cache
    Prune(PruneArguments),
    /// Show kiln's version
    Version(VersionArguments),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl BuildxArguments {
    /// Returns `true` if the command creates, reads or removes files of images.
    pub(crate) fn needs_ids(&self) -> bool {
        match &self.command {
            BuildxCommand::Build(arguments) => arguments.needs_ids(),
            BuildxCommand::Prune(_) => true,
            _ => false,
        }
    }
}

/// Runs a command of `kiln buildx`.
pub(crate) async fn run(
    arguments: BuildxArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        BuildxCommand::Build(arguments) => {
            Box::pin(build::run(*arguments, settings, printer)).await
        }
        BuildxCommand::History(arguments) => builds::run(&arguments, settings, printer),
        BuildxCommand::Imagetools(arguments) => imagetools::run(arguments, settings, printer).await,
        BuildxCommand::Prune(arguments) => prune::run(&arguments, settings, printer),
        BuildxCommand::Version(arguments) => version::run(&arguments, printer),
        BuildxCommand::Other(words) => Err(other::refuse(&["buildx"], &words)),
    }
}
