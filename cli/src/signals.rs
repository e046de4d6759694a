//! Signals that end a build.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Cancels `cancel` on the first SIGINT, SIGTERM or SIGHUP; on the second the process ends at
/// once, and what it leaves is swept up by the next.
pub(crate) async fn watch(cancel: CancellationToken) {
    let streams = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
        signal(SignalKind::hangup()),
    );
    let (Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)) = streams else { return };
    let mut first = true;
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
        if !std::mem::take(&mut first) {
            // Nothing can be waited for any more: steps die with their process.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
                .unwrap_or_default();
        }
        cancel.cancel();
    }
}
