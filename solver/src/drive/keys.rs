//! The computation of keys.

use kiln_event::{Event, InputPart, Key, Lookup, StepInput, StepKey, VertexId};
use kiln_llb::Graph;
use kiln_oci::Digest;

use super::{Driver, KeyState, Move, ResultState};
use crate::cache::Cache;
use crate::executor::Executor;
use crate::key::{KeyPart, NoLookup, key_of};
use crate::solve::VertexKeys;

impl<E, C> Driver<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    pub(super) fn demand_key(&mut self, number: usize) {
        if !matches!(self.states[number].key, KeyState::Unasked) {
            return;
        }
        if self.plan.steps[number].rule.ephemeral {
            let digest = self.world.graph.vertices()[number].digest;
            let key = key_of("ephemeral", &self.nonce, &[KeyPart::Content(digest)]);
            let taint = NoLookup { ephemeral: true, fresh: false };
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

    pub(super) fn key_known(&mut self, number: usize) {
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

    pub(super) fn input_keys_known(&mut self, number: usize) {
        let (parts, taint) = self.parts(number, None);
        let definition = key_of("definition", self.salt(number), &parts);
        if self.plan.steps[number].content.is_empty() {
            self.tell_key(number, definition, taint, &parts, false);
            self.set_key(number, definition, taint, parts);
            return;
        }
        if taint.is_none() {
            match self.world.cache.canonical(&definition) {
                Ok(Some(canonical)) => {
                    self.tell_key(number, canonical, taint, &parts, true);
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
        } else if !taint.ephemeral {
            self.anticipate(number);
        }
    }

    /// Demands the content inputs of every vertex that waits for the key of `number`, which is
    /// unknown until another vertex has run. A vertex that depends on a changed one has usually
    /// changed as well. Several stages whose files are copied one after the other therefore run
    /// side by side. (Ephemeral inputs, such as a build context, don't trigger this: they are
    /// digested quickly and usually haven't changed.)
    fn anticipate(&mut self, number: usize) {
        let mut settled = vec![number];
        while let Some(number) = settled.pop() {
            for at in 0..self.plan.steps[number].users.len() {
                let user = self.plan.steps[number].users[at];
                let state = &mut self.states[user];
                if !matches!(state.key, KeyState::Inputs(_)) || state.anticipated {
                    continue;
                }
                state.anticipated = true;
                let contents = self.plan.steps[user].content.iter().copied();
                self.moves.extend(contents.map(Move::DemandResult));
                settled.push(user);
            }
        }
    }

    /// Starts a task that digests the content inputs of a vertex.
    pub(super) fn digest(&mut self, number: usize) {
        let inputs = self.plan.steps[number].rule.content_inputs.iter().filter_map(|index| {
            let (input, output) = self.world.graph.vertices()[number].inputs.get(*index)?;
            let ResultState::Done(outputs) = &self.states[*input].result else { return None };
            Some((*index, outputs.get(*output as usize)?.clone()))
        });
        let inputs = inputs.collect();
        self.states[number].key = KeyState::Digesting;
        let world = self.world.clone();
        self.spawn(number, world.digest(number, inputs, self.told(number)));
    }

    pub(super) fn digested(&mut self, number: usize, digests: &[Digest]) {
        let (definition_parts, definition_taint) = self.parts(number, None);
        let (parts, taint) = self.parts(number, Some(digests));
        let canonical = key_of("content", self.salt(number), &parts);
        if !definition_taint.ephemeral {
            let definition = key_of("definition", self.salt(number), &definition_parts);
            if let Err(error) = self.world.cache.link(&definition, &canonical) {
                return self.fail(error.into());
            }
        }
        self.tell_key(number, canonical, taint, &parts, false);
        self.set_key(number, canonical, taint, parts);
    }

    /// Sends the event that lists the parts of a key. `taint` is the taint of the parts.
    fn tell_key(&self, number: usize, key: Key, taint: NoLookup, parts: &[KeyPart], by_link: bool) {
        let rule = &self.plan.steps[number].rule;
        let selected = |index: usize| {
            let place = rule.content_inputs.iter().position(|content| *content == index);
            place.and_then(|place| rule.selected.get(place)).cloned().unwrap_or_default()
        };
        let inputs = self.world.graph.vertices()[number].inputs.iter().zip(parts).enumerate();
        let inputs = inputs.map(|(index, ((input, _), part))| StepInput {
            vertex: *input as VertexId,
            selected: selected(index),
            part: match part {
                KeyPart::Output(key, _) => InputPart::Key(*key),
                KeyPart::Content(digest) => InputPart::Content(*digest),
            },
            ingredients: match &self.plan.steps[*input].rule {
                rule if rule.ephemeral => rule.ingredients.clone(),
                _ => Vec::new(),
            },
        });
        let key = StepKey {
            key,
            salt: Digest::of(self.salt(number)),
            ingredients: rule.ingredients.clone(),
            instruction: instruction(&self.world.graph, number),
            inputs: inputs.collect(),
            by_link,
            lookup: self.lookup(number, taint),
        };
        tracing::debug!(step = self.plan.steps[number].name, key = %key.key, by_link, "key computed");
        self.tell(number, |id| Event::Keyed { id, key: key.into() });
    }

    fn lookup(&self, number: usize, taint: NoLookup) -> Lookup {
        let step = &self.plan.steps[number];
        let first = |is_it: fn(&NoLookup) -> bool| {
            // Content inputs carry no taint.
            let counts = |index: &usize| !step.rule.content_inputs.contains(index);
            let inputs = self.world.graph.vertices()[number].inputs.iter().enumerate();
            let mut inputs =
                inputs.filter(|(index, _)| counts(index)).map(|(_, (input, _))| *input);
            inputs.find(|input| is_it(&self.states[*input].taint))
        };
        if step.ignore_cache {
            Lookup::Ignored
        } else if taint.is_none() {
            Lookup::Asked
        } else if let Some(input) = first(|taint| taint.ephemeral) {
            Lookup::Ephemeral(input as VertexId)
        } else {
            first(|taint| taint.fresh)
                .map_or(Lookup::Asked, |input| Lookup::Fresh(input as VertexId))
        }
    }

    pub(super) fn set_key(
        &mut self,
        number: usize,
        key: Key,
        taint: NoLookup,
        parts: Vec<KeyPart>,
    ) {
        let fresh = self.plan.steps[number].ignore_cache;
        let state = &mut self.states[number];
        state.key = KeyState::Known;
        state.canonical = key;
        state.taint = taint.and(NoLookup { fresh, ephemeral: false });
        state.parts = parts;
        self.moves.push_back(Move::KeyKnown(number));
    }

    /// Returns the parts of a vertex's key and their combined taint. `contents` are the digests of
    /// the content inputs in the rule's order; without them, the parts are those of the definition
    /// key.
    pub(super) fn parts(
        &self,
        number: usize,
        contents: Option<&[Digest]>,
    ) -> (Vec<KeyPart>, NoLookup) {
        let rule = &self.plan.steps[number].rule;
        let mut taint = NoLookup::default();
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

    /// Returns the keys of a vertex for the caller. Returns `None` if the key is unknown or
    /// ephemeral.
    pub(super) fn vertex_keys(&self, number: usize) -> Option<VertexKeys> {
        let state = &self.states[number];
        if !matches!(state.key, KeyState::Known) || state.taint.ephemeral {
            return None;
        }
        let definition = || {
            let (parts, taint) = self.parts(number, None);
            (!taint.ephemeral).then(|| key_of("definition", self.salt(number), &parts))
        };
        let has_contents = !self.plan.steps[number].content.is_empty();
        let definition = has_contents.then(definition).flatten();
        Some(VertexKeys { canonical: state.canonical, definition })
    }

    pub(super) fn salt(&self, number: usize) -> &[u8] {
        &self.plan.steps[number].salt
    }
}

/// Returns the source lines of the instruction that a vertex comes from.
fn instruction(graph: &Graph, number: usize) -> Option<String> {
    let place = graph.vertices()[number].locations.first()?;
    let source = graph.sources().get(place.source as usize)?;
    let lines = source.data.split_inclusive(|byte| *byte == b'\n');
    let first = place.start.saturating_sub(1) as usize;
    let lines = lines.skip(first).take((place.end as usize).saturating_sub(first));
    let text = lines.collect::<Vec<_>>().concat();
    Some(String::from_utf8_lossy(&text).trim_end().to_owned()).filter(|text| !text.is_empty())
}
