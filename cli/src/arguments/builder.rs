//! The arguments of `kiln builder`: docker's commands for its builder that make sense without a daemon.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::build::BuildArguments;
use super::prune::PruneArguments;

#[derive(Debug, Args)]
pub(crate) struct BuilderArguments {
    #[command(subcommand)]
    pub(crate) command: BuilderCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuilderCommand {
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
