//! The queue of one receiver.
//!
//! Events wait in memory, in their order. The memory for step output is bounded. Consecutive small
//! pieces are merged. Once a few mebibytes wait, further output goes to the spool's file, and the
//! queue holds only its length, until the receiver has caught up. Memory stays bounded however slow
//! the receiver is, and no output is lost while the disk has space.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::event::{Event, LogStream, VertexId};
use crate::spool::{Spool, SpoolFile};

/// The maximum number of output bytes that wait in memory.
const IN_MEMORY: usize = 4 << 20;
/// The maximum number of output bytes in a merged event.
const PIECE: usize = 64 << 10;

/// The events that wait for one receiver.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// Wakes a receiver that waits as a task or as a thread.
    arrived: Notify,
    arrived_blocking: Condvar,
}

#[derive(Debug)]
struct State {
    entries: VecDeque<Entry>,
    /// The number of output bytes in memory.
    in_memory: usize,
    spool: Spool,
    file: Option<SpoolFile>,
    /// The number of output bytes that fit neither in memory nor in the file.
    left_out: u64,
    senders_gone: bool,
    receiver_gone: bool,
}

#[derive(Debug)]
enum Entry {
    Event(Event),
    /// The length of consecutive records in the spool's file, in bytes.
    Spooled(u64),
}

impl Queue {
    pub(crate) fn new(spool: Spool) -> Self {
        let state = State {
            entries: VecDeque::new(),
            in_memory: 0,
            spool,
            file: None,
            left_out: 0,
            senders_gone: false,
            receiver_gone: false,
        };
        Self { state: Mutex::new(state), arrived: Notify::new(), arrived_blocking: Condvar::new() }
    }

    pub(crate) fn push(&self, event: Event) {
        let mut state = self.lock();
        // A cancelled build drops its receiver before its senders and needs no more events.
        if state.receiver_gone {
            return;
        }
        match event {
            Event::Log { id, stream, bytes } => state.push_log(id, stream, bytes),
            event => state.entries.push_back(Entry::Event(event)),
        }
        drop(state);
        self.wake();
    }

    /// Marks the queue as complete: all senders are gone.
    pub(crate) fn end(&self) {
        self.lock().senders_gone = true;
        self.wake();
    }

    fn wake(&self) {
        self.arrived.notify_one();
        self.arrived_blocking.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn push_log(&mut self, id: VertexId, stream: LogStream, mut bytes: Vec<u8>) {
        if self.file.as_ref().is_some_and(|file| file.waiting() > 0) {
            // New output must not overtake output in the file.
            return self.spool(id, stream, &bytes);
        }
        if let Some(Entry::Event(Event::Log { id: last, stream: from, bytes: before })) =
            self.entries.back_mut()
            && (*last, *from) == (id, stream)
            && before.len() + bytes.len() <= PIECE
        {
            self.in_memory += bytes.len();
            before.append(&mut bytes);
            return;
        }
        if self.in_memory + bytes.len() > IN_MEMORY {
            return self.spool(id, stream, &bytes);
        }
        self.in_memory += bytes.len();
        self.entries.push_back(Entry::Event(Event::Log { id, stream, bytes }));
    }

    fn spool(&mut self, id: VertexId, stream: LogStream, bytes: &[u8]) {
        if self.file.is_none() {
            self.file = self.spool.open().ok();
        }
        let spooled = self.file.as_mut().and_then(|file| file.push(id, stream, bytes).ok());
        match (spooled, self.entries.back_mut()) {
            (Some(length), Some(Entry::Spooled(before))) => *before += length,
            (Some(length), _) => self.entries.push_back(Entry::Spooled(length)),
            (None, _) => self.left_out += bytes.len() as u64,
        }
    }

    fn pop(&mut self) -> Option<Event> {
        let event = match self.entries.pop_front()? {
            Entry::Event(event) => {
                if let Event::Log { bytes, .. } = &event {
                    self.in_memory -= bytes.len();
                }
                event
            }
            Entry::Spooled(length) => self.unspool(length)?,
        };
        Some(self.with_what_was_left_out(event))
    }

    /// Takes the first record of a spooled run of `length` bytes.
    fn unspool(&mut self, length: u64) -> Option<Event> {
        let Some(Ok((event, taken))) = self.file.as_mut().map(SpoolFile::pop) else {
            // The rest of an unreadable file is lost.
            self.left_out += length;
            self.file = None;
            return self.pop();
        };
        if taken < length {
            self.entries.push_front(Entry::Spooled(length - taken));
        }
        Some(event)
    }

    fn with_what_was_left_out(&mut self, event: Event) -> Event {
        match event {
            // The note about lost output follows the last kept output, where the gap is.
            Event::Log { id, stream, mut bytes } if self.left_out > 0 && !self.has_logs() => {
                let left_out = std::mem::take(&mut self.left_out);
                bytes.extend(format!("\n[{left_out} bytes of output left out]\n").into_bytes());
                Event::Log { id, stream, bytes }
            }
            event => event,
        }
    }

    fn has_logs(&self) -> bool {
        self.in_memory > 0 || self.file.as_ref().is_some_and(|file| file.waiting() > 0)
    }
}

/// The receiving half of the event channel.
#[derive(Debug)]
pub struct EventReceiver {
    queue: Arc<Queue>,
}

impl EventReceiver {
    pub(crate) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Waits for the next event. Returns `None` once every sender is gone and the queue is empty.
    /// This method is cancel safe.
    pub async fn recv(&mut self) -> Option<Event> {
        loop {
            match self.next() {
                Next::Event(event) => return Some(event),
                Next::End => return None,
                Next::Nothing => self.queue.arrived.notified().await,
            }
        }
    }

