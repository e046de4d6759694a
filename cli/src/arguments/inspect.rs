//! The arguments of `kiln inspect`.

use clap::{Args, ValueEnum};

/// Show everything about images, as JSON
#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// Names or IDs
    #[arg(required = true, value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// The format of the output: json for an array on one line, or a Go template for each image
    #[arg(short, long, value_name = "FORMAT", default_value = "", hide_default_value = true)]
    pub(crate) format: String,
    /// The type of the objects
    #[arg(long = "type", value_enum, default_value = "image", hide_default_value = true)]
    pub(crate) kind: Kind,
    /// Show the image for this platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
}

/// The type of object to inspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Images: containers are never kept
    Image,
}
