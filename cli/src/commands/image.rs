//! `kiln image`: the commands for images, one per file. Most have a short name as well.

pub(super) mod prune;

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use super::build::BuildArguments;
use super::history::HistoryArguments;
use super::images::ImagesArguments;
use super::import::ImportArguments;
use super::inspect::InspectArguments;
use super::load::LoadArguments;
use super::pull::PullArguments;
use super::push::PushArguments;
use super::rmi::RmiArguments;
use super::save::SaveArguments;
use super::tag::TagArguments;
use crate::printer::Printer;
use crate::settings::Settings;

#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Debug, Subcommand)]
enum ImageCommand {
    /// Build an image from a Dockerfile
    Build(Box<BuildArguments>),
    /// Show how an image was made
    History(HistoryArguments),
    /// Make an image of a root file system in a tar
    Import(ImportArguments),
    /// Show everything about images, as JSON
    Inspect(InspectArguments),
    /// Take in images that were saved
    Load(LoadArguments),
    /// List images
    #[command(visible_alias = "list")]
    Ls(ImagesArguments),
    /// Remove images that nobody uses
    Prune(prune::PruneArguments),
    /// Download an image from a registry
    Pull(PullArguments),
    /// Upload an image to a registry
    Push(PushArguments),
    /// Remove images
    #[command(visible_aliases = ["remove", "rmi"])]
    Rm(RmiArguments),
    /// Write images to a tar
    Save(SaveArguments),
    /// Give an image another name
    Tag(TagArguments),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

impl ImageArguments {
    /// Returns `true` if the command creates, reads or removes files of images.
    pub(crate) fn needs_ids(&self) -> bool {
        match &self.command {
            ImageCommand::Build(arguments) => arguments.needs_ids(),
            ImageCommand::Rm(_) | ImageCommand::Prune(_) => true,
            _ => false,
        }
    }
}

/// Runs a command of `kiln image`.
pub(crate) async fn run(
    arguments: ImageArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<ExitCode> {
    match arguments.command {
        ImageCommand::Build(arguments) => {
            Box::pin(super::build::run(*arguments, settings, printer)).await
        }
        ImageCommand::History(arguments) => super::history::run(&arguments, settings, printer),
        ImageCommand::Import(arguments) => super::import::run(arguments, settings, printer).await,
        ImageCommand::Inspect(arguments) => super::inspect::run(&arguments, settings, printer),
        ImageCommand::Load(arguments) => super::load::run(arguments, settings, printer).await,
        ImageCommand::Ls(arguments) => super::images::run(&arguments, settings, printer),
        ImageCommand::Prune(arguments) => prune::run(&arguments, settings, printer),
        ImageCommand::Pull(arguments) => super::pull::run(arguments, settings, printer).await,
        ImageCommand::Push(arguments) => super::push::run(arguments, settings, printer).await,
        ImageCommand::Rm(arguments) => super::rmi::run(&arguments, settings, printer),
        ImageCommand::Save(arguments) => super::save::run(arguments, settings, printer).await,
        ImageCommand::Tag(arguments) => super::tag::run(&arguments, settings, printer),
        ImageCommand::Other(words) => Err(super::other::refuse(&["image"], &words)),
    }
}
