//! The order of waiting steps: the longest remaining path goes first.
//!
//! A step's weight is the time that steps of its kind took in earlier builds, whatever their inputs
//! were. A changed input changes the key but seldom the duration. A step that the history doesn't
//! have gets the average weight of the others. With an empty history all steps weigh the same, and
//! the number of steps on the path decides.
//!
//! The driver reads the history when it orders the first step. A build whose targets are all cached
//! never reads it.
//!
//! Steps become runnable one after the other, as their lookups and locks complete. If more steps
//! are on the way than jobs are free, the first arrival must not take the job of a more urgent step
//! that arrives a moment later. It waits for the more urgent steps, but not for long: another build
//! may hold their locks.

use std::cmp::Reverse;
use std::time::Duration;

use kiln_oci::Digest;
use tokio::time::{Instant, sleep_until};

use super::Driver;
use crate::cache::Cache;
use crate::executor::Executor;
use crate::plan::Step;

/// The sort key of a queue of steps; the largest goes first. The duration is that of the longest
/// path from the step to a target. Steps with equal durations keep the order of the graph.
pub(super) type Priority = (Duration, Reverse<usize>);

/// The maximum time that a runnable step waits for more urgent steps.
const PATIENCE: Duration = Duration::from_millis(50);

/// The minimum weight of a step, so that a path of more steps still counts as longer.
const LEAST: Duration = Duration::from_micros(1);

impl<E, C> Driver<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    /// Returns the sort key of a waiting step.
    pub(super) fn priority(&mut self, number: usize) -> Priority {
        let remaining = self.remaining.get_or_insert_with(|| {
            let kinds: Vec<Digest> = self.plan.steps.iter().map(Step::kind).collect();
            // An unreadable history changes the order but not the result.
            let known = self.world.cache.durations(&kinds).unwrap_or_default();
            remaining(&self.plan.steps, &known)
        });
        (remaining[number], Reverse(number))
    }

    /// Returns `true` if the most urgent runnable step should start now.
    pub(super) fn is_next_due(&mut self) -> bool {
        let free = self.options.jobs.max(1).saturating_sub(self.running);
        let Some(next) = self.runnable.peek().copied().filter(|_| free > 0) else {
            self.patience = None;
            return false;
        };
        let arriving: Vec<usize> = self.arriving.iter().copied().collect();
        let before = |number: &usize| self.priority(*number) > next;
        let is_due = arriving.into_iter().filter(before).take(free).count() < free;
        if is_due || self.patience.is_some_and(|until| until <= Instant::now()) {
            self.patience = None;
            return true;
        }
        self.patience.get_or_insert_with(|| Instant::now() + PATIENCE);
        false
    }

    /// Records how long a step ran.
    pub(super) fn took(&mut self, number: usize, duration: Duration) {
        let step = &self.plan.steps[number];
        if !step.rule.hidden && !step.rule.ephemeral {
            self.took.push((step.kind(), duration));
        }
    }

    /// Writes this build's durations to the history, even if the build fails.
    pub(super) fn remember(&mut self) {
        let took = std::mem::take(&mut self.took);
        if !took.is_empty() {
            // An unwritable history only affects the order of later builds.
            let _ = self.world.cache.note_durations(&took);
        }
    }
}

/// Waits until the given time, or for ever if there is no time limit.
pub(super) async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Returns the duration of the longest path from each step to a target. `known` are the durations
/// from the history; it may be shorter than `steps`.
fn remaining(steps: &[Step], known: &[Option<Duration>]) -> Vec<Duration> {
    let known = |number: usize| known.get(number).copied().flatten();
    let told: Vec<Duration> = (0..steps.len()).filter_map(known).collect();
    let average = told.iter().sum::<Duration>().checked_div(told.len() as u32);
    let average = average.unwrap_or(LEAST);
    let mut remaining = vec![Duration::ZERO; steps.len()];
    // Users come after their inputs, so this order computes the users' values first.
    for (number, step) in steps.iter().enumerate().rev() {
        let weight = if step.rule.hidden { LEAST } else { known(number).unwrap_or(average) };
        let after = step.users.iter().map(|user| remaining[*user]).max().unwrap_or_default();
        remaining[number] = weight.max(LEAST) + after;
    }
    remaining
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::CacheRule;

    fn step(users: &[usize]) -> Step {
        Step {
            name: String::new(),
            rule: CacheRule::default(),
            salt: Vec::new(),
            ignore_cache: false,
            inputs: Vec::new(),
            content: Vec::new(),
            users: users.to_vec(),
            outputs: 1,
            is_last: false,
            kept: Vec::new(),
        }
    }

    #[test]
    fn the_number_of_steps_decides_where_nothing_is_known() {
        let steps = [step(&[1, 3]), step(&[2]), step(&[3]), step(&[])];
        assert_eq!(remaining(&steps, &[]), [4, 3, 2, 1].map(Duration::from_micros));
    }

    #[test]
    fn a_long_step_makes_all_before_it_urgent() {
        // 0 → 2 → 5 is short, 1 → 3 → 5 has the long step, 4 → 5 has no known duration.
        let steps = [step(&[2]), step(&[3]), step(&[5]), step(&[5]), step(&[5]), step(&[])];
        let known = [Some(1), Some(1), Some(1), Some(60), None, Some(2)]
            .map(|seconds| seconds.map(Duration::from_secs));
        let expected = [4, 63, 3, 62, 13 + 2, 2].map(Duration::from_secs);
        assert_eq!(remaining(&steps, &known), expected);
    }
}
