//! The channel that a build reports to.

use kiln_event::{EventReceiver, EventSender, Spool};
use kiln_store::Store;
use tokio_util::sync::CancellationToken;

/// A receiver's end of a build: its events go there, and its token stops the build.
#[derive(Clone, Debug)]
pub struct Monitor {
    /// The sender of the build's events.
    pub events: EventSender,
    /// The token that stops the build.
    pub cancel: CancellationToken,
}

impl Monitor {
    /// Returns a monitor and the receiver of its events. The receiver ends with the build.
    pub fn channel() -> (Self, EventReceiver) {
        let (events, receiver) = EventSender::channel();
        (Self { events, cancel: CancellationToken::new() }, receiver)
    }
}

/// Returns a buffer for events that a receiver has not taken yet. It is an unnamed file in the
/// store's temporary area.
pub fn spool(store: &Store) -> Spool {
    let store = store.clone();
    Spool::with(move || store.temp_file().map_err(std::io::Error::other))
}
