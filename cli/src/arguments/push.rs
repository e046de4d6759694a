//! The arguments of `kiln push`.

use clap::Args;

/// Upload an image to a registry
#[derive(Debug, Args)]
pub(crate) struct PushArguments {
    /// The image; the tag is `latest` where there is none
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) image: String,
    /// Upload every tag of the repository that the store has
    #[arg(short, long)]
    pub(crate) all_tags: bool,
    /// Print the image's name only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}
