//! The state of a build's steps for the displays.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kiln_event::VertexId;

use super::text::Lines;

/// The steps of a build by their vertex.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: BTreeMap<VertexId, Step>,
    numbers: usize,
}

/// The state of a step.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// The step's name without control characters.
    pub(super) name: String,
    /// The step's number, in the order in which steps are first shown; zero before that.
    pub(super) number: usize,
    /// The time of the step's start.
    pub(super) begun: Option<Instant>,
    /// The incomplete line of the step's output.
    pub(super) lines: Lines,
    /// The step's parts by name, such as downloads of layers.
    pub(super) parts: BTreeMap<String, Part>,
}

/// A part of a step.
#[derive(Debug)]
pub(super) struct Part {
    /// The number of finished bytes.
    pub(super) current: u64,
    /// The number of all bytes, if it is known.
    pub(super) total: Option<u64>,
    /// The time of the part's start.
    pub(super) begun: Instant,
    /// The time at which the part was last shown.
    pub(super) shown: Option<Instant>,
}

impl Steps {
    /// Adds a step or sets its name.
    pub(super) fn add(&mut self, id: VertexId, name: &str) {
        let name = super::text::clean(name.replace('\n', " ").as_bytes());
        self.steps.entry(id).or_default().name = name;
    }

    /// Returns a step. Adds an unnamed one if it is unknown.
    pub(super) fn get(&mut self, id: VertexId) -> &mut Step {
        self.steps.entry(id).or_default()
    }

    /// Returns a step's number, and `true` if it was assigned just now.
    pub(super) fn number(&mut self, id: VertexId) -> (usize, bool) {
        let next = self.numbers + 1;
        let step = self.get(id);
        if step.number != 0 {
            return (step.number, false);
        }
        step.number = next;
        self.numbers = next;
        (next, true)
    }

    /// Returns the vertices of all steps.
    pub(super) fn ids(&self) -> Vec<VertexId> {
        self.steps.keys().copied().collect()
    }

    /// Returns the number of steps.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }
}

/// Formats a duration in seconds with one decimal place.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Formats the progress of a part, such as `1.2MB / 3.4MB`.
pub(super) fn extent(current: u64, total: Option<u64>) -> String {
    let current = crate::rendering::printer::human_size(current);
    match total {
        Some(total) => format!("{current} / {}", crate::rendering::printer::human_size(total)),
        None => current,
    }
}

/// Creates the event that announces a step.
#[cfg(test)]
pub(super) fn vertex(id: VertexId, name: &str) -> kiln_event::Event {
    kiln_event::Event::Vertex { id, name: name.to_owned(), digest: None, inputs: vec![] }
}
