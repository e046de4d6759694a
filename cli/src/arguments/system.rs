//! The arguments of `kiln system`: commands for the whole store.

use std::ffi::OsString;

use clap::{Args, Subcommand};

use super::info::InfoArguments;

#[derive(Debug, Args)]
pub(crate) struct SystemArguments {
    #[command(subcommand)]
    pub(crate) command: SystemCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SystemCommand {
    /// Verify everything in the store: its index, blobs, layers and images
    Check(CheckArguments),
    /// Show what images, volumes, the cache and everything else take on the disk
    Df(DfArguments),
    /// Remove images that have no name, and the build cache
    Prune(PruneArguments),
    /// Show what kiln works with on this machine
    Info(InfoArguments),
    #[command(external_subcommand)]
    Other(Vec<OsString>),
}

/// Reads all that is stored, prints a line for each thing that isn't what was stored, and fails
/// where there is one
#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// Drop what is damaged and what needs it; the next build makes it again
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Show what images, volumes, the cache and everything else take on the disk
///
/// Sizes are those of the blocks in use, and every file counts once: together they are what du says
/// of the store's directory. What images and the cache share counts with the images.
#[derive(Debug, Args)]
pub(crate) struct DfArguments {
    /// List every image, volume and part of the cache
    #[arg(short, long)]
    pub(crate) verbose: bool,
    /// The format of the output: table, "table TEMPLATE", json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}

/// Remove images that have no name, and the build cache
#[derive(Debug, Args)]
pub(crate) struct PruneArguments {
    /// Remove images that have names, too, and cache mounts
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Don't ask
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Remove the volumes that no container uses, too
    #[arg(long)]
    pub(crate) volumes: bool,
    /// Only what this holds for: until=TIME, and of images label=KEY[=VALUE], label!=KEY[=VALUE]
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
}
