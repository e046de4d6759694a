//! The arguments of `kiln images`.

use clap::Args;

/// List images, the newest first
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct ImagesArguments {
    /// Only images with this name, and tag where one is given; * and ? stand for other characters
    #[arg(value_name = "REPOSITORY[:TAG]")]
    pub(crate) name: Option<String>,
    /// List intermediate images too. kiln keeps none: this is for the habit's sake
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Print image IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print digests, too
    #[arg(long)]
    pub(crate) digests: bool,
    /// Print whole IDs
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only images for which this holds: dangling=true|false, label=KEY[=VALUE], before=IMAGE,
    /// since=IMAGE, until=TIME, reference=PATTERN
    #[arg(short, long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// The format of the list: table, "table TEMPLATE", json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
}