    /// Returns the next event without waiting.
    pub fn try_recv(&mut self) -> Option<Event> {
        match self.next() {
            Next::Event(event) => Some(event),
            Next::End | Next::Nothing => None,
        }
    }

    /// Waits up to `limit` for the next event. Blocks the thread, so call it outside the async
    /// runtime.
    ///
    /// # Errors
    /// Returns [`NoEvent::Timeout`] after `limit` and [`NoEvent::End`] once every sender is gone.
    pub fn recv_timeout(&mut self, limit: Duration) -> Result<Event, NoEvent> {
        let deadline = Instant::now() + limit;
        let mut state = self.queue.lock();
        loop {
            if let Some(event) = state.pop() {
                return Ok(event);
            }
            if state.senders_gone {
                return Err(NoEvent::End);
            }
            let rest = deadline.saturating_duration_since(Instant::now());
            if rest.is_zero() {
                return Err(NoEvent::Timeout);
            }
            let waited = self.queue.arrived_blocking.wait_timeout(state, rest);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn next(&self) -> Next {
        let mut state = self.queue.lock();
        match state.pop() {
            Some(event) => Next::Event(event),
            None if state.senders_gone => Next::End,
            None => Next::Nothing,
        }
    }
}

impl Drop for EventReceiver {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.receiver_gone = true;
        state.entries.clear();
        state.file = None;
    }
}

enum Next {
    Event(Event),
    Nothing,
    End,
}

/// The reason why [`EventReceiver::recv_timeout`] returned no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEvent {
    /// No event came before the time limit.
    Timeout,
    /// Every sender is gone and the queue is empty.
    End,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sender::EventSender;

    fn log(bytes: &[u8]) -> Event {
        Event::Log { id: 1, stream: LogStream::Stdout, bytes: bytes.to_vec() }
    }

    fn spool() -> Spool {
        Spool::with(tempfile::tempfile)
    }

    /// Returns the bytes of all received output.
    fn drained(receiver: &mut EventReceiver) -> Vec<u8> {
        let mut all = Vec::new();
        while let Some(event) = receiver.try_recv() {
            if let Event::Log { bytes, .. } = event {
                all.extend(bytes);
            }
        }
        all
    }

