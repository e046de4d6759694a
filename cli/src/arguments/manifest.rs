//! The arguments of `kiln manifest`.

use std::ffi::OsString;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct ManifestArguments {
    #[command(subcommand)]
    pub(crate) command: ManifestCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Show the manifest or the index that a name in a registry stands for
    Inspect(InspectArguments),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The image
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
    /// Show descriptors and platforms, too, and the manifests of an index
    #[arg(short, long)]
    pub(crate) verbose: bool,
}
