//! Everything that happens, on one channel.
//!
//! Sending never waits: a build must not slow down because a terminal does. Several receivers may
//! listen, each at its own pace, and each gets everything: what one of them doesn't take in time
//! waits for it in memory, and what steps print beyond a few mebibytes waits in a file (the
//! `queue` module). Nothing is left out but where that file can't be written.

mod clip;
mod queue;
mod spool;
mod tail;

use std::sync::Arc;
use std::time::Duration;

use kiln_oci::Digest;

use crate::made_of::StepKey;

use self::clip::Clip;
use self::queue::Queue;

pub use self::clip::LogLimits;
pub use self::queue::{EventReceiver, NoEvent};
pub use self::spool::Spool;
pub use self::tail::LogTail;

/// Number of a vertex in the order of its graph; further numbers are given to steps outside of
/// the graph, as resolving an image or writing an output.
pub type VertexId = u32;

/// Where events go. Cheap to clone; sending never waits, and never fails: nobody may be listening.
#[derive(Clone, Debug)]
pub struct EventSender {
    queues: Arc<Queues>,
    limits: LogLimits,
    tail: Option<(VertexId, LogTail, Clip)>,
}

/// The queues of all receivers, which learn of the end when the last sender is gone.
#[derive(Debug)]
struct Queues(Vec<Arc<Queue>>);

impl Drop for Queues {
    fn drop(&mut self) {
        for queue in &self.0 {
            queue.end();
        }
    }
}

impl EventSender {
    /// Returns a sender and a receiver of what it sends, which keeps nothing in files: of a flood
    /// that isn't received a word says how much was left out.
    pub fn channel() -> (Self, EventReceiver) {
        let (sender, receiver) = Self::channels([Spool::none()]);
        let [receiver] = receiver;
        (sender, receiver)
    }

    /// Returns a sender, and for each spool a receiver of all that it sends.
    pub fn channels<const N: usize>(spools: [Spool; N]) -> (Self, [EventReceiver; N]) {
        let queues = spools.map(|spool| Arc::new(Queue::new(spool)));
        let receivers = queues.each_ref().map(|queue| EventReceiver::new(Arc::clone(queue)));
        (
            Self { queues: Arc::new(Queues(queues.into())), limits: LogLimits::NONE, tail: None },
            receivers,
        )
    }

    /// Sends an event.
    pub fn send(&self, mut event: Event) {
        if let Event::Log { id, stream, bytes } = &mut event
            && let Some((tapped, tail, clip)) = &self.tail
            && tapped == id
        {
            tail.push(bytes);
            *bytes = clip.pass(*stream, std::mem::take(bytes));
            if bytes.is_empty() {
                return;
            }
        }
        if let [rest @ .., last] = self.queues.0.as_slice() {
            for queue in rest {
                queue.push(event.clone());
            }
            last.push(event);
        }
    }

    /// Returns a sender whose taps clip what steps print.
    #[must_use]
    pub fn with_log_limits(self, limits: LogLimits) -> Self {
        Self { limits, ..self }
    }

    /// Returns a sender that also keeps the end of what is logged for the vertex `id`.
    #[must_use]
    pub fn tap(&self, id: VertexId) -> (Self, LogTail) {
        let tail = LogTail::default();
        let events =
            Self { tail: Some((id, tail.clone(), Clip::new(self.limits))), ..self.clone() };
        (events, tail)
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vertex is part of the build. Sent once for each, before anything else about it.
    Vertex {
        /// Its number.
        id: VertexId,
        /// Its name, as `[build 2/5] RUN make`.
        name: String,
        /// The digest of its op; `None` for a step outside of the graph.
        digest: Option<Digest>,
        /// The digests of the ops that its op reads, in the op's order.
        inputs: Vec<Digest>,
    },
    /// Its key is known. Sent before the vertex begins to work, or is known; not for ephemeral ones.
    Keyed {
        /// Which.
        id: VertexId,
        /// What the key is made of.
        key: Arc<StepKey>,
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
