//! The arguments of `kiln info`.

use clap::Args;

/// Show what kiln works with on this machine
#[derive(Debug, Args)]
pub(crate) struct InfoArguments {
    /// The format of the output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
