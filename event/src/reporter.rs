//! Progress reports of a step and of its parts.

use std::io::Read;
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, LayerState, LogStream, VertexId};
use crate::sender::EventSender;

/// The minimum interval between two reports of a part.
const INTERVAL: Duration = Duration::from_millis(100);

/// The identity of a piece of work: it reports as a step, and stops if it is cancelled. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Reporter {
    /// The number of the step that the work belongs to.
    pub vertex: VertexId,
    /// The channel for the step's output, progress and warnings.
    pub events: EventSender,
    /// The token that is cancelled when the work must stop.
    pub cancel: CancellationToken,
}

impl Reporter {
    /// Creates a reporter for a step.
    pub fn new(vertex: VertexId, events: EventSender, cancel: CancellationToken) -> Self {
        Self { vertex, events, cancel }
    }

    /// Returns a reporter whose reports have no receiver. The work is never cancelled.
    pub fn silent() -> Self {
        Self::silent_until(CancellationToken::new())
    }

    /// Returns a reporter whose reports have no receiver. The work stops when `cancel` is cancelled.
    pub fn silent_until(cancel: CancellationToken) -> Self {
        Self::new(0, EventSender::silent(), cancel)
    }

    /// Returns `true` if the work should stop.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Reports raw output of the step's process.
    pub fn log(&self, stream: LogStream, bytes: Vec<u8>) {
        self.events.send(Event::Log { id: self.vertex, stream, bytes });
    }

    /// Reports the progress of the step's part `name`. `current` and `total` are in bytes; `total` is `None`
    /// if the size is unknown.
    pub fn status(&self, name: &str, current: u64, total: Option<u64>, done: bool) {
        let name = name.to_owned();
        self.events.send(Event::Status { id: self.vertex, name, current, total, done });
    }

    /// Reports a problem that doesn't stop the step.
    pub fn warn(&self, message: impl Into<String>) {
        self.events.send(Event::Warning {
            id: Some(self.vertex),
            message: message.into(),
            cause: None,
        });
    }

    /// Reports the state of a layer in a pull or a push.
    pub fn layer(&self, digest: Digest, state: LayerState) {
        self.events.send(Event::Layer { id: self.vertex, digest, state });
    }

    /// Starts a part, such as a download, with its expected size in bytes.
    pub fn part(&self, name: impl Into<String>, total: Option<u64>) -> Part {
        let (reporter, name) = (self.clone(), name.into());
        let part = Part { reporter, name, total, current: 0, reported: Instant::now() };
        part.report(false);
        part
    }
}

/// A part of a step, such as the download of a layer. A part that is dropped before [`Part::finish`] has
/// failed: the end of the step ends it.
#[derive(Debug)]
pub struct Part {
    reporter: Reporter,
    name: String,
    total: Option<u64>,
    current: u64,
    reported: Instant,
}

impl Part {
    /// Adds `bytes` to the number of processed bytes. Reports it at most ten times per second.
    pub fn advance(&mut self, bytes: u64) {
        self.current += bytes;
        if self.reported.elapsed() >= INTERVAL {
            self.reported = Instant::now();
            self.report(false);
        }
    }

    /// Resets the number of processed bytes to zero.
    pub fn restart(&mut self) {
        self.current = 0;
    }

    /// Reports the end of the part.
    pub fn finish(self) {
        self.report(true);
    }

    fn report(&self, done: bool) {
        self.reporter.status(&self.name, self.current, self.total, done);
    }
}

/// A reader that reports the number of bytes read.
#[derive(Debug)]
pub struct ReportingReader<'a, R> {
    inner: R,
    part: &'a mut Part,
}

impl<'a, R> ReportingReader<'a, R> {
    /// Wraps a reader whose bytes advance `part`.
    pub fn new(inner: R, part: &'a mut Part) -> Self {
        Self { inner, part }
    }
}

impl<R: Read> Read for ReportingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.part.advance(count as u64);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_count_what_is_read_and_start_again() {
        let (events, mut receiver) = EventSender::channel();
        let mut part = Reporter::new(3, events, CancellationToken::new()).part("x", Some(4));
        std::io::copy(&mut ReportingReader::new(&b"lost"[..], &mut part), &mut std::io::sink())
            .unwrap();
        part.restart();
        part.advance(4);
        part.finish();
        let expected = [(0, false), (4, true)];
        for (current, done) in expected {
            let name = "x".to_owned();
            let status = Event::Status { id: 3, name, current, total: Some(4), done };
            assert_eq!(receiver.try_recv(), Some(status));
        }
        assert_eq!(receiver.try_recv(), None);
    }

    #[test]
    fn silent_work_can_be_cancelled() {
        let cancel = CancellationToken::new();
        let reporter = Reporter::silent_until(cancel.clone());
        reporter.part("x", None).finish();
        assert!(!reporter.is_cancelled() && !Reporter::silent().is_cancelled());
        cancel.cancel();
        assert!(reporter.is_cancelled());
    }
}
