//! What comes first: the longest remaining path.
//!
//! A step's weight is how long steps like it took before, whatever their inputs were: a changed
//! input changes the key, and seldom how long the work takes. A step that nobody has seen is taken
//! for an average one of those that are known, and where none is known all weigh the same, so that
//! the number of steps on the path decides.
//!
//! The history is asked for when the first step is about to be put in order: a build whose target is
//! known never does.
//!
//! Steps come to be runnable one after the other, as they are looked up and locked. Where there are
//! more of them than free jobs, the first to arrive isn't to have the job of one that is more urgent
//! and a moment later. So it waits for those, though not long: somebody else may hold their locks.

use std::cmp::Reverse;
use std::time::Duration;

use kiln_oci::Digest;
use tokio::time::{Instant, sleep_until};

use super::Driver;
use crate::cache::Cache;
use crate::executor::Executor;
use crate::plan::Step;

/// What a queue of steps is ordered by, the largest first: the time that the step and what follows it
/// take on the longest way to a target, and where that is equal, the order of the graph.
pub(super) type Priority = (Duration, Reverse<usize>);

/// How long a step waits for those that are more urgent and not quite there.
const PATIENCE: Duration = Duration::from_millis(50);

/// The weight of a step that took no time: paths of more steps come first even so.
const LEAST: Duration = Duration::from_micros(1);

impl<E, C> Driver<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    /// Returns what orders a step among those that could go on.
    pub(super) fn priority(&mut self, number: usize) -> Priority {
        let remaining = self.remaining.get_or_insert_with(|| {
            let kinds: Vec<Digest> = self.plan.steps.iter().map(Step::kind).collect();
            // What the history doesn't tell changes the order and no result.
            let known = self.world.cache.durations(&kinds).unwrap_or_default();
            remaining(&self.plan.steps, &known)
        });
        (remaining[number], Reverse(number))
    }

    /// Tells whether the most urgent of the steps that could run is to run now.
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

    /// Notes how long a step ran.
    pub(super) fn took(&mut self, number: usize, duration: Duration) {
        let step = &self.plan.steps[number];
        if !step.rule.hidden && !step.rule.ephemeral {
            self.took.push((step.kind(), duration));
        }
    }

    /// Adds to the history what this build tells, however it ends.
    pub(super) fn remember(&mut self) {
        let took = std::mem::take(&mut self.took);
        if !took.is_empty() {
            // A build doesn't fail for what the next one could be told.
            let _ = self.world.cache.note_durations(&took);
        }
    }
}

/// Waits until then; for ever where there is nothing to wait for.
pub(super) async fn wait(until: Option<Instant>) {
    match until {
        Some(until) => sleep_until(until).await,
        None => std::future::pending().await,
    }
}

/// Returns for each step how long it and what follows it take on the longest way to a target. `known`
/// are the durations of those that the history knows; where there are fewer, the rest is unknown.
fn remaining(steps: &[Step], known: &[Option<Duration>]) -> Vec<Duration> {
    let known = |number: usize| known.get(number).copied().flatten();
    let told: Vec<Duration> = (0..steps.len()).filter_map(known).collect();
    let average = told.iter().sum::<Duration>().checked_div(told.len() as u32);
    let average = average.unwrap_or(LEAST);
    let mut remaining = vec![Duration::ZERO; steps.len()];
    // Users come after their inputs, so that theirs is final when it is read.
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
        // 0 → 2 → 5 is short, 1 → 3 → 5 has the long step, 4 → 5 is unknown.
        let steps = [step(&[2]), step(&[3]), step(&[5]), step(&[5]), step(&[5]), step(&[])];
        let known = [Some(1), Some(1), Some(1), Some(60), None, Some(2)]
            .map(|seconds| seconds.map(Duration::from_secs));
        let expected = [4, 63, 3, 62, 13 + 2, 2].map(Duration::from_secs);
        assert_eq!(remaining(&steps, &known), expected);
    }
}
