//! Signals on their way to a container.

use kiln_worker::sandbox::Signaller;
use nix::sys::signal::Signal;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::mpsc;

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

/// Signals that are caught and wait to be passed on.
#[derive(Debug)]
pub(crate) struct Signals {
    received: mpsc::Receiver<Signal>,
    /// The tasks that listen; they end with this.
    _listeners: tokio::task::JoinSet<()>,
}

impl Signals {
    /// Catches signals from now on. To be called before the container starts: one that comes when
    /// nobody listens yet has its usual effect, on kiln.
    pub(crate) fn catch() -> Self {
        let (sender, received) = mpsc::channel(8);
        let mut listeners = tokio::task::JoinSet::new();
        for forwarded in FORWARDED {
            // A signal that can't be listened to keeps its usual effect.
            if let Ok(stream) = signal(SignalKind::from_raw(forwarded as i32)) {
                listeners.spawn(listen(stream, forwarded, sender.clone()));
            }
        }
        Self { received, _listeners: listeners }
    }

    /// Passes signals on until it is aborted.
    pub(super) async fn forward(mut self, signaller: Signaller) {
        let mut requests = 0;
        while let Some(received) = self.received.recv().await {
            signaller.send(received as i32);
            if matches!(received, Signal::SIGINT | Signal::SIGTERM) {
                requests += 1;
            }
            if requests >= PATIENCE {
                signaller.send(Signal::SIGKILL as i32);
            }
        }
    }
}

async fn listen(mut stream: Stream, forwarded: Signal, sender: mpsc::Sender<Signal>) {
    while stream.recv().await.is_some() {
        if sender.send(forwarded).await.is_err() {
            return;
        }
    }
}
