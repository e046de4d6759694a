//! The arguments of `kiln save`.

use std::path::PathBuf;

use clap::Args;

/// Write images to a tar: an OCI layout that `docker load` and `kiln load` take
#[derive(Debug, Args)]
pub(crate) struct SaveArguments {
    /// Names or IDs; a name without a tag stands for all tags of the repository
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// File to write to, in place of standard output
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// Write the images for this platform alone
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
}
