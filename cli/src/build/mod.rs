//! A build, from arguments to image: read, lower, solve, export.

mod call;
mod context;
mod files;
mod hosts;
mod images;
mod named_contexts;
mod output;
mod places;
mod platforms;
mod request;
mod resources;
mod secrets;
mod session;
mod ssh;
mod tools;
mod values;

use std::cell::RefCell;
use std::time::Instant;

use anyhow::{Context, Result};
use kiln_llb::Definition;
use kiln_oci::Digest;
use kiln_solver::EventSender;
use tokio_util::sync::CancellationToken;

pub(crate) use call::{Call, call};
pub(crate) use files::Dockerfile;
pub(crate) use hosts::parse_host;
pub(crate) use request::BuildRequest;
pub(crate) use session::{Done, Failure};

use crate::commands::build::ProgressMode;
use crate::printer::Printer;
use crate::progress;
use crate::settings::Settings;
use crate::signals;
use context::Input;
use session::{Session, options};
use tools::Tools;

/// What a build has made.
#[derive(Debug)]
pub(crate) struct Built {
    /// The digest of the image config, where an image was made.
    pub(crate) image_id: Option<Digest>,
}

/// Builds, and reports progress and failure; `None` where the build has failed.
pub(crate) async fn build(
    request: BuildRequest,
    mode: ProgressMode,
    settings: &Settings,
    printer: &Printer,
) -> Result<Option<Built>> {
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

/// Makes the build graph and builds nothing; reports progress and failure, `None` where it has
/// failed.
pub(crate) async fn graph(
    request: BuildRequest,
    mode: ProgressMode,
    settings: &Settings,
    printer: &Printer,
) -> Result<Option<Definition>> {
    let work = async |session: &Session<'_>| session.graph();
    with_session(&request, mode, (settings, printer), work).await
}

/// Does some of a build's work while progress is shown, and reports warnings and failure; `None`
/// where it has failed.
async fn with_session<T>(
    request: &BuildRequest,
    mode: ProgressMode,
    (settings, printer): (&Settings, &Printer),
    work: impl AsyncFnOnce(&Session<'_>) -> Result<T, Failure>,
) -> Result<Option<T>> {
    let store = settings.store()?;
    let input = tokio::task::block_in_place(|| Input::local(request, &store))?;
    let directory = input.as_ref().and_then(|input| input.directory.as_deref());
    let tools = Tools::new(request, settings, store, directory)?;
    let (events, receiver) = EventSender::channel();
    let cancel = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let renderer = progress::run(mode, receiver).context("show progress")?;
    let watcher = tasks.spawn(signals::watch(cancel.clone()));

    let input = match input {
        Some(input) => Ok(input),
        None => Input::fetch((request, options(request)), &tools, (&events, &cancel)).await,
    };
    let input = match input {
        Ok(input) => input,
        Err(error) => {
            drop(events);
            renderer.await?;
            return Err(error);
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
    outcome.map(Some).or_else(|failure| {
        progress::failure(printer, &failure, &input.dockerfile);
        Ok(None)
    })
}
