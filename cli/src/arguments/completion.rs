//! The arguments of `kiln completion`.

use clap::{Args, ValueEnum};

/// Print a script that completes kiln's arguments in a shell
///
/// For the running shell alone: `. <(kiln completion bash)`, `. <(kiln completion zsh)` or `kiln completion
/// fish | source`. `make install` and the Debian package install all three.
#[derive(Debug, Args)]
pub(crate) struct CompletionArguments {
    /// The shell that reads the script
    #[arg(value_name = "SHELL")]
    pub(crate) shell: CompletedShell,
}

/// A shell that kiln has completions for.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CompletedShell {
    Bash,
    Zsh,
    Fish,
    Powershell,
}
