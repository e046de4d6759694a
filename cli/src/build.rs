//! A build: reads the input, lowers it to graphs, solves them, and exports the result.

mod ahead;
mod attest;
mod cache_export;
mod caches;
mod call;
mod context;
mod destinations;
mod files;
mod history;
mod hosts;
mod images;
mod invocation;
mod lowering;
mod metadata;
mod named_contexts;
mod observers;
mod on_error;
mod output;
mod packer;
mod places;
mod platforms;
mod request;
mod resources;
mod secrets;
mod session;
mod source_time;
mod ssh;
mod tools;
mod values;

use std::cell::RefCell;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use kiln_frontend::Warning;
use kiln_llb::Definition;

pub(crate) use attest::AttestArguments;
pub(crate) use call::{Call, call};
pub(crate) use files::Dockerfile;
pub(crate) use hosts::parse_host;
pub(crate) use images::{Step, Unresolved};
pub(crate) use on_error::OnError;
pub(crate) use platforms::{file_name as platform_file_name, platform as parse_platform};
pub(crate) use request::BuildRequest;
pub(crate) use session::{Done, Failure};

use crate::commands::build::ProgressMode;
use crate::printer::Printer;
use crate::progress;
use crate::settings::Settings;
use context::Input;
use invocation::Invocation;
use lowering::options;
use observers::Observers;
use session::Session;
use tools::{Reporting, Tools};

/// The result of a finished build.
#[derive(Debug)]
pub(crate) struct Built {
    /// The images and files that the exporter wrote.
    pub(crate) exported: kiln_exporter::Exported,
    /// Further facts for the metadata file.
    aside: BuildDetails,
}

/// Facts about a build that don't depend on its outputs.
#[derive(Debug)]
struct BuildDetails {
    /// The findings of the build checks.
    warnings: Vec<Warning>,
    /// The Dockerfile of the findings.
    dockerfile: Dockerfile,
    /// The build's ID in the history; `None` if the build isn't recorded.
    id: Option<String>,
}

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
) -> Result<Ended<Built>> {
    let begun = Instant::now();
    let work = async |session: &Session<'_>| session.run().await;
    let recorded: fn(&Done) -> &Done = |done| done;
    let done = with_session(&request, settings, console, Some(recorded), work).await?;
    Ok(done.map(|(done, aside)| {
        let Console { mode, printer } = console;
        if mode.is_for_people() {
            progress::summary(printer, &done, &request.outputs, begun.elapsed());
            if let Some(reason) = &request.kept {
                printer.note(format_args!("kept in kiln's own store: {reason}"));
            }
        }
        Built { exported: done.exported, aside }
    }))
}

/// Creates the build graph of each platform without building. Shows progress and reports a failure.
pub(crate) async fn graphs(
    request: BuildRequest,
    settings: &Settings,
    console: Console<'_>,
) -> Result<Ended<Vec<Definition>>> {
    let work = async |session: &Session<'_>| session.graphs();
    let graphs = with_session(&request, settings, console, None, work).await?;
    Ok(graphs.map(|(graphs, _)| graphs))
}

/// Extracts the build from the result of the work; `None` if the history doesn't record the work.
type Recorded<T> = Option<fn(&T) -> &Done>;

/// Runs `work` of a build while progress is shown, then reports warnings and a failure. The history
/// records the build that `done` extracts from the result.
async fn with_session<T>(
    request: &BuildRequest,
    settings: &Settings,
    console: Console<'_>,
    done: Recorded<T>,
    work: impl AsyncFnOnce(&Session<'_>) -> Result<T, Failure>,
) -> Result<Ended<(T, BuildDetails)>> {
    let Console { mode, printer } = console;
    let store = settings.store()?;
    let input = tokio::task::block_in_place(|| Input::local(request, &store))?;
    let directory = input.as_ref().and_then(|input| input.directory.as_deref());
    let redactor = Arc::new(history::redactor(request));
    let (events, audience) = Observers::gather(request, mode, done.is_some(), &store, &redactor)?;
    let tools = Tools::new(request, settings, store, redactor, directory)?;
    let cancel = audience.cancel();
    let reporting = Reporting { events: &events, cancel: &cancel };
    let input = match input {
        Some(input) => Ok(input),
        None => Input::fetch(request, options(request), &tools, reporting).await,
    };
    let (outcome, warnings, input) = match input {
        Ok(input) => {
            let warnings = RefCell::default();
            let (files, tools) = (&input, &tools);
            let session =
                Session { request, input: files, tools, events, cancel, printer, warnings };
            let outcome = work(&session).await;
            (outcome, session.warnings.take(), Some(input))
        }
        Err(error) => {
            drop(events);
            (Err(Failure::Other(error)), Vec::new(), None)
        }
    };
    // The display ends with the last sender. Its remaining output must not mix with later output.
    let watched = outcome.as_ref().map(|value| done.map(|done| done(value)));
    let seen = audience.leave(watched, &warnings, printer).await?;
    let dockerfile = input.as_ref().map(|input| &input.dockerfile);
    if let Some(dockerfile) = dockerfile {
        show_warnings(&warnings, dockerfile, console);
    }
    if request.explain {
        seen.explain(&tools.store, printer)?;
    }
    match outcome {
        Ok(value) => {
            let dockerfile = input.map(|input| input.dockerfile).unwrap_or_default();
            Ok(Ok((value, BuildDetails { warnings, dockerfile, id: seen.id() })))
        }
        Err(failure) => {
            let is_cut = progress::failure(printer, &failure, dockerfile);
            if is_cut && !progress::shows_everything(mode) {
                seen.say_where_the_log_is(&failure, printer);
            }
            if seen.exit_status.is_none() {
                after_failure(&failure, request, printer).await?;
            }
            Ok(Err(seen.exit_code(&failure)))
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
