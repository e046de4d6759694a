//! The arguments of `kiln container`: docker's container commands that make sense without keeping containers.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::run::RunArguments;

#[derive(Debug, Args)]
pub(crate) struct ContainerArguments {
    #[command(subcommand)]
    pub(crate) command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContainerCommand {
    /// Run a command in a new container
    Run(Box<RunArguments>),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}
