//! A build, from arguments to image: read, lower, solve, export.

mod context;
mod files;
mod images;
mod output;
mod request;
mod session;

use std::time::Instant;

use anyhow::{Context, Result};
use kiln_oci::Digest;
use kiln_solver::EventSender;
use tokio_util::sync::CancellationToken;

pub(crate) use files::Dockerfile;
pub(crate) use request::BuildRequest;
pub(crate) use session::{Done, Failure};

use crate::commands::build::ProgressMode;
use crate::printer::Printer;
use crate::progress;
use crate::settings::Settings;
use crate::signals;
use context::Input;
use session::Session;

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
    let store = settings.store()?;
    let input = tokio::task::block_in_place(|| Input::local(&request, &store))?;
    let (events, receiver) = EventSender::channel();
    let cancel = CancellationToken::new();
    let mut tasks = tokio::task::JoinSet::new();
    let renderer = progress::run(mode, receiver).context("show progress")?;
    let watcher = tasks.spawn(signals::watch(cancel.clone()));

    let session = Session { request: &request, input: &input, settings, store, events, cancel };
    let outcome = session.run().await;
    // The renderer ends with the last sender; what it hasn't shown must not mix with what follows.
    drop(session);
    renderer.await?;
    watcher.abort();
    match outcome {
        Ok(done) => {
            if mode != ProgressMode::Quiet {
                progress::summary(printer, &done, begun.elapsed());
            }
            Ok(Some(Built { image_id: done.exported.image_id }))
        }
        Err(failure) => {
            progress::failure(printer, &failure, &input.dockerfile);
            Ok(None)
        }
    }
}
