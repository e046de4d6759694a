//! What is known of the steps of a build.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kiln_solver::VertexId;

use super::text::Lines;

/// The steps of a build by their vertex.
#[derive(Debug, Default)]
pub(super) struct Steps {
    steps: BTreeMap<VertexId, Step>,
    numbers: usize,
}

/// A step.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Its name, safe to show.
    pub(super) name: String,
    /// Its number in the order in which steps are first shown; zero until then.
    pub(super) number: usize,
    /// When it began.
    pub(super) begun: Option<Instant>,
    /// Lines of its output that aren't complete yet.
    pub(super) lines: Lines,
    /// Its parts, as layers that are downloaded.
    pub(super) parts: BTreeMap<String, Part>,
}

/// Part of a step.
#[derive(Debug)]
pub(super) struct Part {
    /// How much is done, in bytes.
    pub(super) current: u64,
    /// How much there is.
    pub(super) total: Option<u64>,
    /// When it began.
    pub(super) begun: Instant,
    /// When it was last shown.
    pub(super) shown: Option<Instant>,
}

impl Steps {
    /// Takes in a step.
    pub(super) fn add(&mut self, id: VertexId, name: &str) {
        let name = super::text::clean(name.replace('\n', " ").as_bytes());
        self.steps.entry(id).or_default().name = name;
    }

    /// Returns a step; one that nobody has heard of is taken in without a name.
    pub(super) fn get(&mut self, id: VertexId) -> &mut Step {
        self.steps.entry(id).or_default()
    }

    /// Returns the number that a step is shown with, and whether it is new.
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

    /// Returns the vertices.
    pub(super) fn ids(&self) -> Vec<VertexId> {
        self.steps.keys().copied().collect()
    }

    /// Returns how many steps there are.
    pub(super) fn len(&self) -> usize {
        self.steps.len()
    }
}

/// Returns a time span in seconds, with a digit behind the point.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1}s", duration.as_secs_f64())
}

/// Returns how far a part has come, as `1.2MB / 3.4MB`.
pub(super) fn extent(current: u64, total: Option<u64>) -> String {
    let current = crate::printer::human_size(current);
    match total {
        Some(total) => format!("{current} / {}", crate::printer::human_size(total)),
        None => current,
    }
}
