//! The production of results.
//!
//! Of the vertices with the same canonical key, only the *leader* works: the first whose inputs are
//! all done. The others follow it in whatever state it is, and take over its outputs. A vertex
//! becomes a leader only when its inputs are done; otherwise it might wait for its own follower.

use super::{Driver, KeyState, Move, ResultState};
use crate::cache::{Cache, KeyRecord};
use crate::executor::{Executor, StepContext};
use crate::task::{Outputs, Run};
use kiln_event::{Event, EventSender, Reporter, VertexId};

impl<E, C> Driver<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    pub(super) fn demand_result(&mut self, number: usize) {
        if !matches!(self.states[number].result, ResultState::Unasked) {
            return;
        }
        self.states[number].result = ResultState::Key;
        match self.states[number].key {
            KeyState::Known => self.load(number),
            _ => self.moves.push_back(Move::DemandKey(number)),
        }
    }

    pub(super) fn load(&mut self, number: usize) {
        if self.follow(number) {
            return;
        }
        if !self.states[number].taint.is_none() {
            return self.demand_inputs(number);
        }
        self.states[number].result = ResultState::Loading;
        self.arriving.insert(number);
        let load = self.world.clone().load(self.states[number].canonical, self.outputs(number));
        self.spawn(number, load);
    }

    pub(super) fn demand_inputs(&mut self, number: usize) {
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

    pub(super) fn inputs_done(&mut self, number: usize) {
        if self.follow(number) {
            return;
        }
        self.leaders.insert(self.states[number].canonical, number);
        let entry = self.priority(number);
        let state = &mut self.states[number];
        if state.taint.ephemeral {
            state.result = ResultState::Runnable;
            self.runnable.push(entry);
        } else {
            state.result = ResultState::Lockable;
            self.lockable.push(entry);
        }
    }

    /// Makes a vertex wait for the leader of its key. Returns `false` if there is no usable leader.
    fn follow(&mut self, number: usize) -> bool {
        let Some(leader) = self.leaders.get(&self.states[number].canonical).copied() else {
            return false;
        };
        // A result that was made for fewer users may have fewer outputs.
        if leader == number || self.outputs(leader) < self.outputs(number) {
            return false;
        }
        if let ResultState::Done(outputs) = &self.states[leader].result {
            let outputs = outputs.clone();
            self.take_over(number, outputs);
        } else {
            self.states[number].result = ResultState::Followed;
            self.states[leader].followers.push(number);
        }
        true
    }

    /// Gives a vertex the result of another vertex with the same key.
    fn take_over(&mut self, number: usize, outputs: Outputs<E::Output>) {
        self.states[number].cached = true;
        tracing::debug!(step = self.plan.steps[number].name, "result taken over from another step");
        self.tell(number, |id| Event::Cached { id });
        self.arrive(number, outputs);
    }

    /// Returns the vertex and the channel for events about what it waits for; `None` for a vertex that
    /// isn't shown.
    pub(super) fn told(&self, number: usize) -> Option<(VertexId, EventSender)> {
        let is_visible = self.plan.steps[number].visible();
        is_visible.then(|| (number as VertexId, self.options.events.clone()))
    }

    pub(super) fn start_lock(&mut self, number: usize) {
        self.locks += 1;
        self.states[number].result = ResultState::Locking;
        self.arriving.insert(number);
        let key = self.states[number].canonical;
        let fresh = self.states[number].taint.fresh || self.plan.steps[number].rule.private;
        let told = self.told(number);
        let lock = self.world.clone().lock(key, self.outputs(number), fresh, told);
        self.spawn(number, lock);
    }

    pub(super) fn locked(&mut self, number: usize, guard: C::Guard, found: Option<Vec<E::Output>>) {
        if let Some(outputs) = found {
            self.locks -= 1;
            return self.known(number, outputs);
        }
        let state = &mut self.states[number];
        state.guard = Some(guard);
        state.result = ResultState::Runnable;
        let entry = self.priority(number);
        self.runnable.push(entry);
    }

    pub(super) fn start_run(&mut self, number: usize) {
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
        let step = &self.plan.steps[number];
        let (is_last, kept) = (step.is_last, step.kept.clone());
        let reporter = Reporter::new(number as VertexId, events, cancel);
        let context = StepContext { reporter, is_last, kept };
        state.result = ResultState::Running;
        state.started = true;
        state.tail = Some(tail.clone());
        let guard = state.guard.take();
        self.running += 1;
        self.locks -= usize::from(guard.is_some());
        tracing::debug!(step = self.plan.steps[number].name, "no result is known, the step runs");
        self.tell(number, |id| Event::Started { id });
        let run = Run { number, inputs, context, tail, save, guard, outputs };
        let run = self.world.clone().run(run);
        self.spawn(number, run);
    }

    /// Accepts a result that the cache had.
    pub(super) fn known(&mut self, number: usize, outputs: Vec<E::Output>) {
        self.states[number].cached = true;
        tracing::debug!(step = self.plan.steps[number].name, "the cache has the result");
        self.tell(number, |id| Event::Cached { id });
        self.done(number, outputs);
    }

    pub(super) fn done(&mut self, number: usize, outputs: Vec<E::Output>) {
        let outputs: Outputs<E::Output> = outputs.into();
        self.arrive(number, outputs.clone());
        for follower in std::mem::take(&mut self.states[number].followers) {
            self.take_over(follower, outputs.clone());
        }
    }

    fn arrive(&mut self, number: usize, outputs: Outputs<E::Output>) {
        self.states[number].result = ResultState::Done(outputs);
        self.moves.push_back(Move::ResultDone(number));
        self.settle(number);
        if self.plan.is_target(number) {
            self.end_if_done();
        }
    }

    pub(super) fn result_done(&mut self, number: usize) {
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

    /// Reports the transitive inputs that no user needs any more as cached, now that `number` is
    /// done.
    pub(super) fn settle(&mut self, number: usize) {
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

    pub(super) fn outputs(&self, number: usize) -> usize {
        self.plan.steps[number].outputs
    }
}
