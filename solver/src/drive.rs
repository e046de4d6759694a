//! The driver: schedules the keys and results of a graph's vertices.
//!
//! A caller can demand two things of every vertex: its key and its result. The driver keeps a state
//! for each. A demand or an arrival is a [`Move`] on a queue. Processing the queue never blocks; it
//! may start tasks. When the queue is empty, the driver waits for the next task to end. A deep
//! graph therefore takes queue entries and no stack.

mod keys;
mod order;
mod results;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use kiln_event::{Event, Key, LogTail, VertexId};
use kiln_oci::Digest;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::Instant;

use crate::cache::Cache;
use crate::executor::{Executor, StepError};
use crate::key::{KeyPart, NoLookup, nonce};
use crate::plan::Plan;
use crate::solve::{SolveError, SolveOptions, Solved};
use crate::task::{Outputs, Report, Stop, TaskContext};
use order::{Priority, wait};

/// The maximum number of vertices that wait for a lock or hold one without running. Each lock may
/// take a file descriptor.
const LOCKS: usize = 64;

/// The progress of a vertex's key.
#[derive(Debug)]
enum KeyState {
    /// No user has demanded the key.
    Unasked,
    /// The driver waits for the keys of this many inputs.
    Inputs(usize),
    /// The driver waits for the results of this many content inputs.
    Contents(usize),
    /// A task digests the content inputs.
    Digesting,
    /// The key is in [`State::canonical`].
    Known,
}

/// The progress of a vertex's result.
#[derive(Debug)]
enum ResultState<O> {
    /// No user has demanded the result.
    Unasked,
    /// The driver waits for the vertex's own key.
    Key,
    /// A task looks the result up in the cache.
    Loading,
    /// The driver waits for the results of this many inputs.
    Inputs(usize),
    /// The vertex is in the queue for a lock.
    Lockable,
    /// A task waits for the lock on the key.
    Locking,
    /// The vertex is in the queue for a job.
    Runnable,
    /// A task runs the op.
    Running,
    /// Another vertex with the same key produces the result.
    Followed,
    /// The outputs of the vertex.
    Done(Outputs<O>),
    /// All users have their results without this one.
    Unneeded,
}

/// The driver's state of one vertex.
struct State<O, G> {
    key: KeyState,
    /// The canonical key and its taint. Valid once `key` is [`KeyState::Known`].
    canonical: Key,
    taint: NoLookup,
    /// The parts that the canonical key is the hash of.
    parts: Vec<KeyPart>,
    result: ResultState<O>,
    told: Notified,
    guard: Option<G>,
    /// The vertices with the same key that take over the result.
    followers: Vec<usize>,
    /// The number of users that have no result yet.
    open_users: usize,
    /// `true` if the driver has demanded the content inputs before the keys of all inputs were
    /// known.
    anticipated: bool,
    started: bool,
    cached: bool,
    tail: Option<LogTail>,
}

/// The arrivals that the users of a vertex have counted. Other moves may come between an arrival
/// and its delivery to the users, so the users count what they miss by these flags.
#[derive(Clone, Copy, Debug, Default)]
struct Notified {
    key: bool,
    result: bool,
}

/// A unit of work on the driver's queue. The number is the vertex's.
#[derive(Clone, Copy, Debug)]
enum Move {
    DemandKey(usize),
    DemandResult(usize),
    KeyKnown(usize),
    ResultDone(usize),
}

type TaskResult<O, G> = (usize, Result<Report<O, G>, Stop>);
type TaskEnd<O, G> = Result<(Id, TaskResult<O, G>), JoinError>;

