//! The observers of a build: the display, the history, and the signal handler.

use std::pin::Pin;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, Result};
use kiln_event::EventSender;
use kiln_frontend::Warning;
use kiln_solver::SolveError;
use kiln_store::Store;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::history;
use super::request::BuildRequest;
use super::session::{Done, Failure};
use crate::commands::build::ProgressMode;
use crate::explain;
use crate::history::{Recorded, Recording};
use crate::printer::Printer;
use crate::progress;
use crate::redact::Redactor;
use crate::signals::Interruption;

/// The observers of a build.
pub(super) struct Observers {
    display: Pin<Box<dyn Future<Output = Result<()>>>>,
    recording: Option<Recording>,
    interruption: Interruption,
    /// The task that listens for signals. It ends with this value.
    _listener: JoinSet<()>,
}

/// The findings of the observers after the build.
pub(super) struct Observed {
    /// The exit status for a build that a signal ended.
    pub(super) exit_status: Option<u8>,
    recorded: Option<Recorded>,
}

impl Observers {
    /// Starts to observe the events and signals. The history records the build if `is_recorded`.
    pub(super) fn gather(
        request: &BuildRequest,
        mode: ProgressMode,
        is_recorded: bool,
        store: &Store,
        redactor: &Arc<Redactor>,
    ) -> Result<(EventSender, Self)> {
        let spools = [progress::spool(store), progress::spool(store)];
        let (events, [shown, recorded]) = EventSender::channels(spools);
        let events = events.with_log_limits(request.log_limits);
        let recording = if is_recorded {
            let record = history::record(request, redactor);
            Some(Recording::begin(store, record, Arc::clone(redactor), recorded)?)
        } else {
            None
        };
        let interruption = Interruption::default();
        let display = progress::run(mode, progress::Work::Build, shown).context("show progress")?;
        let mut listener = JoinSet::new();
        listener.spawn(interruption.clone().watch());
        let display = Box::pin(display);
        Ok((events, Self { display, recording, interruption, _listener: listener }))
    }

    /// Returns the token that is cancelled to end the build.
    pub(super) fn cancel(&self) -> CancellationToken {
        self.interruption.cancel().clone()
    }

    /// Waits until all events are shown and recorded. Call it after the last sender of events is
    /// dropped. A history that can't be written doesn't fail the build.
    pub(super) async fn leave(
        self,
        outcome: Result<Option<&Done>, &Failure>,
        warnings: &[Warning],
        printer: &Printer,
    ) -> Result<Observed> {
        self.display.await?;
        let exit_status = self.interruption.exit_status();
        let Some(recording) = self.recording else {
            return Ok(Observed { exit_status, recorded: None });
        };
        let warnings = warnings.iter().map(|found| format!("{}: {}", found.rule, found.message));
        let ending = history::ending(outcome, &self.interruption, warnings.collect());
        let recorded = recording.finish(ending).await;
        let recorded = recorded
            .inspect_err(|error| {
                printer.note(format_args!("WARNING: the build is not recorded: {error:#}"));
            })
            .ok();
        Ok(Observed { exit_status, recorded })
    }
}

impl Observed {
    /// Returns the exit code of a failure: 1, or the code of the signal that ended the build.
    pub(super) fn exit_code(&self, failure: &Failure) -> ExitCode {
        match self.exit_status {
            Some(status) if !failure.is_of_a_step() => ExitCode::from(status),
            _ => ExitCode::FAILURE,
        }
    }

    /// Prints why steps ran.
    pub(super) fn explain(&self, store: &Store, printer: &Printer) -> Result<()> {
        let Some(recorded) = &self.recorded else { return Ok(()) };
        let (row, record) = recorded.build();
        let explanation = explain::of_build(store, row, record).context("explain the build")?;
        printer.note(format_args!("\n{}", explanation.text()));
        Ok(())
    }

    /// Returns the build's ID in the history; `None` if the build isn't recorded.
    pub(super) fn id(&self) -> Option<String> {
        self.recorded.as_ref().map(|recorded| recorded.id().to_owned())
    }

    /// Prints how to see the output of the failed step.
    pub(super) fn say_where_the_log_is(&self, failure: &Failure, printer: &Printer) {
        let Failure::Solve(SolveError::Step { id, .. }) = failure else { return };
        let command = self.recorded.as_ref().and_then(|recorded| recorded.logs_command(*id));
        if let Some(command) = command {
            printer.note(format_args!("its whole log: {command}"));
        }
    }
}
