//! `kiln build` around the engine: the request, the display, signals, and the report of a failure.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result};
use kiln::build::Dockerfile;
use kiln::build::{BuildSpec, Failure, Outcome};
use kiln::records::Recorded;
use kiln::spool;
use kiln::{Engine, Monitor, explain};
use kiln_event::EventSender;
use kiln_frontend::lint::Warning;
use kiln_llb::Definition;
use kiln_oci::error::chain;
use kiln_solver::SolveError;
use tokio::task::JoinSet;

use super::on_error;
use crate::arguments::on_error::OnError;
use crate::arguments::progress::ProgressMode;
use crate::flush;
use crate::rendering::metadata::Finished;
use crate::rendering::printer::Printer;
use crate::rendering::{explanation, progress};
use crate::settings::Settings;
use crate::settings::build::{BuildRequest, Invocation};
use crate::terminal::interruption::Interruption;

/// The result of some work, or the exit status after a failure that was reported already.
pub(crate) type Ended<T> = std::result::Result<T, ExitCode>;

/// The progress display's mode and the printer of a build.
#[derive(Clone, Copy)]
pub(crate) struct Console<'a> {
    /// The progress display to use.
    pub(crate) mode: ProgressMode,
    /// The printer for results, notes and failures.
    pub(crate) printer: &'a Printer,
}

/// Runs a build, shows its progress, and reports a failure.
pub(crate) async fn build(
    request: BuildRequest,
    settings: &Settings,
    console: Console<'_>,
) -> Result<Ended<Finished>> {
    let begun = Instant::now();
    let engine = settings.engine()?;
    let work = async |spec, monitor| engine.build(spec, monitor).await;
    let finished = match attend(&request, &engine, console, work).await? {
        Ok(finished) => finished,
        Err(code) => return Ok(Err(code)),
    };
    let Console { mode, printer } = console;
    if let Err(error) = flush::start(engine.store()) {
        printer.note(format_args!("WARNING: {}", chain(error.as_ref())));
    }
    let (built, outcome) = finished;
    if mode.is_for_people() {
        progress::summary(printer, &built, &request.spec.outputs, begun.elapsed());
        if let Some(reason) = &request.kept {
            printer.note(format_args!("kept in kiln's own store: {reason}"));
        }
    }
    let id = outcome.record.and_then(Result::ok).map(|recorded| recorded.id().to_owned());
    let dockerfile = outcome.dockerfile.unwrap_or_default();
    Ok(Ok(Finished { built, warnings: outcome.warnings, dockerfile, id }))
}

/// Creates the build graph of each platform without building. Shows progress and reports a failure.
pub(crate) async fn graphs(
    request: &BuildRequest,
    settings: &Settings,
    console: Console<'_>,
) -> Result<Ended<Vec<Definition>>> {
    let engine = settings.engine()?;
    let work = async |spec, monitor| engine.graphs(spec, monitor).await;
    Ok(attend(request, &engine, console, work).await?.map(|(graphs, _)| graphs))
}

/// Shows the progress of some work, then reports warnings and a failure. Returns the result, and
/// the outcome without it.
pub(super) async fn attend<T>(
    request: &BuildRequest,
    engine: &Engine,
    console: Console<'_>,
    work: impl AsyncFnOnce(BuildSpec, Monitor) -> Result<Outcome<T>>,
) -> Result<Ended<(T, Outcome<()>)>> {
    let Console { mode, printer } = console;
    let (events, [shown]) = EventSender::channels([spool(engine.store())]);
    let interruption = Interruption::default();
    let display = progress::run(mode, progress::Work::Build, shown).context("show progress")?;
    // The task that listens for signals ends with this value.
    let mut listener = JoinSet::new();
    listener.spawn(interruption.clone().watch());
    let monitor = Monitor { events, cancel: interruption.cancel().clone() };
    let outcome = work(request.spec.clone(), monitor).await;
    // The display ends with the last sender. Its remaining output must not mix with later output.
    display.await?;
    let Outcome { result, warnings, dockerfile, record } = outcome?;
    if let Some(Err(error)) = &record {
        printer.note(format_args!("WARNING: the build is not recorded: {}", chain(error.as_ref())));
    }
    if let Some(dockerfile) = &dockerfile {
        show_warnings(&warnings, dockerfile, console);
    }
    let recorded = record.as_ref().and_then(|record| record.as_ref().ok());
    if request.explain
        && let Some(recorded) = recorded
    {
        print_explanation(engine, recorded, printer)?;
    }
    match result {
        Ok(value) => Ok(Ok((value, Outcome { result: Ok(()), warnings, dockerfile, record }))),
        Err(failure) => {
            let is_cut = progress::failure(printer, &failure, dockerfile.as_ref());
            if is_cut && !progress::shows_everything(mode) {
                say_where_the_log_is(&failure, recorded, printer);
            }
            let status = interruption.exit_status();
            if status.is_none() {
                after_failure(&failure, request, printer).await?;
            }
            Ok(Err(exit_code(status, &failure)))
        }
    }
}

/// Prints the findings of the build checks.
fn show_warnings(warnings: &[Warning], dockerfile: &Dockerfile, console: Console<'_>) {
    if console.mode == ProgressMode::RawJson {
        progress::raw_warnings(warnings, dockerfile);
    } else if console.mode.is_for_people() {
        progress::warnings(console.printer, warnings, dockerfile);
    }
}

/// Prints why steps ran.
fn print_explanation(engine: &Engine, recorded: &Recorded, printer: &Printer) -> Result<()> {
    let (row, record) = recorded.build();
    let explanation = explain::of_build(engine.store(), row, record);
    let explanation = explanation.context("explain the build")?;
    printer.note(format_args!("\n{}", progress::clean_text(&explanation::text(&explanation))));
    Ok(())
}

/// Prints how to see the output of the failed step.
fn say_where_the_log_is(failure: &Failure, recorded: Option<&Recorded>, printer: &Printer) {
    let Failure::Solve(SolveError::Step { id, .. }) = failure else { return };
    let Some((build, number)) = recorded.and_then(|it| Some((it.id(), it.number(*id)?))) else {
        return;
    };
    printer.note(format_args!("its whole log: kiln builds logs {build} {number}"));
}

/// Returns the exit code of a failure: 1, or the code of the signal that ended the build.
fn exit_code(status: Option<u8>, failure: &Failure) -> ExitCode {
    match status {
        Some(status) if !failure.is_of_a_step() => ExitCode::from(status),
        _ => ExitCode::FAILURE,
    }
}

/// Opens a shell in the failed step if the request says so, or prints how to open one.
async fn after_failure(failure: &Failure, request: &BuildRequest, printer: &Printer) -> Result<()> {
    if request.on_error == OnError::Shell {
        on_error::enter(failure, printer).await?;
        printer.failure(failure, None);
    } else if on_error::can_be_entered(failure) {
        let command = progress::clean_text(&Invocation::current().entering());
        printer.note(format_args!("to look into it: {command}"));
    }
    Ok(())
}
