//! The arguments of `kiln history`.

use clap::{ArgAction, Args};

/// Show how an image was made, the last step first
#[derive(Debug, Args)]
pub(crate) struct HistoryArguments {
    /// Name or ID
    #[arg(value_name = "IMAGE")]
    pub(crate) image: String,
    /// Print whole IDs and instructions
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Print image IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print sizes and times for people; --human=false for programs
    #[arg(
        short = 'H',
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value = "true",
        default_missing_value = "true",
        hide_default_value = true,
        action = ArgAction::Set
    )]
    pub(crate) human: bool,
    /// The format of the list: table, "table TEMPLATE", json, or a Go template
    #[arg(long, value_name = "FORMAT")]
    pub(crate) format: Option<String>,
    /// Show the image for this platform, where there are several [default: this machine's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    pub(crate) platform: Option<String>,
}
