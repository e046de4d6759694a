//! The ends of commands that fail: the report and the exit code.

use std::process::ExitCode;

use anyhow::anyhow;
use clap::error::ErrorKind;

use crate::arguments::Command;
use crate::arguments::flags::UsageError;
use crate::rendering::printer::Printer;

/// The exit status of `kiln run` for a failure of kiln itself, as in docker.
pub(crate) const OWN_FAILURE: u8 = 125;

/// The exit code for a command line that can't be parsed.
const USAGE: u8 = 2;

/// Prints the error of a failed command and returns its exit code.
pub(crate) fn report(printer: &Printer, error: &anyhow::Error) -> ExitCode {
    printer.error(error);
    ExitCode::FAILURE
}

/// Prints the reason why a command can't begin, and returns the command's exit code for it.
pub(crate) fn refuse(command: &Command, printer: &Printer, error: &anyhow::Error) -> ExitCode {
    printer.error(error);
    match command {
        Command::Run(_) | Command::Container(_) => ExitCode::from(OWN_FAILURE),
        _ => ExitCode::FAILURE,
    }
}

/// Prints help to standard output or an error to standard error, and returns the exit code.
pub(crate) fn misread(misread: &UsageError, printer: &Printer) -> ExitCode {
    let error = misread.error();
    if !error.use_stderr() {
        printer.styled(&error.render().ansi().to_string());
        return ExitCode::SUCCESS;
    }
    match misread.refusal() {
        Some(refusal) => printer.error(&anyhow!(refusal)),
        None => printer.styled_note(error.render().ansi().to_string().trim_end()),
    }
    let command = misread.command();
    if error.kind() == ErrorKind::MissingRequiredArgument && command == "build" {
        printer.note("hint: `kiln build .` builds the Dockerfile of the working directory");
    }
    ExitCode::from(if command == "run" { OWN_FAILURE } else { USAGE })
}
