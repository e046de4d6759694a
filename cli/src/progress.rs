//! What people see of a build while it runs.
//!
//! Renderers are consumers of the solver's events. Each runs on a thread of its own: a terminal
//! that doesn't take what is written to it holds up nothing but what is shown. What steps print is
//! hostile: [`text::clean`] takes everything out that could drive a terminal.

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
use kiln_frontend::Warning;
use kiln_solver::{EventReceiver, Spool};
use kiln_store::Store;
use tokio::sync::oneshot;

use crate::build::Dockerfile;
use crate::commands::build::ProgressMode;

pub(crate) use failure::failure;
pub(crate) use summary::summary;
use text::PrintableLines;
pub(crate) use text::{Lines, clean_text, columns, fit, printable};
pub(crate) use warnings::warnings;

/// Returns where output waits that a slow terminal or pipe hasn't taken yet: in a file of the store's
/// temporary area that loses its name at once.
pub(crate) fn spool(store: &Store) -> Spool {
    let store = store.clone();
    Spool::with(move || store.temp_file().map_err(std::io::Error::other))
}

fn is_live(mode: ProgressMode) -> bool {
    match mode {
        ProgressMode::Auto => std::io::stderr().is_terminal(),
        ProgressMode::Tty => true,
        _ => false,
    }
}

/// Tells whether everything that steps print is shown.
pub(crate) fn shows_everything(mode: ProgressMode) -> bool {
    matches!(mode, ProgressMode::RawJson) || (mode.is_for_people() && !is_live(mode))
}

/// The work that a display shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Steps of a build.
    Build,
    /// An image on its way from a registry. Without a terminal, a command says itself which layers there
    /// are, or `tells_layers` has it said here.
    Pull {
        /// Whether each layer is told of, and not only those that take their time.
        tells_layers: bool,
    },
    /// An image of the store that may have to be unpacked. Nothing is shown before something is done.
    Prepare,
    /// An image on its way to a registry.
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

/// Writes what the build checks have found to standard error, as lines of JSON.
pub(crate) fn raw_warnings(warnings: &[Warning], dockerfile: &Dockerfile) {
    let stderr = std::io::stderr();
    if stderr.is_terminal() {
        raw_json::raw_warnings(warnings, dockerfile, &mut PrintableLines::new(stderr));
    } else {
        raw_json::raw_warnings(warnings, dockerfile, &mut { stderr });
    }
}

/// Shows events until the last sender is gone. The result is ready when everything was shown.
///
/// # Errors
/// Fails where the thread can't be started, or has panicked.
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
        // Whoever waited may have gone.
        let _ = done.send(());
    };
    std::thread::Builder::new().name("progress".to_owned()).spawn(renderer)?;
    Ok(async { finished.await.map_err(|_| anyhow!("the progress display has failed")) })
}
