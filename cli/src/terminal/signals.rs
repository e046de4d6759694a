//! Forwarding of signals to a container.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use kiln_sandbox::Signaller;
use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that kiln forwards.
const FORWARDED: [Signal; 9] = [
    Signal::SIGINT,
    Signal::SIGTERM,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
    Signal::SIGCONT,
    Signal::SIGTSTP,
];

/// The number of SIGINT and SIGTERM signals after which kiln kills the command. As the first
/// process of its namespace, the command ignores signals without a handler.
const PATIENCE: u32 = 3;

/// The time that kiln may take to end after it has killed the command.
const GRACE: Duration = Duration::from_secs(2);

/// The signals that kiln has caught and not yet forwarded.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Starts to catch signals. Call it before the container starts: an earlier signal has its
    /// usual effect on kiln.
    pub(crate) fn catch() -> Self {
        let catch = |forwarded: Signal| {
            // A signal that can't be caught keeps its usual effect.
            let stream = signal(SignalKind::from_raw(forwarded as i32)).ok()?;
            Some((forwarded, stream))
        };
        Self { streams: FORWARDED.into_iter().filter_map(catch).collect() }
    }

    /// Catches no signals. Each has its usual effect on kiln.
    pub(crate) fn none() -> Self {
        Self { streams: Vec::new() }
    }

    /// Forwards signals until the task is aborted.
    pub(super) async fn forward(mut self, signaller: Signaller) {
        let mut requests = 0;
        loop {
            let received = self.next().await;
            signaller.send(received as i32);
            if matches!(received, Signal::SIGINT | Signal::SIGTERM) {
                requests += 1;
            }
            if requests >= PATIENCE {
                signaller.send(Signal::SIGKILL as i32);
                tokio::time::sleep(GRACE).await;
                // kiln is still blocked: it writes the command's output to a reader that doesn't
                // read.
                nix::sys::signal::raise(Signal::SIGKILL).unwrap_or_default();
            }
        }
    }

    /// Returns the next signal.
    async fn next(&mut self) -> Signal {
        poll_fn(|context| {
            let received = |(signal, stream): &mut (Signal, Stream)| {
                matches!(stream.poll_recv(context), Poll::Ready(Some(()))).then_some(*signal)
            };
            self.streams.iter_mut().find_map(received).map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}
