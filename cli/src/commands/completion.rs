//! `kiln completion`.

use std::process::ExitCode;

use clap::builder::Resettable;
use clap::{Arg, Command, CommandFactory};
use clap_complete::Shell;

use crate::arguments::Arguments;
use crate::arguments::completion::{CompletedShell, CompletionArguments};
use crate::rendering::printer::Printer;

/// Prints the completion script.
pub(crate) fn run(arguments: &CompletionArguments, printer: &Printer) -> ExitCode {
    printer.bytes(&script(arguments.shell));
    ExitCode::SUCCESS
}

fn script(shell: CompletedShell) -> Vec<u8> {
    let shell = match shell {
        CompletedShell::Bash => Shell::Bash,
        CompletedShell::Zsh => Shell::Zsh,
        CompletedShell::Fish => Shell::Fish,
        CompletedShell::Powershell => Shell::PowerShell,
    };
    let mut described = Arguments::command().disable_help_subcommand(true);
    described.build();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut visible(&described), "kiln", &mut script);
    script
}

/// Returns a command with its visible arguments and subcommands. The scripts would offer hidden
/// ones, too.
fn visible(command: &Command) -> Command {
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let below = command.get_subcommands().filter(|below| !below.is_hide_set()).map(visible);
    let about = command.get_about().cloned();
    Command::new(command.get_name().to_owned())
        .version(env!("CARGO_PKG_VERSION"))
        .about(Resettable::from(about))
        .visible_aliases(command.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>())
        .args(arguments.cloned().map(without_colons))
        .subcommands(below)
        .disable_help_subcommand(true)
        .disable_help_flag(true)
        .disable_version_flag(true)
}

/// Removes colons from the value names of an argument: a colon ends a field in zsh's completions.
fn without_colons(argument: Arg) -> Arg {
    let names = argument.get_value_names().unwrap_or_default();
    let names: Vec<String> = names.iter().map(|name| name.replace(':', " ")).collect();
    if names.is_empty() { argument } else { argument.value_names(names) }
}
