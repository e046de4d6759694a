//! Signals that end a build.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The state of a build that signals may interrupt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Interruption {
    cancel: CancellationToken,
    /// The number of the latest signal; zero before the first one.
    signal: Arc<AtomicU8>,
}

impl Interruption {
    /// Returns the token that the first signal cancels.
    pub(crate) fn cancel(&self) -> &CancellationToken {
        &self.cancel
    }

    /// Returns the exit status of a build that a signal ended, in the shells' convention: 130 for
    /// Ctrl-C. Returns `None` before the first signal.
    pub(crate) fn exit_status(&self) -> Option<u8> {
        match self.signal.load(Ordering::Relaxed) {
            0 => None,
            signal => Some(128 + signal),
        }
    }

    /// Cancels the token on the first SIGINT, SIGTERM or SIGHUP. On the second one, kills the
    /// process at once; the next process cleans up after it.
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
                // Don't wait any longer: the steps die with this process.
                nix::sys::signal::raise(Signal::SIGKILL).unwrap_or_default();
            }
            self.cancel.cancel();
        }
    }
}

/// Ends the process like a program whose output pipe was closed by the reader.
pub(crate) fn end_by_broken_pipe() {
    // Rust ignores SIGPIPE by default.
    kiln_sandbox::reset_signals();
    nix::sys::signal::raise(Signal::SIGPIPE).unwrap_or_default();
}
