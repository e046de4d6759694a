//! The arguments of `kiln tag`.

use clap::Args;

/// Give an image another name
#[derive(Debug, Args)]
pub(crate) struct TagArguments {
    /// Name or ID of the image
    #[arg(value_name = "IMAGE[:TAG]")]
    pub(crate) source: String,
    /// The new name; the tag is `latest` where there is none. An image that has it loses it
    #[arg(value_name = "NAME[:TAG]")]
    pub(crate) target: String,
}
