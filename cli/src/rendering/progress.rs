//! The progress displays of builds, pulls and pushes.
//!
//! Renderers consume the solver's events. Each runs on its own thread, so a slow terminal delays
//! only the display. The output of steps isn't trusted: [`text::clean`] removes everything that
//! could control a terminal.

mod failure;
mod plain;
mod pulls;
mod raw_json;
mod steps;
mod summary;
mod text;
mod tty;
mod warnings;

use std::io::IsTerminal;

use anyhow::{Result, anyhow};
use kiln::build::Dockerfile;
use kiln_event::EventReceiver;
use kiln_frontend::lint::Warning;
use tokio::sync::oneshot;

use crate::arguments::progress::ProgressMode;

pub(crate) use failure::{dockerfile_error, failure};
pub(crate) use summary::summary;
use text::PrintableLines;
pub(crate) use text::{Lines, clean_text, columns, fit, printable};
pub(crate) use warnings::warnings;

fn is_live(mode: ProgressMode) -> bool {
    match mode {
        ProgressMode::Auto => std::io::stderr().is_terminal(),
        ProgressMode::Tty => true,
        _ => false,
    }
}

/// Returns `true` if the display shows the complete output of steps.
pub(crate) fn shows_everything(mode: ProgressMode) -> bool {
    matches!(mode, ProgressMode::RawJson) || (mode.is_for_people() && !is_live(mode))
}

/// The work that a display shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// The steps of a build.
    Build,
    /// The download of an image. Without a terminal, the command prints the layers itself unless
    /// `tells_layers` is set.
    Pull {
        /// `true` to print every layer; `false` to print only those that take long.
        tells_layers: bool,
    },
    /// The unpacking of an image of the store. The display starts only once work is done.
    Prepare,
    /// The upload of an image.
    Push,
}

impl Work {
    fn verb(self) -> &'static str {
        match self {
            Self::Build => "Building",
            Self::Pull { .. } => "Pulling",
            Self::Prepare => "Preparing",
            Self::Push => "Pushing",
        }
    }
}

/// Writes the findings of the build checks to standard error as lines of JSON.
pub(crate) fn raw_warnings(warnings: &[Warning], dockerfile: &Dockerfile) {
    let stderr = std::io::stderr();
    if stderr.is_terminal() {
        raw_json::raw_warnings(warnings, dockerfile, &mut PrintableLines::new(stderr));
    } else {
        raw_json::raw_warnings(warnings, dockerfile, &mut { stderr });
    }
}

/// Shows events until the last sender is dropped. The returned future completes when all events are
/// shown.
///
/// # Errors
/// Fails if the thread can't be started or has panicked.
pub(crate) fn run(
    mode: ProgressMode,
    work: Work,
    events: EventReceiver,
) -> Result<impl Future<Output = Result<()>>> {
    let live = is_live(mode);
    let (done, finished) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let renderer = move || {
        let stderr = std::io::stderr();
        match mode {
            ProgressMode::Quiet | ProgressMode::None => drop(events),
            ProgressMode::RawJson if stderr.is_terminal() => {
                runtime.block_on(raw_json::render(events, &mut PrintableLines::new(stderr)));
            }
            ProgressMode::RawJson => runtime.block_on(raw_json::render(events, &mut { stderr })),
            _ if live => runtime.block_on(tty::render(events, &mut tty::Screen::new(stderr), work)),
            _ if work != Work::Build => {
                runtime.block_on(pulls::render(
                    events,
                    &mut std::io::LineWriter::new(stderr),
                    work,
                ));
            }
            _ => runtime.block_on(plain::render(events, &mut std::io::LineWriter::new(stderr))),
        }
        // The receiver is gone if the build was dropped.
        let _ = done.send(());
    };
    std::thread::Builder::new().name("progress".to_owned()).spawn(renderer)?;
    Ok(async { finished.await.map_err(|_| anyhow!("the progress display has failed")) })
}
