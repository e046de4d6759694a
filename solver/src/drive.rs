//! The driver: who is waited for by whom, and what can go on now.
//!
//! Every vertex has two things that can be demanded, its key and its result, and a state for each.
//! A demand or an arrival is a [`Move`] on a queue; working off the queue never waits, and starts
//! tasks; when the queue is empty the driver waits for the next task to end. So depth costs queue
//! entries and not stack.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};

use kiln_oci::Digest;
use tokio::task::{Id, JoinError, JoinSet};

use crate::cache::{Cache, KeyRecord};
use crate::event::{Event, LogTail, VertexId};
use crate::executor::{Executor, StepContext, StepError};
use crate::key::{Key, KeyPart, Taint, nonce};
use crate::plan::Plan;
use crate::solve::{SolveError, SolveOptions, Solved};
use crate::task::{Outputs, Report, Run, Stop, World};

/// How many vertices may wait for or hold a lock without running: each may cost a descriptor.
const LOCKS: usize = 64;

/// Whether a key is known.
#[derive(Debug)]
enum KeyState {
    /// Nobody asked.
    Unasked,
    /// The keys of so many inputs are missing.
    Inputs(usize),
    /// The results of so many inputs, of which content matters, are missing.
    Contents(usize),
    /// Contents are being digested.
    Digesting,
    /// It is known.
    Known,
}

/// Whether a result is there.
#[derive(Debug)]
enum ResultState<O> {
    /// Nobody asked.
    Unasked,
    /// The key comes first.
    Key,
    /// The cache is being asked.
    Loading,
    /// The results of so many inputs are missing.
    Inputs(usize),
    /// It can be locked.
    Lockable,
    /// The lock is waited for.
    Locking,
    /// It can run.
    Runnable,
    /// It runs.
    Running,
    /// It is there.
    Done(Outputs<O>),
    /// Nobody will ask: all its users are done.
    Unneeded,
}

/// A vertex in progress.
struct State<O, G> {
    key: KeyState,
    /// The canonical key, once `key` is known, and the taint of what is made of it.
    canonical: Key,
    taint: Taint,
    /// What the canonical key is made of.
    parts: Vec<KeyPart>,
    result: ResultState<O>,
    told: Told,
    guard: Option<G>,
    /// How many users are not done yet.
    open_users: usize,
    started: bool,
    cached: bool,
    tail: Option<LogTail>,
}

/// What the users of a vertex were told. They count what they miss by this, for between arrival
/// and telling there are other moves.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    key: bool,
    result: bool,
}

/// Something to be worked off.
#[derive(Clone, Copy, Debug)]
enum Move {
    DemandKey(usize),
    DemandResult(usize),
    KeyKnown(usize),
    ResultDone(usize),
}

type TaskResult<O, G> = (usize, Result<Report<O, G>, Stop>);
type TaskEnd<O, G> = Result<(Id, TaskResult<O, G>), JoinError>;

/// Solves one graph.
pub(crate) struct Driver<E: Executor, C: Cache<Output = E::Output>> {
    plan: Plan,
    world: World<E, C>,
    options: SolveOptions,
    nonce: Vec<u8>,
    states: Vec<State<E::Output, C::Guard>>,
    moves: VecDeque<Move>,
    /// What can be locked and what can run, longest remaining path first.
    lockable: BinaryHeap<(u32, Reverse<usize>)>,
    runnable: BinaryHeap<(u32, Reverse<usize>)>,
    locks: usize,
    running: usize,
    tasks: JoinSet<TaskResult<E::Output, C::Guard>>,
    /// The vertices of tasks, for those that panic.
    owners: HashMap<Id, usize>,
    failure: Option<SolveError>,
}

