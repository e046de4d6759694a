//! `kiln completion`.

use std::process::ExitCode;

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{Shell, generate};

use crate::arguments::Arguments;
use crate::printer::Printer;

/// Print a script that completes kiln's commands and flags in a shell, as in
/// `source <(kiln completion bash)`
#[derive(Debug, Args)]
pub(crate) struct CompletionArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Completed,
}

/// A shell with completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Completed {
    Bash,
    Zsh,
    Fish,
    Powershell,
}

/// Prints the script.
pub(crate) fn run(arguments: &CompletionArguments, printer: &Printer) -> ExitCode {
    let shell = match arguments.shell {
        Completed::Bash => Shell::Bash,
        Completed::Zsh => Shell::Zsh,
        Completed::Fish => Shell::Fish,
        Completed::Powershell => Shell::PowerShell,
    };
    let mut command = Arguments::command();
    command.build();
    let mut script = Vec::new();
    generate(shell, &mut command, "kiln", &mut script);
    printer.bytes(&script);
    ExitCode::SUCCESS
}
