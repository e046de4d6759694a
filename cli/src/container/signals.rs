//! Signals on their way to a container.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use kiln_sandbox::Signaller;
use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The signals that are passed on.
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

/// How many requests to end a command may ignore. As the first process of its namespace it ignores
/// all that it has no handler for.
const PATIENCE: u32 = 3;

/// How long kiln may take to end when the command was killed.
const GRACE: Duration = Duration::from_secs(2);

/// Signals that are caught and wait to be passed on.
#[derive(Debug)]
pub(crate) struct Signals {
    streams: Vec<(Signal, Stream)>,
}

impl Signals {
    /// Catches signals from now on. To be called before the container starts: one that comes when
    /// nobody listens yet has its usual effect, on kiln.
    pub(crate) fn catch() -> Self {
        let catch = |forwarded: Signal| {
            // A signal that can't be listened to keeps its usual effect.
            let stream = signal(SignalKind::from_raw(forwarded as i32)).ok()?;
            Some((forwarded, stream))
        };
        Self { streams: FORWARDED.into_iter().filter_map(catch).collect() }
    }

    /// Catches none: each has its usual effect on kiln.
    pub(crate) fn none() -> Self {
        Self { streams: Vec::new() }
    }

    /// Passes signals on until it is aborted.
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
                // What it has written waits for a reader who doesn't read, and so does kiln.
                nix::sys::signal::raise(Signal::SIGKILL).unwrap_or_default();
            }
        }
    }

    /// Waits for a signal.
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