/// The state of one solve.
pub(crate) struct Driver<E: Executor, C: Cache<Output = E::Output>> {
    plan: Plan,
    world: TaskContext<E, C>,
    options: SolveOptions,
    nonce: Vec<u8>,
    states: Vec<State<E::Output, C::Guard>>,
    moves: VecDeque<Move>,
    /// The vertices that wait for a lock or for a job, longest remaining path first.
    lockable: BinaryHeap<Priority>,
    runnable: BinaryHeap<Priority>,
    /// The vertices that are being loaded or locked and may become runnable soon.
    arriving: BTreeSet<usize>,
    /// The time until which the next runnable vertex waits for a more urgent one.
    patience: Option<Instant>,
    /// The longest remaining path of each vertex, computed on first use.
    remaining: Option<Vec<Duration>>,
    /// The run times of this build's steps, by kind.
    took: Vec<(Digest, Duration)>,
    /// The vertex that works on each canonical key or has finished it. All inputs of a leader are
    /// done.
    leaders: HashMap<Key, usize>,
    locks: usize,
    running: usize,
    tasks: JoinSet<TaskResult<E::Output, C::Guard>>,
    /// The vertex of each task. A panic reports only the task's ID.
    owners: HashMap<Id, usize>,
    failure: Option<SolveError>,
    /// `true` if all targets are done. Tasks that still run were demanded ahead and are cancelled.
    over: bool,
}

