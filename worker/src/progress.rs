//! Progress reports about parts of a step.

use std::time::{Duration, Instant};

use kiln_solver::{Event, EventSender, StepContext, VertexId};

/// The minimum interval between two reports of a part.
const INTERVAL: Duration = Duration::from_millis(100);

/// The receiver of a step's progress reports, if there is one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress(Option<(VertexId, EventSender)>);

impl Progress {
    pub(crate) fn of(context: &StepContext) -> Self {
        Self(Some((context.vertex, context.events.clone())))
    }

    pub(crate) fn of_step(step: VertexId, events: &EventSender) -> Self {
        Self(Some((step, events.clone())))
    }

    pub(crate) fn silent() -> Self {
        Self(None)
    }

    /// Starts a part, such as a download, with its expected size in bytes.
    pub(crate) fn part(&self, name: String, total: Option<u64>) -> Part {
        let part = Part {
            progress: self.clone(),
            name,
            total,
            current: 0,
            reported: Instant::now(),
            finished: false,
        };
        part.report(false);
        part
    }
}

/// A part of a step, such as the download of a layer.
#[derive(Debug)]
pub(crate) struct Part {
    progress: Progress,
    name: String,
    total: Option<u64>,
    current: u64,
    reported: Instant,
    finished: bool,
}

impl Part {
    /// Adds `bytes` to the number of processed bytes.
    pub(crate) fn advance(&mut self, bytes: u64) {
        self.current += bytes;
        if self.reported.elapsed() >= INTERVAL {
            self.reported = Instant::now();
            self.report(false);
        }
    }

    /// Resets the number of processed bytes to zero.
    pub(crate) fn restart(&mut self) {
        self.current = 0;
    }

    /// Reports the end of the part.
    pub(crate) fn finish(mut self) {
        self.finished = true;
        self.report(true);
    }

    fn report(&self, done: bool) {
        let Some((id, events)) = &self.progress.0 else { return };
        events.send(Event::Status {
            id: *id,
            name: self.name.clone(),
            current: self.current,
            total: self.total,
            done,
        });
    }
}

/// A reader that reports the number of bytes read.
#[derive(Debug)]
pub(crate) struct ReportingReader<'a, R> {
    inner: R,
    part: &'a mut Part,
}

impl<'a, R> ReportingReader<'a, R> {
    pub(crate) fn new(inner: R, part: &'a mut Part) -> Self {
        Self { inner, part }
    }
}

impl<R: std::io::Read> std::io::Read for ReportingReader<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.part.advance(count as u64);
        Ok(count)
    }
}
