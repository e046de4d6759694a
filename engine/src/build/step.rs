//! Steps outside the graph, such as resolving an image or writing an output.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use kiln_event::{Event, EventSender, Reporter, VertexId};
use tokio_util::sync::CancellationToken;

/// The next number of a step outside the graph. It is greater than the numbers of any graph.
static NEXT_STEP: AtomicU32 = AtomicU32::new(1 << 24);

/// A step outside the graph. The display shows it among the graph's steps.
#[derive(Debug)]
pub struct Step<'a> {
    id: VertexId,
    begun: Instant,
    events: &'a EventSender,
}

impl<'a> Step<'a> {
    /// Starts a step and reports it to `events`.
    pub fn begin(events: &'a EventSender, name: String) -> Self {
        let id = Self::number();
        events.send(Event::Vertex { id, name, digest: None, inputs: Vec::new() });
        events.send(Event::Started { id });
        Self { id, begun: Instant::now(), events }
    }

    /// Returns a new number for a step outside of the build's graph.
    pub fn number() -> VertexId {
        NEXT_STEP.fetch_add(1, Ordering::Relaxed)
    }

    /// Returns the step's number.
    pub fn id(&self) -> VertexId {
        self.id
    }

    /// Returns a reporter for work of the step that stops with `cancel`.
    pub fn reporter(&self, cancel: &CancellationToken) -> Reporter {
        Reporter::new(self.id, self.events.clone(), cancel.clone())
    }

    /// Reports that the step succeeded.
    pub fn complete(self) {
        self.events.send(Event::Completed { id: self.id, duration: self.begun.elapsed() });
    }

    /// Reports that the step was cancelled because another one failed.
    pub fn cancel(self) {
        self.events.send(Event::Cancelled { id: self.id });
    }

    /// Reports that the step failed.
    pub fn fail(self, error: &dyn std::fmt::Display) {
        self.events.send(Event::Failed { id: self.id, error: error.to_string() });
    }

    /// Reports the step's end by its result, and returns the result.
    pub fn end<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.complete(),
            Err(error) => self.fail(error),
        }
        result
    }
}
