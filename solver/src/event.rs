//! The channel for all events of a build.
//!
//! Sending never blocks, because a slow terminal must not slow a build down. Several receivers may
//! listen, each at its own pace, and each receives every event. Events that a receiver hasn't taken
//! wait in memory. Step output beyond a few mebibytes waits in a file (see the `queue` module).
//! Output is lost only if that file can't be written.

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

/// The number of a vertex in the order of its graph. Steps outside the graph, such as resolving an
/// image or writing an output, have higher numbers.
pub type VertexId = u32;

/// The sending half of the event channel. Cloning is cheap. Sending never blocks and never fails,
/// even without a receiver.
#[derive(Clone, Debug)]
pub struct EventSender {
    feeds: Arc<[Arc<Feed>]>,
    limits: LogLimits,
    tail: Option<(VertexId, LogTail, Clip)>,
}

/// The sending end of one receiver's queue. Dropping it ends the queue.
#[derive(Debug)]
struct Feed(Arc<Queue>);

impl Drop for Feed {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl EventSender {
    /// Returns a sender and one receiver. The receiver has no spool file: if it falls behind,
    /// excess output is dropped and replaced by a line that says how many bytes are missing.
    pub fn channel() -> (Self, EventReceiver) {
        let (sender, receiver) = Self::channels([Spool::none()]);
        let [receiver] = receiver;
        (sender, receiver)
    }

    /// Returns a sender and one receiver for each spool. Each receiver gets all events.
    pub fn channels<const N: usize>(spools: [Spool; N]) -> (Self, [EventReceiver; N]) {
        let queues = spools.map(|spool| Arc::new(Queue::new(spool)));
        let receivers = queues.each_ref().map(|queue| EventReceiver::new(Arc::clone(queue)));
        let feeds = queues.into_iter().map(|queue| Arc::new(Feed(queue))).collect();
        (Self { feeds, limits: LogLimits::NONE, tail: None }, receivers)
    }

    /// Returns a sender that sends to one more receiver, and that receiver.
    pub fn with_receiver(self, spool: Spool) -> (Self, EventReceiver) {
        let queue = Arc::new(Queue::new(spool));
        let receiver = EventReceiver::new(Arc::clone(&queue));
        let feeds = self.feeds.iter().cloned().chain([Arc::new(Feed(queue))]).collect();
        (Self { feeds, ..self }, receiver)
    }

    /// Sends an event to all receivers.
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
        if let [rest @ .., last] = &*self.feeds {
            for feed in rest {
                feed.0.push(event.clone());
            }
            last.0.push(event);
        }
    }

    /// Returns a sender whose taps limit the output of steps.
    #[must_use]
    pub fn with_log_limits(self, limits: LogLimits) -> Self {
        Self { limits, ..self }
    }

    /// Returns a sender that also keeps the end of the output of the vertex `id`.
    #[must_use]
    pub fn tap(&self, id: VertexId) -> (Self, LogTail) {
        let tail = LogTail::default();
        let events =
            Self { tail: Some((id, tail.clone(), Clip::new(self.limits))), ..self.clone() };
        (events, tail)
    }
}

/// The stream of a process that output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStream {
    /// The process's standard output.
    Stdout,
    /// The process's standard error.
    Stderr,
}

/// An event of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A vertex is part of the build. Sent once for each vertex, before its other events.
    Vertex {
        /// The number of the vertex.
        id: VertexId,
        /// The vertex's display name, such as `[build 2/5] RUN make`.
        name: String,
        /// The digest of the vertex's op. `None` for a step outside the graph.
        digest: Option<Digest>,
        /// The digests of the op's inputs, in the op's order.
        inputs: Vec<Digest>,
    },
    /// The vertex's key is known. Sent before the vertex starts or is found in the cache. Not sent
    /// for ephemeral vertices.
    Keyed {
        /// The number of the vertex.
        id: VertexId,
        /// The key and the parts that it depends on.
        key: Arc<StepKey>,
    },
    /// The vertex has started to run.
    Started {
        /// The number of the vertex.
        id: VertexId,
    },
    /// The vertex's result came from the cache or isn't needed.
    Cached {
        /// The number of the vertex.
        id: VertexId,
    },
    /// The vertex has run successfully.
    Completed {
        /// The number of the vertex.
        id: VertexId,
        /// The run time of the vertex.
        duration: Duration,
    },
    /// The vertex has failed.
    Failed {
        /// The number of the vertex.
        id: VertexId,
        /// The text of the error.
        error: String,
    },
    /// The vertex was cancelled, by the user or because another vertex failed.
    Cancelled {
        /// The number of the vertex.
        id: VertexId,
    },
    /// The progress of a part of a vertex, such as the download of a layer.
    Status {
        /// The number of the vertex.
        id: VertexId,
        /// The part's name, such as `sha256:… extracting`.
        name: String,
        /// The number of bytes done.
        current: u64,
        /// The total number of bytes, if known.
        total: Option<u64>,
        /// `true` if the part is complete.
        done: bool,
    },
    /// Output of a process, in the chunks that the process wrote. Chunks don't end at line ends.
    Log {
        /// The number of the vertex.
        id: VertexId,
        /// The stream that the process wrote to.
        stream: LogStream,
        /// The raw output, in any encoding.
        bytes: Vec<u8>,
    },
    /// A warning for the user.
    Warning {
        /// The number of the vertex that the warning is about, if any.
        id: Option<VertexId>,
        /// The text of the warning.
        message: String,
    },
}
