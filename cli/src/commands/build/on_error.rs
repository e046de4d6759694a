//! The reaction to a failed step: `--on-error`.
//!
//! The shell opens after everything else has ended: concurrent steps are stopped, the display is
//! closed, the failure is printed, and the shell receives signals. The shell doesn't affect the
//! build, which has failed and is recorded as failed.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use kiln::build::Failure;
use kiln_sandbox::{Input, Io};
use kiln_solver::{SolveError, StepError};
use kiln_worker::FailedStep;

use crate::rendering::printer::Printer;
use crate::rendering::progress::clean_text;
use crate::terminal::{OutputForwarder, Signals, Terminal, attend, standard_input};

/// Returns `true` if a program failed in a step, so that a shell can open there.
pub(super) fn can_be_entered(failure: &Failure) -> bool {
    let Failure::Solve(SolveError::Step { error, .. }) = failure else { return false };
    matches!(**error, StepError::Exit { .. })
}

/// Opens a shell in the failed step, and returns after the shell has ended.
pub(super) async fn enter(failure: &Failure, printer: &Printer) -> Result<()> {
    let Failure::Solve(SolveError::Step { error, name, .. }) = failure else {
        printer.note("there is no failed step to open a shell in");
        return Ok(());
    };
    let name = clean_text(name);
    let StepError::Exit { remains: Some(remains), .. } = &**error else {
        printer.note(format_args!("no shell can be opened in {name}: it is no RUN step that ran"));
        return Ok(());
    };
    let Some(step) = remains.get::<FailedStep>() else { return Ok(()) };
    printer.note(format_args!("\nopening a shell in {name}; the build ends when it does"));
    shell(step, printer).await.context("open a shell in the failed step")
}

async fn shell(step: &FailedStep, printer: &Printer) -> Result<()> {
    let terminal = Terminal::open(std::io::stdin().is_terminal(), true)?;
    let input = if terminal.is_some() { Input::Null } else { standard_input()? };
    let passing = OutputForwarder::to(printer);
    let io = Io { input, output: passing.sink(), namespace: None, gate: None };
    let signals = Signals::catch();
    let running = step.shell(terminal.as_ref().map(Terminal::size), io).await?;
    // The shell's exit status is ignored: users often leave it after a failed command.
    attend(running, signals, terminal, &passing).await.map_err(|failure| failure.error)?;
    Ok(())
}
