//! `--on-error`: the reaction to a failed step.

use clap::ValueEnum;

/// The reaction to a failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnError {
    /// The build ends
    Fail,
    /// A shell is opened where the RUN step has failed, with its files and mounts; then the build
    /// ends. Without a terminal on standard input, the shell reads its commands from there
    Shell,
}
