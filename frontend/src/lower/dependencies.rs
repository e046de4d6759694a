//! The stages that an instruction reads, and the stages that the target needs.

use crate::error::{Error, Span};
use crate::expand::EmptyEnv;
use crate::instruction::{Instruction, InstructionKind};

use super::Lowering;
use super::run_mount;
use super::stage::{Stage, StageId, Stages};

impl Lowering<'_> {
    /// Returns the stages that an instruction reads. An image that the instruction names itself
    /// becomes an unregistered stage later.
    ///
    /// # Errors
    /// Fails on stages that don't exist.
    pub(super) fn sources(&self, instruction: &Instruction) -> Result<Vec<Source>, Error> {
        let mut sources = Vec::new();
        match &instruction.kind {
            InstructionKind::Copy(copy) if !copy.from.is_empty() => {
                sources.push(self.copy_source(&copy.from, instruction.span)?);
            }
            InstructionKind::Run(run) => {
                for from in run_mount::origins(run) {
                    let from = if from.is_empty() { "scratch" } else { from.as_str() };
                    sources.push(match self.stages.by_name(from) {
                        Some(id) => Source::Stage(id),
                        None => Source::Image(from.to_owned(), None),
                    });
                }
            }
            _ => {}
        }
        Ok(sources)
    }

    fn copy_source(&self, from: &str, span: Span) -> Result<Source, Error> {
        let expanded = self.expander.process_word(from, &EmptyEnv)?;
        if expanded.text != from {
            return Err(Error::new(
                "variable expansion is not supported for --from, define a new stage with FROM \
                 using ARG from global scope as a workaround",
            ));
        }
        if let Ok(number) = from.parse::<i64>() {
            return self.stages.by_number(number).map(Source::Stage);
        }
        Ok(match self.stages.by_name(from) {
            Some(id) => Source::Stage(id),
            None => Source::Image(from.to_owned(), Some(span)),
        })
    }

    /// Returns the stage of each source, in order. Adds stages for images.
    pub(super) fn register(&mut self, sources: Vec<Source>) -> Vec<StageId> {
        sources
            .into_iter()
            .map(|source| match source {
                Source::Stage(id) => id,
                Source::Image(name, span) => {
                    let paths = self.graph.new_path_set();
                    let stage = Stage { unregistered: true, ..Stage::new(name, span, paths) };
                    self.stages.add(stage)
                }
            })
            .collect()
    }

    /// Finds the stages that all instructions read. An instruction whose source doesn't exist is an
    /// error, and is removed.
    ///
    /// # Errors
    /// Fails on stages that depend on each other.
    pub(super) fn connect(&mut self) -> Result<(), Error> {
        for id in 0..self.stages.len() {
            let mut commands = std::mem::take(&mut self.stages[id].commands);
            commands.retain_mut(|command| {
                let sources = match self.sources(&command.instruction) {
                    Ok(sources) => sources,
                    Err(error) => {
                        self.fail(error.at(command.instruction.span), true);
                        return false;
                    }
                };
                command.sources = self.register(sources);
                let span = command.instruction.span;
                let deps = command.sources.iter().map(|source| (*source, span));
                self.stages[id].deps.extend(deps);
                true
            });
            self.stages[id].commands = commands;
        }
        check_cycles(&self.stages)?;
        if self.stages.len() == 1 {
            self.stages[0].step_name.clear();
        }
        Ok(())
    }

    /// Returns for each stage `true` if the target needs it.
    pub(super) fn reachable(&self, target: StageId) -> Vec<bool> {
        let mut reached = vec![false; self.stages.len()];
        let mut pending = vec![target];
        while let Some(id) = pending.pop() {
            if !std::mem::replace(&mut reached[id], true) {
                pending.extend(self.stages[id].base);
                pending.extend(self.stages[id].deps.iter().map(|(dep, _)| *dep));
            }
        }
        reached
    }
}

/// A stage or an image that an instruction reads.
pub(super) enum Source {
    /// A stage of the Dockerfile.
    Stage(StageId),
    /// The name of an image, and the lines that mention it.
    Image(String, Option<Span>),
}

/// Fails if stages depend on each other in a cycle.
fn check_cycles(stages: &Stages) -> Result<(), Error> {
    let mut visited = vec![false; stages.len()];
    let mut on_path = vec![false; stages.len()];
    for root in 0..stages.len() {
        if std::mem::replace(&mut visited[root], true) {
            continue;
        }
        on_path[root] = true;
        // A stage and the index of its next dependency. The spans are those of the dependencies on
        // the path.
        let mut path: Vec<(StageId, usize)> = vec![(root, 0)];
        let mut spans: Vec<Span> = Vec::new();
        while let Some((id, next)) = path.last_mut() {
            let Some((dep, span)) = stages[*id].deps.get(*next).copied() else {
                on_path[*id] = false;
                path.pop();
                spans.pop();
                continue;
            };
            *next += 1;
            if on_path[dep] {
                spans.push(span);
                let name = &stages[root].step_name;
                let error = Error::new(format!("circular dependency detected on stage: {name}"));
                return Err(spans.into_iter().fold(error, Error::at));
            }
            if !std::mem::replace(&mut visited[dep], true) {
                on_path[dep] = true;
                spans.push(span);
                path.push((dep, 0));
            }
        }
    }
    Ok(())
}