impl<E, C> Driver<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    /// Prepares to solve `plan`.
    pub(crate) fn new(plan: Plan, world: World<E, C>, options: SolveOptions) -> Self {
        let states = plan.steps.iter().enumerate().map(|(number, step)| State {
            key: KeyState::Unasked,
            canonical: Key(Digest::from_bytes([0; 32])),
            taint: Taint::default(),
            parts: Vec::new(),
            result: ResultState::Unasked,
            told: Told::default(),
            guard: None,
            open_users: step.users.len() + usize::from(number == plan.target),
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
            locks: 0,
            running: 0,
            tasks: JoinSet::new(),
            owners: HashMap::new(),
            failure: None,
        }
    }

    /// Solves the graph; returns when no task is left.
    pub(crate) async fn run(mut self) -> Result<Solved<E::Output>, SolveError> {
        for (number, step) in self.plan.steps.iter().enumerate() {
            if step.visible() {
                let (id, name) = (number as VertexId, step.name.clone());
                self.options.events.send(Event::Vertex { id, name });
            }
        }
        self.moves.push_back(Move::DemandResult(self.plan.target));
        let cancel = self.options.cancel.clone();
        loop {
            self.work_off();
            tokio::select! {
                biased;
                () = cancel.cancelled(), if self.failure.is_none() => {
                    self.fail(SolveError::Cancelled);
                }
                ended = self.tasks.join_next_with_id() => match ended {
                    Some(ended) => self.task_ended(ended),
                    None => break,
                },
            }
        }
        self.finish()
    }

    fn finish(mut self) -> Result<Solved<E::Output>, SolveError> {
        if let Some(failure) = self.failure.take() {
            for number in 0..self.states.len() {
                let state = &self.states[number];
                if state.started && !matches!(state.result, ResultState::Done(_)) {
                    self.tell(number, |id| Event::Cancelled { id });
                }
            }
            return Err(failure);
        }
        let target = &self.states[self.plan.target];
        let ResultState::Done(outputs) = &target.result else {
            // Graphs have no cycles, so everything demanded arrives or fails.
            let error = StepError::other("the scheduler has nothing left to do");
            return Err(self.step_error(self.plan.target, error, &[]));
        };
        let output = outputs[self.plan.output as usize].clone();
        let counted = |(step, _): &(&crate::plan::Step, &State<_, _>)| step.counted();
        let steps = self.plan.steps.iter().zip(&self.states).filter(counted);
        let cached = steps.clone().filter(|(_, state)| state.cached).count();
        Ok(Solved { output, key: target.canonical, steps: steps.count(), cached })
    }

    /// Does all that can be done without waiting.
    fn work_off(&mut self) {
        loop {
            while self.failure.is_none()
                && let Some(next) = self.moves.pop_front()
            {
                match next {
                    Move::DemandKey(number) => self.demand_key(number),
                    Move::DemandResult(number) => self.demand_result(number),
                    Move::KeyKnown(number) => self.key_known(number),
                    Move::ResultDone(number) => self.result_done(number),
                }
            }
            if self.failure.is_some() || !self.start_next() {
                return;
            }
        }
    }

    /// Starts what waits for a lock or a job, and tells whether that made moves.
    fn start_next(&mut self) -> bool {
        while self.running < self.options.jobs.max(1)
            && let Some((_, Reverse(number))) = self.runnable.pop()
        {
            self.start_run(number);
        }
        while self.locks < LOCKS
            && let Some((_, Reverse(number))) = self.lockable.pop()
        {
            self.start_lock(number);
        }
        !self.moves.is_empty()
    }

    // Keys.

    fn demand_key(&mut self, number: usize) {
        if !matches!(self.states[number].key, KeyState::Unasked) {
            return;
        }
        if self.plan.steps[number].rule.ephemeral {
            let digest = self.world.graph.vertices()[number].digest;
            let key = Key::of("ephemeral", &self.nonce, &[KeyPart::Content(digest)]);
            let taint = Taint { ephemeral: true, fresh: false };
            self.set_key(number, key, taint, Vec::new());
            return;
        }
        let mut missing = 0;
        for input in &self.plan.steps[number].inputs {
            if !self.states[*input].told.key {
                missing += 1;
                self.moves.push_back(Move::DemandKey(*input));
            }
        }
        self.states[number].key = KeyState::Inputs(missing);
        if missing == 0 {
            self.input_keys_known(number);
        }
    }

    fn key_known(&mut self, number: usize) {
        self.states[number].told.key = true;
        for at in 0..self.plan.steps[number].users.len() {
            let user = self.plan.steps[number].users[at];
            if let KeyState::Inputs(missing) = &mut self.states[user].key {
                *missing -= 1;
                if *missing == 0 {
                    self.input_keys_known(user);
                }
            }
        }
        if matches!(self.states[number].result, ResultState::Key) {
            self.load(number);
        }
    }

    fn input_keys_known(&mut self, number: usize) {
        let (parts, taint) = self.parts(number, None);
        let definition = Key::of("definition", self.salt(number), &parts);
        if self.plan.steps[number].content.is_empty() {
            self.set_key(number, definition, taint, parts);
            return;
        }
        if taint.is_none() {
            match self.world.cache.canonical(&definition) {
                Ok(Some(canonical)) => {
                    self.set_key(number, canonical, taint, parts);
                    return;
                }
                Ok(None) => {}
                Err(error) => return self.fail(error.into()),
            }
        }
        let mut missing = 0;
        for input in &self.plan.steps[number].content {
            if !self.states[*input].told.result {
                missing += 1;
                self.moves.push_back(Move::DemandResult(*input));
            }
        }
        self.states[number].key = KeyState::Contents(missing);
        if missing == 0 {
            self.digest(number);
        }
    }

    /// Starts digesting the contents that settle the key.
    fn digest(&mut self, number: usize) {
        let inputs = self.plan.steps[number].rule.content_inputs.iter().filter_map(|index| {
            let (input, output) = self.world.graph.vertices()[number].inputs.get(*index)?;
            let ResultState::Done(outputs) = &self.states[*input].result else { return None };
            Some((*index, outputs.get(*output as usize)?.clone()))
        });
        let inputs = inputs.collect();
        self.states[number].key = KeyState::Digesting;
        let world = self.world.clone();
        self.spawn(number, world.digest(number, inputs));
    }

    fn digested(&mut self, number: usize, digests: &[Digest]) {
        let (definition_parts, definition_taint) = self.parts(number, None);
        let (parts, taint) = self.parts(number, Some(digests));
        let canonical = Key::of("content", self.salt(number), &parts);
        if !definition_taint.ephemeral {
            let definition = Key::of("definition", self.salt(number), &definition_parts);
            if let Err(error) = self.world.cache.link(&definition, &canonical) {
                return self.fail(error.into());
            }
        }
        self.set_key(number, canonical, taint, parts);
    }

    fn set_key(&mut self, number: usize, key: Key, taint: Taint, parts: Vec<KeyPart>) {
        let fresh = self.plan.steps[number].ignore_cache;
        let state = &mut self.states[number];
        state.key = KeyState::Known;
        state.canonical = key;
        state.taint = taint.and(Taint { fresh, ephemeral: false });
        state.parts = parts;
        self.moves.push_back(Move::KeyKnown(number));
    }

    /// Returns what a key is made of and what it depends on; `contents` are the digests of the
    /// inputs of which content matters, in the rule's order.
    fn parts(&self, number: usize, contents: Option<&[Digest]>) -> (Vec<KeyPart>, Taint) {
        let rule = &self.plan.steps[number].rule;
        let mut taint = Taint::default();
        let inputs = self.world.graph.vertices()[number].inputs.iter().enumerate();
        let parts = inputs.map(|(index, (input, output))| {
            let place = rule.content_inputs.iter().position(|content| *content == index);
            if let (Some(digests), Some(place)) = (contents, place)
                && let Some(digest) = digests.get(place)
            {
                return KeyPart::Content(*digest);
            }
            let state = &self.states[*input];
            taint = taint.and(state.taint);
            KeyPart::Output(state.canonical, *output)
        });
        let parts = parts.collect();
        (parts, taint)
    }

    fn salt(&self, number: usize) -> &[u8] {
        &self.plan.steps[number].salt
    }

    // Results.

    fn demand_result(&mut self, number: usize) {
        if !matches!(self.states[number].result, ResultState::Unasked) {
            return;
        }
        self.states[number].result = ResultState::Key;
        match self.states[number].key {
            KeyState::Known => self.load(number),
            _ => self.moves.push_back(Move::DemandKey(number)),
        }
    }

    fn load(&mut self, number: usize) {
        if !self.states[number].taint.is_none() {
            return self.demand_inputs(number);
        }
        self.states[number].result = ResultState::Loading;
        let load = self.world.clone().load(self.states[number].canonical, self.outputs(number));
        self.spawn(number, load);
    }

    fn demand_inputs(&mut self, number: usize) {
        let mut missing = 0;
        for input in &self.plan.steps[number].inputs {
            if !self.states[*input].told.result {
                missing += 1;
                self.moves.push_back(Move::DemandResult(*input));
            }
        }
        self.states[number].result = ResultState::Inputs(missing);
        if missing == 0 {
            self.inputs_done(number);
        }
    }

    fn inputs_done(&mut self, number: usize) {
        let entry = (self.plan.steps[number].height, Reverse(number));
        let state = &mut self.states[number];
        if state.taint.ephemeral {
            state.result = ResultState::Runnable;
            self.runnable.push(entry);
        } else {
            state.result = ResultState::Lockable;
            self.lockable.push(entry);
        }
    }

    fn start_lock(&mut self, number: usize) {
        self.locks += 1;
        self.states[number].result = ResultState::Locking;
        let (key, fresh) = (self.states[number].canonical, self.states[number].taint.fresh);
        let lock = self.world.clone().lock(key, self.outputs(number), fresh);
        self.spawn(number, lock);
    }

    fn locked(&mut self, number: usize, guard: C::Guard, found: Option<Vec<E::Output>>) {
        if let Some(outputs) = found {
            self.locks -= 1;
            return self.known(number, outputs);
        }
        let state = &mut self.states[number];
        state.guard = Some(guard);
        state.result = ResultState::Runnable;
        self.runnable.push((self.plan.steps[number].height, Reverse(number)));
    }

    fn start_run(&mut self, number: usize) {
        let inputs = self.world.graph.vertices()[number].inputs.iter().filter_map(|input| {
            let ResultState::Done(outputs) = &self.states[input.0].result else { return None };
            outputs.get(input.1 as usize).cloned()
        });
        let inputs = inputs.collect();
        let outputs = self.outputs(number);
        let (events, tail) = self.options.events.tap(number as VertexId);
        let state = &mut self.states[number];
        let record = || KeyRecord {
            name: self.plan.steps[number].name.clone(),
            op: self.world.graph.vertices()[number].digest.to_string(),
            inputs: state.parts.iter().map(ToString::to_string).collect(),
            duration_ms: 0,
        };
        let save = (!state.taint.ephemeral).then(|| (state.canonical, record()));
        let cancel = self.world.cancel.clone();
        let context = StepContext { vertex: number as VertexId, events, cancel };
        state.result = ResultState::Running;
        state.started = true;
        state.tail = Some(tail.clone());
        let guard = state.guard.take();
        self.running += 1;
        self.locks -= usize::from(guard.is_some());
        self.tell(number, |id| Event::Started { id });
        let run = Run { number, inputs, context, tail, save, guard, outputs };
        let run = self.world.clone().run(run);
        self.spawn(number, run);
    }

    /// The cache had the result.
    fn known(&mut self, number: usize, outputs: Vec<E::Output>) {
        self.states[number].cached = true;
        self.tell(number, |id| Event::Cached { id });
        self.done(number, outputs);
    }

    fn done(&mut self, number: usize, outputs: Vec<E::Output>) {
        self.states[number].result = ResultState::Done(outputs.into());
        self.moves.push_back(Move::ResultDone(number));
        self.settle(number);
    }

    fn result_done(&mut self, number: usize) {
        self.states[number].told.result = true;
        for at in 0..self.plan.steps[number].users.len() {
            let user = self.plan.steps[number].users[at];
            let contents = self.plan.steps[user].content.binary_search(&number).is_ok();
            if let KeyState::Contents(missing) = &mut self.states[user].key
                && contents
            {
                *missing -= 1;
                if *missing == 0 {
                    self.digest(user);
                }
            }
            if let ResultState::Inputs(missing) = &mut self.states[user].result {
                *missing -= 1;
                if *missing == 0 {
                    self.inputs_done(user);
                }
            }
        }
    }

    /// Reports as cached what nobody will ask for, now that `number` is done.
    fn settle(&mut self, number: usize) {
        let mut settled = vec![number];
        let mut unneeded = Vec::new();
        while let Some(number) = settled.pop() {
            for input in &self.plan.steps[number].inputs {
                let state = &mut self.states[*input];
                state.open_users -= 1;
                if state.open_users == 0 && matches!(state.result, ResultState::Unasked) {
                    state.result = ResultState::Unneeded;
                    state.cached = true;
                    settled.push(*input);
                    unneeded.push(*input);
                }
            }
        }
        unneeded.sort_unstable();
        for number in unneeded {
            self.tell(number, |id| Event::Cached { id });
        }
    }

    fn outputs(&self, number: usize) -> usize {
        self.plan.steps[number].outputs
    }

    // Tasks.

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
                let number = self.owners.get(&error.id()).copied().unwrap_or(self.plan.target);
                (error.id(), number, Err(Stop::Step(StepError::other(error), None)))
            }
        };
        self.owners.remove(&id);
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
                self.done(number, outputs);
            }
        }
    }

    fn stopped(&mut self, number: usize, stop: Stop) {
        match stop {
            Stop::Cancelled => {}
            // What fails while the build stops fails because it stops.
            _ if self.failure.is_some() => {}
            Stop::Cache(error) => self.fail(error.into()),
            Stop::Step(error, tail) => {
                if !self.states[number].started {
                    self.tell(number, |id| Event::Started { id });
                }
                self.states[number].started = false;
                let message = error.to_string();
                self.tell(number, |id| Event::Failed { id, error: message });
                let tail = tail.or_else(|| self.states[number].tail.take());
                let tail = tail.map(|tail| tail.bytes()).unwrap_or_default();
                self.fail(self.step_error(number, error, &tail));
            }
        }
    }

    fn step_error(&self, number: usize, error: StepError, tail: &[u8]) -> SolveError {
        SolveError::Step {
            name: self.plan.steps[number].name.clone(),
            locations: self.world.graph.vertices()[number].locations.clone(),
            log_tail: tail.to_vec(),
            error: Box::new(error),
        }
    }

    /// Stops everything: nothing more is started, and what runs is told.
    fn fail(&mut self, failure: SolveError) {
        if self.failure.is_none() {
            self.failure = Some(failure);
        }
        self.moves.clear();
        self.world.cancel.cancel();
    }

    fn tell(&self, number: usize, event: impl FnOnce(VertexId) -> Event) {
        if self.plan.steps[number].visible() {
            self.options.events.send(event(number as VertexId));
        }
    }
}
