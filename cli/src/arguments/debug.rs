//! The arguments of `kiln debug`: internal files in readable form.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub(crate) struct DebugArguments {
    #[command(subcommand)]
    pub(crate) command: DebugCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DebugCommand {
    /// Show a build graph, as `kiln build --dump-llb` writes it
    Llb(LlbArguments),
}

/// Prints a JSON array with an object for each op, inputs first, the head last; any marshalled
/// definition will do, whoever wrote it.
#[derive(Debug, Args)]
pub(crate) struct LlbArguments {
    /// The graph's file, `-` for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print the graph in Graphviz's language instead
    #[arg(long)]
    pub(crate) dot: bool,
}
