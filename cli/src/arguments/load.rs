//! The arguments of `kiln load`.

use std::path::PathBuf;

use clap::Args;

/// Take in images that were saved: archives of docker, old and new, and OCI archives, compressed
/// with gzip, zstd, bzip2, xz or not at all
#[derive(Debug, Args)]
pub(crate) struct LoadArguments {
    /// File to read from, in place of standard input
    #[arg(short, long, value_name = "FILE")]
    pub(crate) input: Option<PathBuf>,
    /// Say nothing but which images there were. kiln shows no progress: this is for the habit's sake
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
