//! A build, from arguments to image: read, lower, solve, export.

mod call;
mod context;
mod files;
mod hosts;
mod images;
mod invocation;
mod lowering;
mod named_contexts;
mod on_error;
mod output;
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
use std::time::Instant;

use anyhow::{Context, Result};
use kiln_llb::Definition;
use kiln_oci::Digest;
use kiln_solver::EventSender;

pub(crate) use call::{Call, call};
pub(crate) use files::Dockerfile;
pub(crate) use hosts::parse_host;
pub(crate) use on_error::OnError;
pub(crate) use platforms::{file_name as platform_file_name, platform as parse_platform};
pub(crate) use request::BuildRequest;
pub(crate) use session::{Done, Failure};

use crate::commands::build::ProgressMode;
use crate::printer::Printer;
use crate::progress;
use crate::settings::Settings;
use crate::signals::Interruption;
use context::Input;
use invocation::Invocation;
use lowering::options;
use session::Session;
use tools::Tools;

/// What a build has made.
#[derive(Debug)]
pub(crate) struct Built {
    /// The digest of the image config, where an image was made.
    pub(crate) image_id: Option<Digest>,
}

/// What some work has come to, or the exit status where it failed, which was reported.
pub(crate) type Ended<T> = std::result::Result<T, ExitCode>;

/// Builds, and reports progress and failure.
pub(crate) async fn build(
    request: BuildRequest,
    mode: ProgressMode,
    settings: &Settings,
    printer: &Printer,
) -> Result<Ended<Built>> {
    let begun = Instant::now();
    let work = async |session: &Session<'_>| session.run().await;
    let done = with_session(&request, mode, (settings, printer), work).await?;
    Ok(done.map(|done| {
        if mode != ProgressMode::Quiet {
            progress::summary(printer, &done, begun.elapsed());
        }
        Built { image_id: done.exported.image_id }
    }))
}

/// Makes the build graph of each platform and builds nothing; reports progress and failure.
pub(crate) async fn graphs(
    request: BuildRequest,
    mode: ProgressMode,
    settings: &Settings,
    printer: &Printer,
) -> Result<Ended<Vec<Definition>>> {
    let work = async |session: &Session<'_>| session.graphs();
    with_session(&request, mode, (settings, printer), work).await
}

/// Does some of a build's work while progress is shown, and reports warnings and failure.
async fn with_session<T>(
    request: &BuildRequest,
    mode: ProgressMode,
    (settings, printer): (&Settings, &Printer),
    work: impl AsyncFnOnce(&Session<'_>) -> Result<T, Failure>,
) -> Result<Ended<T>> {
    let store = settings.store()?;
    let input = tokio::task::block_in_place(|| Input::local(request, &store))?;
    let directory = input.as_ref().and_then(|input| input.directory.as_deref());
    let spool = progress::spool(&store);
    let tools = Tools::new(request, settings, store, directory)?;
    let (events, [shown]) = EventSender::channels([spool]);
    let interruption = Interruption::default();
    let cancel = interruption.cancel().clone();
    let mut tasks = tokio::task::JoinSet::new();
    let renderer = progress::run(mode, shown).context("show progress")?;
    let watcher = tasks.spawn(interruption.clone().watch());

    let input = match input {
        Some(input) => Ok(input),
        None => Input::fetch((request, options(request)), &tools, (&events, &cancel)).await,
    };
    let input = match input {
        Ok(input) => input,
        Err(error) => {
            drop(events);
            renderer.await?;
            printer.error(&error);
            return Ok(Err(exit_code(&Failure::Other(error), &interruption)));
        }
    };
    let session = Session {
        request,
        input: &input,
        tools: &tools,
        events,
        cancel,
        warnings: RefCell::default(),
    };
    let outcome = work(&session).await;
    let warnings = session.warnings.take();
    // The renderer ends with the last sender; what it hasn't shown must not mix with what follows.
    drop(session);
    renderer.await?;
    watcher.abort();
    if mode != ProgressMode::Quiet {
        progress::warnings(printer, &warnings, &input.dockerfile);
    }
    let failure = match outcome {
        Ok(done) => return Ok(Ok(done)),
        Err(failure) => failure,
    };
    progress::failure(printer, &failure, &input.dockerfile);
    let code = exit_code(&failure, &interruption);
    if interruption.exit_status().is_none() {
        after_failure(&failure, request, printer).await?;
    }
    Ok(Err(code))
}

/// Opens a shell in the step that failed, where that is asked for, or says how to.
async fn after_failure(failure: &Failure, request: &BuildRequest, printer: &Printer) -> Result<()> {
    if request.on_error == OnError::Shell {
        on_error::enter(failure, printer).await?;
        printer.error(&failure.summary());
    } else if on_error::can_be_entered(failure) {
        let command = progress::clean_text(&Invocation::current().entering());
        printer.note(format_args!("to look into it: {command}"));
    }
    Ok(())
}

/// Returns the exit status of a failure: 1, or that of an interruption.
fn exit_code(failure: &Failure, interruption: &Interruption) -> ExitCode {
    match interruption.exit_status() {
        Some(status) if !failure.is_of_a_step() => ExitCode::from(status),
        _ => ExitCode::FAILURE,
    }
}
