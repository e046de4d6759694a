//! The arguments of `kiln image`: the commands for images. Most have a short name as well.

use std::ffi::OsString;

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

#[derive(Debug, Args)]
pub(crate) struct ImageArguments {
    #[command(subcommand)]
    pub(crate) command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ImageCommand {
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
    Prune(PruneArguments),
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

/// Remove images that have no name, or all
#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Remove images that have names, too; those that running containers use stay
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Only images for which this holds: until=TIME, label=KEY[=VALUE], label!=KEY[=VALUE],
    /// dangling=true|false
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}
