//! The end of a step's output, kept for failure reports.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The maximum number of output bytes that are kept.
const TAIL: usize = 64 << 10;

/// A shared buffer with the last bytes of a step's output.
#[derive(Clone, Debug, Default)]
pub struct LogTail(Arc<Mutex<TailBuffer>>);

#[derive(Debug, Default)]
struct TailBuffer {
    bytes: VecDeque<u8>,
    total: u64,
}

impl LogTail {
    /// Returns the kept bytes, at most 64 KiB. Truncated output starts at the beginning of a line.
    pub fn bytes(&self) -> Vec<u8> {
        let kept = self.lock();
        let bytes: Vec<u8> = kept.bytes.iter().copied().collect();
        if bytes.len() as u64 == kept.total {
            return bytes;
        }
        match bytes.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 < bytes.len() => bytes[end + 1..].to_vec(),
            _ => bytes,
        }
    }

    /// Returns the total number of bytes that the step has printed.
    pub fn total(&self) -> u64 {
        self.lock().total
    }

    pub(crate) fn push(&self, bytes: &[u8]) {
        let mut kept = self.lock();
        kept.total += bytes.len() as u64;
        let bytes = &bytes[bytes.len().saturating_sub(TAIL)..];
        let excess = (kept.bytes.len() + bytes.len()).saturating_sub(TAIL);
        kept.bytes.drain(..excess);
        kept.bytes.extend(bytes);
    }

    fn lock(&self) -> MutexGuard<'_, TailBuffer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Event, LogStream};
    use crate::sender::EventSender;

    fn log(id: u32, bytes: &[u8]) -> Event {
        Event::Log { id, stream: LogStream::Stdout, bytes: bytes.to_vec() }
    }

    #[test]
    fn the_tail_is_of_one_vertex_and_whole_lines() {
        let (events, _receiver) = EventSender::channel();
        let (events, tail) = events.tap(1);
        events.send(log(2, b"other\n"));
        events.send(log(1, b"a\nb\n"));
        assert_eq!((tail.bytes().as_slice(), tail.total()), (&b"a\nb\n"[..], 4));
        for number in 0..20_000 {
            events.send(log(1, format!("line {number}\n").as_bytes()));
        }
        let kept = tail.bytes();
        assert!(kept.starts_with(b"line ") && kept.ends_with(b"line 19999\n"));
        assert!(kept.len() <= TAIL && kept.len() > TAIL - 20);
        assert!(tail.total() > 200_000);
    }
}