impl<E, C> Driver<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    /// Creates the driver of `plan` in its initial state.
    pub(crate) fn new(plan: Plan, world: TaskContext<E, C>, options: SolveOptions) -> Self {
        let states = plan.steps.iter().enumerate().map(|(number, step)| State {
            key: KeyState::Unasked,
            canonical: Key(Digest::from_bytes([0; 32])),
            taint: NoLookup::default(),
            parts: Vec::new(),
            result: ResultState::Unasked,
            told: Notified::default(),
            guard: None,
            followers: Vec::new(),
            open_users: step.users.len() + usize::from(plan.is_target(number)),
            anticipated: false,
            started: false,
            cached: false,
            tail: None,
        });
        Self {
            states: states.collect(),
            plan,
            world,
            options,
            nonce: nonce(),
            moves: VecDeque::new(),
            lockable: BinaryHeap::new(),
            runnable: BinaryHeap::new(),
            arriving: BTreeSet::new(),
            patience: None,
            remaining: None,
            took: Vec::new(),
            leaders: HashMap::new(),
            locks: 0,
            running: 0,
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            failure: None,
            over: false,
        }
    }

    /// Solves the graph. Returns after the last task has ended.
    pub(crate) async fn run(mut self) -> Result<Solved<E::Output>, SolveError> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            if step.visible() {
                let (id, name) = (number as VertexId, step.name.clone());
                let vertex = &self.world.graph.vertices()[number];
                let (digest, inputs) = (Some(vertex.digest), vertex.input_digests());
                self.options.events.send(Event::Vertex { id, name, digest, inputs });
            }
        }
        let targets = self.plan.targets.iter().map(|(target, _)| Move::DemandResult(*target));
        self.moves.extend(targets);
        let cancel = self.options.cancel.clone();
        loop {
            self.work_off();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if self.goes_on() => {
                    self.fail(SolveError::Cancelled);
                }
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.task_ended(ended),
                    None => break,
                },
                () = wait(self.patience), if self.goes_on() => {}
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Solved<E::Output>, SolveError> {
        self.remember();
        for number in 0..self.states.len() {
            let state = &self.states[number];
            if state.started && !matches!(state.result, ResultState::Done(_)) {
                self.tell(number, |id| Event::Cancelled { id });
            }
        }
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let (mut outputs, mut keys) = (Vec::new(), Vec::new());
        for (target, output) in &self.plan.targets {
            let ResultState::Done(results) = &self.states[*target].result else {
                // Graphs have no cycles, so every demand ends with a result or a failure.
                let error = StepError::other("the scheduler has nothing left to do");
                return Err(self.step_error(*target, error, &LogTail::default()));
            };
            outputs.push(results[*output as usize].clone());
            keys.push(self.states[*target].canonical);
        }
        let counted = |(step, _): &(&crate::plan::Step, &State<_, _>)| step.counted();
        let steps = self.plan.steps.iter().zip(&self.states).filter(counted);
        let cached = steps.clone().filter(|(_, state)| state.cached).count();
        let steps = steps.count();
        let vertices = (0..self.states.len()).map(|number| self.vertex_keys(number)).collect();
        Ok(Solved { outputs, keys, vertices, steps, cached })
    }

    /// Processes all moves and starts all tasks that can start now.
    fn work_off(&mut self) {
        loop {
            while self.goes_on()
                && let Some(next) = self.moves.pop_front()
            {
                match next {
                    Move::DemandKey(number) => self.demand_key(number),
                    Move::DemandResult(number) => self.demand_result(number),
                    Move::KeyKnown(number) => self.key_known(number),
                    Move::ResultDone(number) => self.result_done(number),
                }
            }
            if !self.goes_on() || !self.start_next() {
                return;
            }
        }
    }

    /// Starts vertices that wait for a lock or a job. Returns `true` if that has added moves.
    fn start_next(&mut self) -> bool {
        while self.locks < LOCKS
            && let Some((_, Reverse(number))) = self.lockable.pop()
        {
            self.start_lock(number);
        }
        while self.is_next_due()
            && let Some((_, Reverse(number))) = self.runnable.pop()
        {
            self.start_run(number);
        }
        !self.moves.is_empty()
    }

    fn spawn(
        &mut self,
        number: usize,
        task: impl Future<Output = Result<Report<E::Output, C::Guard>, Stop>> + Send + 'static,
    ) {
        let handle = self.tasks.spawn(async move { (number, task.await) });
        self.owners.insert(handle.id(), number);
    }

    fn task_ended(&mut self, ended: TaskEnd<E::Output, C::Guard>) {
        let (id, number, outcome) = match ended {
            Ok((id, (number, outcome))) => (id, number, outcome),
            Err(error) => {
                let number = self.owners.get(&error.id()).copied().unwrap_or(self.plan.last());
                (error.id(), number, Err(Stop::Step(StepError::other(error), None)))
            }
        };
        self.owners.remove(&id);
        self.arriving.remove(&number);
        self.running -= usize::from(matches!(self.states[number].result, ResultState::Running));
        match outcome {
            Ok(report) => self.reported(number, report),
            Err(stop) => self.stopped(number, stop),
        }
    }

    fn reported(&mut self, number: usize, report: Report<E::Output, C::Guard>) {
        match report {
            Report::Loaded(Some(outputs)) => self.known(number, outputs),
            Report::Loaded(None) => self.demand_inputs(number),
            Report::Digested(digests) => self.digested(number, &digests),
            Report::Locked(guard, found) => self.locked(number, guard, found),
            Report::Ran(outputs, duration) => {
                self.tell(number, |id| Event::Completed { id, duration });
                self.took(number, duration);
                self.done(number, outputs);
            }
        }
    }

    fn stopped(&mut self, number: usize, stop: Stop) {
        match stop {
            Stop::Cancelled => {}
            // Tasks that fail during cancellation fail because of it.
            _ if !self.goes_on() => {}
            Stop::Cache(error) => self.fail(error.into()),
            Stop::Step(error, tail) => {
                if !self.states[number].started {
                    self.tell(number, |id| Event::Started { id });
                }
                self.states[number].started = false;
                let message = error.to_string();
                self.tell(number, |id| Event::Failed { id, error: message });
                let tail = tail.or_else(|| self.states[number].tail.take());
                self.fail(self.step_error(number, error, &tail.unwrap_or_default()));
            }
        }
    }

    fn step_error(&self, number: usize, error: StepError, tail: &LogTail) -> SolveError {
        SolveError::Step {
            name: self.plan.steps[number].name.clone(),
            locations: self.world.graph.locations(number).to_vec(),
            id: number as VertexId,
            log_tail: tail.bytes(),
            log_length: tail.total(),
            error: Box::new(error),
        }
    }

    /// Records the first failure, drops all moves and cancels the running tasks.
    fn fail(&mut self, failure: SolveError) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
        self.moves.clear();
        self.world.cancel.cancel();
    }

    /// Cancels the work that was demanded ahead once all targets are done.
    fn end_if_done(&mut self) {
        let is_done = |target: &usize| matches!(self.states[*target].result, ResultState::Done(_));
        if !self.plan.targets.iter().all(|(target, _)| is_done(target)) {
            return;
        }
        self.over = true;
        self.moves.clear();
        self.world.cancel.cancel();
    }

    fn goes_on(&self) -> bool {
        self.failure.is_none() && !self.over
    }

    fn tell(&self, number: usize, event: impl FnOnce(VertexId) -> Event) {
        if self.plan.steps[number].visible() {
            self.options.events.send(event(number as VertexId));
        }
    }
}
