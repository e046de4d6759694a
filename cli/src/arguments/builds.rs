//! The arguments of `kiln builds`: the history of builds.

use clap::{Args, Subcommand, ValueEnum};

/// Look into the history of builds
///
/// The last 100 builds of the last 30 days are kept, with everything that their steps have printed;
/// fewer where the logs take more than a gibibyte. A build is named by its ID, by how that begins,
/// by `latest`, or by `^N`, the one before the latest by N.
#[derive(Debug, Args)]
pub(crate) struct BuildsArguments {
    #[command(subcommand)]
    pub(crate) command: BuildsCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BuildsCommand {
    /// List builds, the latest first
    Ls(LsArguments),
    /// Show what is known of a build
    Inspect(InspectArguments),
    /// Say why the steps of a build ran, or what is different between two builds
    Explain(ExplainArguments),
    /// Print what the steps of a build have printed
    Logs(LogsArguments),
    /// Forget builds
    Rm(RmArguments),
}

/// The format of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[value(alias = "table")]
    Pretty,
    /// For programs
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArguments {
    /// The build; with a second one, the earlier of the two
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// A build to be compared with the first: what is different about each of its steps is said,
    /// whether the step ran or not
    #[arg(value_name = "BUILD")]
    pub(crate) other: Option<String>,
    /// The format of the output
    #[arg(long, value_enum, default_value = "pretty", hide_default_value = true)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct InspectArguments {
    /// The build
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// The format of the output
    #[arg(long, value_enum, default_value = "pretty", hide_default_value = true)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArguments {
    /// The build
    #[arg(value_name = "BUILD", default_value = "latest")]
    pub(crate) build: String,
    /// Only what this step has printed: its number, as progress and `inspect` show it, or how its
    /// digest begins
    #[arg(value_name = "STEP")]
    pub(crate) step: Option<String>,
    /// Print the bytes as they came: no step numbers, and nothing taken out that drives a terminal
    #[arg(long)]
    pub(crate) raw: bool,
}

#[derive(Debug, Args)]
pub(crate) struct LsArguments {
    /// Print IDs only
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// Print whole names
    #[arg(long)]
    pub(crate) no_trunc: bool,
    /// Only builds for which this holds:
    /// status=running|completed|failed|canceled|interrupted, several times for one of several
    #[arg(long = "filter", value_name = "FILTER")]
    pub(crate) filters: Vec<String>,
    /// The format of the list: a table, or a JSON object for each build
    #[arg(long, value_enum, default_value = "pretty", hide_default_value = true)]
    pub(crate) format: Format,
}

#[derive(Debug, Args)]
pub(crate) struct RmArguments {
    /// The builds to remove
    #[arg(value_name = "BUILD", required_unless_present = "all", conflicts_with = "all")]
    pub(crate) builds: Vec<String>,
    /// All builds but those that run
    #[arg(long)]
    pub(crate) all: bool,
}
