//! The arguments of `kiln buildx`: the build commands under the name of docker's plugin, for scripts that use it.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::bake::BakeArguments;
use super::build::BuildArguments;
use super::builds::BuildsArguments;
use super::imagetools::ImagetoolsArguments;
use super::prune::PruneArguments;
use super::version::VersionArguments;

#[derive(Debug, Args)]
pub(crate) struct BuildxArguments {
    #[command(subcommand)]
    pub(crate) command: BuildxCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildxCommand {
    /// Read a bake file and print what its targets build
    #[command(visible_alias = "f")]
    Bake(Box<BakeArguments>),
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