    #[test]
    fn a_flood_waits_in_a_file_and_arrives_whole_and_in_order() {
        let (events, [mut slow, mut quick]) = EventSender::channels([spool(), spool()]);
        let mut sent: Vec<u8> = Vec::new();
        for round in 0..40_u32 {
            let chunk: Vec<u8> =
                (0..50_000_u32).flat_map(|word| (word ^ round << 16).to_le_bytes()).collect();
            events.send(log(&chunk));
            sent.extend(&chunk);
            let waits = quick.queue.lock().entries.len();
            assert_eq!(drained(&mut quick), chunk, "{waits}");
            assert!(slow.queue.lock().in_memory <= IN_MEMORY);
        }
        assert!(slow.queue.lock().entries.len() < 30, "few entries for a large file");
        assert!(slow.queue.lock().file.as_ref().unwrap().waiting() > 3 << 20);
        assert!(quick.queue.lock().file.is_none());
        assert!(drained(&mut slow) == sent);
        // The file is empty, so new output waits in memory again.
        events.send(log(b"end"));
        assert_eq!(slow.queue.lock().in_memory, 3);
        assert_eq!(drained(&mut slow), b"end");
    }

    #[test]
    fn other_events_keep_their_place_among_spooled_output() {
        let (events, [mut receiver]) = EventSender::channels([spool()]);
        let chunk = vec![b'x'; IN_MEMORY];
        let mut order = Vec::new();
        for id in 0..4 {
            events.send(Event::Started { id });
            events.send(Event::Log { id, stream: LogStream::Stderr, bytes: chunk.clone() });
            events.send(Event::Log { id, stream: LogStream::Stderr, bytes: b"1".to_vec() });
            events.send(Event::Log { id, stream: LogStream::Stdout, bytes: b"2".to_vec() });
            events.send(Event::Completed { id, duration: Duration::ZERO });
        }
        while let Some(event) = receiver.try_recv() {
            match event {
                Event::Started { id } => order.push(format!("start {id}")),
                Event::Log { id, stream, bytes } => {
                    order.push(format!("{stream:?} {id} {}", bytes.len()));
                }
                Event::Completed { id, .. } => order.push(format!("end {id}")),
                _ => {}
            }
        }
        let expected = (0..4).flat_map(|id| {
            let large = format!("Stderr {id} {IN_MEMORY}");
            let small = [format!("Stderr {id} 1"), format!("Stdout {id} 1"), format!("end {id}")];
            [format!("start {id}"), large].into_iter().chain(small)
        });
        assert_eq!(order, expected.collect::<Vec<_>>());
    }

    #[test]
    fn small_pieces_are_put_together() {
        let (events, mut receiver) = EventSender::channel();
        for _ in 0..100_000 {
            events.send(log(b"x"));
        }
        assert_eq!(receiver.queue.lock().entries.len(), 2);
        assert_eq!(drained(&mut receiver).len(), 100_000);
    }

    #[test]
    fn without_a_file_a_flood_is_cut_and_said_so() {
        let (events, mut receiver) = EventSender::channel();
        let chunk = vec![b'x'; 1 << 20];
        for _ in 0..20 {
            events.send(log(&chunk));
        }
        let received = drained(&mut receiver);
        let note = format!("\n[{} bytes of output left out]\n", 16 << 20);
        assert_eq!(received.len(), (4 << 20) + note.len());
        assert!(received.ends_with(note.as_bytes()));
        events.send(log(b"end"));
        assert_eq!(drained(&mut receiver), b"end");
    }

    #[test]
    fn the_end_is_told() {
        let (events, mut receiver) = EventSender::channel();
        let moment = Duration::from_millis(1);
        assert_eq!(receiver.recv_timeout(moment), Err(NoEvent::Timeout));
        events.clone().send(log(b"x"));
        assert_eq!(receiver.recv_timeout(moment), Ok(log(b"x")));
        let waiting = std::thread::spawn(move || receiver.recv_timeout(Duration::from_mins(1)));
        drop(events);
        assert_eq!(waiting.join().unwrap(), Err(NoEvent::End));
    }

    #[tokio::test]
    async fn tasks_wait_for_events() {
        let (events, mut receiver) = EventSender::channel();
        let waiting = async { (receiver.recv().await, receiver.recv().await) };
        let sending = async {
            tokio::task::yield_now().await;
            events.send(log(b"x"));
            tokio::task::yield_now().await;
            drop(events);
        };
        let ((first, last), ()) = tokio::join!(waiting, sending);
        assert_eq!((first, last), (Some(log(b"x")), None));
    }
}
