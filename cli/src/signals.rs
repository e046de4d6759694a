//! Signals that end a build.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Whether somebody wants the build to end.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interruption {
    cancel: CancellationToken,
    /// The first signal; zero where there was none.
    signal: Arc<AtomicU8>,
}

impl Interruption {
    /// Returns what is cancelled when a signal has come.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Returns the exit status of a build that a signal has ended, as shells have it: 130 for
    /// Ctrl-C. `None` where no signal has come.
    pub(crate) fn exit_status(&self) -> Option<u8> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(128 + signal),
        }
    }

    /// Cancels on the first SIGINT, SIGTERM or SIGHUP; on the second the process ends at once, and
    /// what it leaves is swept up by the next.
    pub(crate) async fn watch(self) {
        let streams = (
            signal(SignalKind::interrupt()),
            signal(SignalKind::terminate()),
            signal(SignalKind::hangup()),
        );
        let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = streams else { return };
        loop {
            let received = tokio::select! {
                _ = interrupt.recv() => Signal::SIGINT,
                _ = terminate.recv() => Signal::SIGTERM,
                _ = hangup.recv() => Signal::SIGHUP,
            };
            let received = received as u8;
            let before = self.signal.swap(received, Ordering::Relaxed);
            if before != 0 {
                // Nothing can be waited for any more: steps die with their process.
                nix::sys::signal::raise(Signal::SIGKILL).unwrap_or_default();
            }
            self.cancel.cancel();
        }
    }
}

/// Ends the process as a program ends whose reader has gone away.
pub(crate) fn end_by_broken_pipe() {
    // Rust has it ignored.
    kiln_sandbox::reset_signals();
    nix::sys::signal::raise(Signal::SIGPIPE).unwrap_or_default();
}
