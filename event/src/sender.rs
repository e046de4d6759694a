//! The sending half of the channel.

use std::sync::Arc;

use crate::clip::{Clip, LogLimits};
use crate::event::{Event, VertexId};
use crate::queue::{EventReceiver, Queue};
use crate::spool::Spool;
use crate::tail::LogTail;

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
    #[must_use]
    pub fn with_receiver(self, spool: Spool) -> (Self, EventReceiver) {
        let queue = Arc::new(Queue::new(spool));
        let receiver = EventReceiver::new(Arc::clone(&queue));
        let feeds = self.feeds.iter().cloned().chain([Arc::new(Feed(queue))]).collect();
        (Self { feeds, ..self }, receiver)
    }

    /// Returns a sender without receivers, for work that isn't shown.
    pub fn silent() -> Self {
        Self::channels([]).0
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
