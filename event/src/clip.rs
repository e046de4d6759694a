//! Limits on the output of steps.
//!
//! Displays and the history receive a step's output. Each stream of a step has a limit on its total
//! bytes and on its average bytes per second since the step began. Output beyond a limit is
//! dropped, and a line in its place names the limit. Output continues once the average allows it.
//! The rules are BuildKit's. [`crate::LogTail`] keeps the end of the output for failure reports
//! separately and ignores these limits.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::event::LogStream;

/// The default limit on a stream's total bytes.
const MAX_SIZE: u64 = 2 << 20;
/// The default limit on a stream's bytes per second.
const MAX_SPEED: u64 = 100 << 10;

/// The limits on the output of each stream of a step. `None` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLimits {
    /// The maximum number of bytes in total.
    pub max_size: Option<u64>,
    /// The maximum number of bytes per second, on average since the step began.
    pub max_speed: Option<u64>,
}

impl Default for LogLimits {
    fn default() -> Self {
        Self { max_size: Some(MAX_SIZE), max_speed: Some(MAX_SPEED) }
    }
}

impl LogLimits {
    /// The value without any limit.
    pub const NONE: Self = Self { max_size: None, max_speed: None };
}

/// The clipping state of one step's streams.
#[derive(Clone, Debug)]
pub(crate) struct Clip {
    limits: LogLimits,
    begun: Instant,
    streams: Arc<Mutex<[Printed; 2]>>,
}

/// The number of bytes that a stream has printed.
#[derive(Debug, Default)]
struct Printed {
    total: u64,
    is_clipped: bool,
}

impl Clip {
    /// Creates the state of a step that begins now.
    pub(crate) fn new(limits: LogLimits) -> Self {
        Self { limits, begun: Instant::now(), streams: Arc::default() }
    }

    /// Returns the part of the output that is within the limits.
    pub(crate) fn pass(&self, stream: LogStream, bytes: Vec<u8>) -> Vec<u8> {
        self.pass_at(self.begun.elapsed(), stream, bytes)
    }

    fn pass_at(&self, age: Duration, stream: LogStream, mut bytes: Vec<u8>) -> Vec<u8> {
        let Some((limit, told)) = self.limit(age) else { return bytes };
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let printed = &mut streams[usize::from(stream == LogStream::Stderr)];
        let room = limit.saturating_sub(printed.total);
        printed.total += bytes.len() as u64;
        if bytes.len() as u64 <= room {
            printed.is_clipped = false;
            return bytes;
        }
        bytes.truncate(usize::try_from(room).unwrap_or(usize::MAX));
        if !printed.is_clipped {
            printed.is_clipped = true;
            bytes.extend(format!("\n[output clipped, log limit {told} reached]\n").bytes());
        }
        bytes
    }

    /// Returns the number of bytes that a stream may have printed at `age`, and the limit in
    /// readable form.
    fn limit(&self, age: Duration) -> Option<(u64, String)> {
        let seconds = age.as_secs() + u64::from(age.subsec_nanos() > 0);
        let by_speed = self.limits.max_speed.map(|speed| (speed.saturating_mul(seconds), speed));
        match (by_speed, self.limits.max_size) {
            (Some((bytes, speed)), size) if size.is_none_or(|size| bytes <= size) => {
                Some((bytes, format!("{}/s", readable(speed))))
            }
            (_, size) => size.map(|size| (size, readable(size))),
        }
    }
}

/// Returns a number of bytes with a binary unit, such as `2MiB`.
fn readable(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1024 => (1, "B"),
        1024..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let text = format!("{:.2}", bytes as f64 / f64::from(unit));
    format!("{}{name}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn output_is_clipped_by_size_once() {
        let clip = Clip::new(LogLimits { max_size: Some(4), max_speed: None });
        let pass = |bytes: &[u8]| text(clip.pass(LogStream::Stdout, bytes.to_vec()));
        assert_eq!(pass(b"abc"), "abc");
        assert_eq!(pass(b"def"), "d\n[output clipped, log limit 4B reached]\n");
        assert_eq!(pass(b"ghi"), "");
        assert_eq!(text(clip.pass(LogStream::Stderr, b"err".to_vec())), "err");
    }

    #[test]
    fn output_goes_on_when_the_average_allows_it() {
        let clip = Clip::new(LogLimits { max_size: Some(1 << 20), max_speed: Some(1024) });
        let pass = |seconds, count| {
            let age = Duration::from_secs(seconds);
            text(clip.pass_at(age, LogStream::Stdout, vec![b'x'; count]))
        };
        assert!(pass(1, 2000).ends_with("x\n[output clipped, log limit 1KiB/s reached]\n"));
        assert_eq!(pass(1, 10), "");
        assert_eq!(pass(3, 10), "x".repeat(10));
    }

    #[test]
    fn nothing_is_clipped_without_limits() {
        let clip = Clip::new(LogLimits::NONE);
        assert_eq!(clip.pass(LogStream::Stdout, vec![0; 8 << 20]).len(), 8 << 20);
        assert_eq!([readable(MAX_SIZE), readable(MAX_SPEED)], ["2MiB", "100KiB"]);
    }
}
