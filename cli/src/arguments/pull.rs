//! The arguments of `kiln pull`.

use clap::Args;

/// Download an image from a registry
#[derive(Debug, Args)]
pub(crate) struct PullArguments {
    /// The image; the tag is `latest` where there is neither tag nor digest
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    pub(crate) image: String,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<String>,
    /// Download every tag of the repository
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print the image's name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
