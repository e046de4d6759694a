//! The arguments of `kiln version`.

use clap::Args;

/// Show kiln's version
#[derive(Debug, Args)]
pub(crate) struct VersionArguments {
    /// The format of the output: json, or a Go template
    #[arg(short, long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
