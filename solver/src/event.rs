//! Everything that happens, on one channel.
//!
//! Sending never waits: a build must not slow down because a terminal does. What keeps a step that
//! floods its output from filling the memory is a limit on the log bytes that wait to be received;
//! what comes above it is left out, and a line in its place says how much that was. Events of other
//! kinds are never left out.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;

/// Number of a vertex in the order of its graph; further numbers are given to steps outside of
/// the graph, as resolving an image or writing an output.
pub type VertexId = u32;

/// How many log bytes may wait for the receiver.
const LOG_BACKLOG: usize = 8 << 20;

/// How much of the end of a step's output is kept for the report of its failure.
const TAIL: usize = 64 << 10;

/// Where events go. Cheap to clone; sending never waits, and never fails: nobody may be listening.
#[derive(Clone, Debug)]
pub struct EventSender {
    sender: mpsc::UnboundedSender<Event>,
    backlog: Arc<Backlog>,
    tail: Option<(VertexId, LogTail)>,
}

/// Where events come from.
#[derive(Debug)]
pub struct EventReceiver {
    receiver: mpsc::UnboundedReceiver<Event>,
    backlog: Arc<Backlog>,
}

/// Log bytes on their way.
#[derive(Debug, Default)]
struct Backlog {
    waiting: AtomicUsize,
    left_out: AtomicU64,
}

impl EventSender {
    /// Returns a sender and the receiver of what it sends.
    pub fn channel() -> (Self, EventReceiver) {
        let (sender, receiver) = mpsc::unbounded_channel();
        let backlog = Arc::new(Backlog::default());
        let events = Self { sender, backlog: Arc::clone(&backlog), tail: None };
        (events, EventReceiver { receiver, backlog })
    }

    /// Sends an event.
    pub fn send(&self, event: Event) {
        if let Event::Log { id, stream, bytes } = event {
            self.log(id, stream, bytes);
        } else {
            self.pass(event);
        }
    }

    /// Returns a sender that also keeps the end of what is logged for the vertex `id`.
    #[must_use]
    pub fn tap(&self, id: VertexId) -> (Self, LogTail) {
        let tail = LogTail::default();
        let events = Self { tail: Some((id, tail.clone())), ..self.clone() };
        (events, tail)
    }

    fn log(&self, id: VertexId, stream: LogStream, bytes: Vec<u8>) {
        if let Some((tapped, tail)) = &self.tail
            && *tapped == id
        {
            tail.push(&bytes);
        }
        let length = bytes.len();
        if self.backlog.waiting.load(Ordering::Relaxed) + length > LOG_BACKLOG {
            self.backlog.left_out.fetch_add(length as u64, Ordering::Relaxed);
            return;
        }
        let left_out = self.backlog.left_out.swap(0, Ordering::Relaxed);
        let bytes = if left_out == 0 {
            bytes
        } else {
            let mut noted = format!("\n[{left_out} bytes of output left out]\n").into_bytes();
            noted.extend_from_slice(&bytes);
            noted
        };
        self.backlog.waiting.fetch_add(bytes.len(), Ordering::Relaxed);
        self.pass(Event::Log { id, stream, bytes });
    }

    fn pass(&self, event: Event) {
        // The receiver goes first where a build is cut short: events are of no use then.
        let _ = self.sender.send(event);
    }
}

impl EventReceiver {
    /// Waits for the next event; `None` when every sender is gone. Safe to cancel.
    pub async fn recv(&mut self) -> Option<Event> {
        let event = self.receiver.recv().await;
        self.received(event)
    }

    /// Returns the next event if there is one already.
    pub fn try_recv(&mut self) -> Result<Event, mpsc::error::TryRecvError> {
        let event = self.receiver.try_recv()?;
        self.note(&event);
        Ok(event)
    }

    /// Waits for the next event on a thread outside of the runtime.
    pub fn blocking_recv(&mut self) -> Option<Event> {
        let event = self.receiver.blocking_recv();
        self.received(event)
    }

    fn received(&self, event: Option<Event>) -> Option<Event> {
        event.inspect(|event| self.note(event))
    }

    fn note(&self, event: &Event) {
        if let Event::Log { bytes, .. } = event {
            self.backlog.waiting.fetch_sub(bytes.len(), Ordering::Relaxed);
        }
    }
}

/// The end of a step's output.
#[derive(Clone, Debug, Default)]
pub struct LogTail(Arc<Mutex<VecDeque<u8>>>);

impl LogTail {
    /// Returns what is kept: at most 64 KiB, from the start of a line where something was cut off.
    pub fn bytes(&self) -> Vec<u8> {
        let kept: Vec<u8> = self.lock().iter().copied().collect();
        if kept.len() < TAIL {
            return kept;
        }
        match kept.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 < kept.len() => kept[end + 1..].to_vec(),
            _ => kept,
        }
    }

    fn push(&self, bytes: &[u8]) {
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let mut kept = self.lock();
        let excess = (kept.len() + bytes.len()).saturating_sub(TAIL);
        kept.drain(..excess);
        kept.extend(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn log(bytes: &[u8]) -> Event {
        Event::Log { id: 1, stream: LogStream::Stdout, bytes: bytes.to_vec() }
    }

    #[test]
    fn a_flood_is_cut_and_said_so() {
        let (events, mut receiver) = EventSender::channel();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            events.send(log(&chunk));
        }
        let mut received = 0;
        while receiver.try_recv().is_ok() {
            received += 1;
        }
        assert_eq!(received, 8);
        events.send(log(b"end"));
        let note = format!("\n[{} bytes of output left out]\nend", 12 << 20);
        assert_eq!(receiver.try_recv(), Ok(log(note.as_bytes())));
    }

    #[test]
    fn the_tail_is_of_one_vertex_and_whole_lines() {
        let (events, _receiver) = EventSender::channel();
        let (events, tail) = events.tap(1);
        events.send(Event::Log { id: 2, stream: LogStream::Stderr, bytes: b"other\n".to_vec() });
        events.send(log(b"a\nb\n"));
        assert_eq!(tail.bytes(), b"a\nb\n");
        for number in 0..20_000 {
            events.send(log(format!("line {number}\n").as_bytes()));
        }
        let kept = tail.bytes();
        assert!(kept.starts_with(b"line ") && kept.ends_with(b"line 19999\n"));
        assert!(kept.len() <= TAIL && kept.len() > TAIL - 20);
    }
}
