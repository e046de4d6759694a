//! The arguments of `kiln rmi`.

use clap::Args;

/// Remove images: by name, which takes the name away and removes the image when it was the last;
/// or by ID
#[derive(Debug, Args)]
pub(crate) struct RmiArguments {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Remove an image that has several names by its ID; don't fail on images that aren't there
    #[arg(short, long)]
    pub(crate) force: bool,
    /// Leave layers and blobs that are of no use any more to the next clean-up
    #[arg(long)]
    pub(crate) no_prune: bool,
}
