//! Everything that happens, on one channel.

use std::time::Duration;

use tokio::sync::mpsc;

/// Number of a vertex in the order of its graph; further numbers are given to steps outside of
/// the graph, as resolving an image or writing an output.
pub type VertexId = u32;

/// Where events go. Cheap to clone; sending never waits, and never fails: nobody may be listening.
#[derive(Clone, Debug)]
pub struct EventSender(mpsc::UnboundedSender<Event>);

impl EventSender {
    /// Returns a sender and the receiver of what it sends.
    pub fn channel() -> (Self, mpsc::UnboundedReceiver<Event>) {
        let (sender, receiver) = mpsc::unbounded_channel();
        (Self(sender), receiver)
    }

    /// Sends an event.
    pub fn send(&self, event: Event) {
        // The receiver goes first where a build is cut short: events are of no use then.
        let _ = self.0.send(event);
    }
}

/// Which stream of a process a log line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A vertex is part of the build. Sent once for each, before anything else about it.
    Vertex {
        /// Its number.
        id: VertexId,
        /// Its name, as `[build 2/5] RUN make`.
        name: String,
    },
    /// It began to work.
    Started {
        /// Which.
        id: VertexId,
    },
    /// Its result was known.
    Cached {
        /// Which.
        id: VertexId,
    },
    /// It did its work.
    Completed {
        /// Which.
        id: VertexId,
        /// How long it took.
        duration: Duration,
    },
    /// It failed.
    Failed {
        /// Which.
        id: VertexId,
        /// Why.
        error: String,
    },
    /// It was cancelled because another failed, or by the user.
    Cancelled {
        /// Which.
        id: VertexId,
    },
    /// Progress of part of a vertex, as a layer that is downloaded.
    Status {
        /// Which vertex.
        id: VertexId,
        /// The part, as `sha256:… extracting`.
        name: String,
        /// How much is done, in bytes.
        current: u64,
        /// How much there is, where that is known.
        total: Option<u64>,
        /// Whether the part is done.
        done: bool,
    },
    /// Output of a process, as it came: not cut at line ends.
    Log {
        /// Which vertex.
        id: VertexId,
        /// Which stream.
        stream: LogStream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Something to be told.
    Warning {
        /// Which vertex, where it belongs to one.
        id: Option<VertexId>,
        /// The text.
        message: String,
    },
}
