//! The arguments of `kiln diff`.

use clap::{Args, ValueEnum};

/// Show what makes two images differ
///
/// An image is named as it is in the store, by the path of an archive or an OCI layout
/// (DIR[:TAG][@DIGEST]), or by its name in a registry; oci-archive:, docker-archive:, oci: and
/// docker:// say which is meant. The exit status is 0 where the images are the same byte for byte,
/// 1 where they differ, and 2 where something went wrong.
#[derive(Debug, Args)]
pub(crate) struct DiffArguments {
    /// The first image
    #[arg(value_name = "A")]
    pub(crate) a: String,
    /// The second image
    #[arg(value_name = "B")]
    pub(crate) b: String,
    /// Compare the images for this platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
    /// The format of the output
    #[arg(long, value_enum, default_value = "text", hide_default_value = true)]
    pub(crate) format: Format,
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}
