//! `ONBUILD`: triggers, which are stored in the image config and run in stages built on the image.

use std::rc::Rc;

use crate::error::Error;
use crate::instruction::InstructionKind;
use crate::parser;

use super::dispatch::Site;
use super::stage::{Command, StageId};
use super::{Lowering, Scope};

/// The maximal number of images that triggers may name, including those named by the images' own
/// triggers.
const MAX_TRIGGERED: usize = 1000;

/// Stores a trigger in the image config.
pub(super) fn dispatch(site: &mut Site<'_, '_>, trigger: &str) {
    site.stage.image_mut().config.on_build.push(trigger.to_owned());
}

impl Lowering<'_> {
    /// Resolves the stages that the target reaches, until triggers add no further ones.
    ///
    /// # Errors
    /// Fails on images that can't be resolved, and on malformed triggers.
    pub(super) fn resolve(&mut self, target: StageId) -> Result<Vec<bool>, Error> {
        let limit = self.stages.len() + MAX_TRIGGERED;
        loop {
            if self.stages.len() > limit {
                // The reference would continue until it runs out of memory.
                return Err(self.stages[target].error_at(Error::new(format!(
                    "triggers of base images name more than {MAX_TRIGGERED} images: do they name \
                     each other?"
                ))));
            }
            let reachable = self.reachable(target);
            let wanted = match self.scope {
                Scope::Target => reachable.clone(),
                // Triggers run only in stages that the target needs, whatever the scope.
                Scope::All => vec![true; self.stages.len()],
            };
            self.resolve_bases(&wanted)?;
            let mut is_complete = true;
            for (id, _) in reachable.iter().enumerate().filter(|(_, reached)| **reached) {
                self.stages.inherit(id);
                let triggers = self.take_triggers(id);
                if !triggers.is_empty() {
                    let result = self.add_triggers(id, &triggers);
                    is_complete &= !result.map_err(|error| {
                        let spans = self.stages[id].span.into_iter().collect();
                        Error { spans, ..error }
                    })?;
                }
            }
            if is_complete {
                return Ok(wanted);
            }
        }
    }

    /// Removes and returns the triggers that run in a stage: those of its base image, and those
    /// that its base stage will record.
    fn take_triggers(&mut self, id: StageId) -> Vec<String> {
        let stage = &mut self.stages[id];
        let mut triggers = stage.image.config.on_build.clone();
        if !triggers.is_empty() {
            stage.image_mut().config.on_build.clear();
        }
        let (base, triggered) = (stage.base, stage.triggered);
        if let (Some(base), false) = (base, triggered) {
            self.stages[id].triggered = true;
            triggers.extend(self.stages[base].commands.iter().filter_map(|command| {
                match &command.instruction.kind {
                    InstructionKind::Onbuild(trigger) => Some(trigger.clone()),
                    _ => None,
                }
            }));
        }
        triggers
    }

    /// Inserts triggers before a stage's instructions. Returns `true` if they read other stages.
    fn add_triggers(&mut self, id: StageId, triggers: &[String]) -> Result<bool, Error> {
        let span = self.stages[id].span.unwrap_or_default();
        let mut commands = Vec::with_capacity(triggers.len());
        let mut has_sources = false;
        for trigger in triggers {
            let instruction = parser::parse_trigger(trigger, span)?;
            let sources = self.sources(&instruction)?;
            let sources = self.register(sources);
            has_sources |= !sources.is_empty();
            self.stages[id].deps.extend(sources.iter().map(|source| (*source, span)));
            commands.push(Command { instruction: Rc::new(instruction), sources, onbuild: true });
        }
        let stage = &mut self.stages[id];
        stage.steps += commands.len();
        commands.append(&mut stage.commands);
        stage.commands = commands;
        Ok(has_sources)
    }
}
