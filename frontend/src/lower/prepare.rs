//! Creation of the stages, before their instructions are dispatched.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::error::Error;
use crate::instruction::{self, Dockerfile, InstructionKind};

use super::arguments::{self, GlobalArgs};
use super::stage::{Command, Stage};
use super::{Lowering, platform};

impl Lowering<'_> {
    /// Evaluates the global arguments and the `FROM` of every stage.
    ///
    /// # Errors
    /// Fails on malformed arguments, base names and platforms.
    pub(super) fn prepare(&mut self, dockerfile: Dockerfile) -> Result<(), Error> {
        let Dockerfile { global_args: declarations, stages, .. } = dockerfile;
        let last = stages.last().map(|stage| stage.name.as_str()).unwrap_or_default();
        let target = self.options.target.as_deref().filter(|name| !name.is_empty());
        let defaults = platform::default_args(
            &self.options.build_platform,
            &self.options.platform,
            target.unwrap_or(last),
            &self.build_args,
        );
        arguments::check_defaults(
            &stages,
            defaults.clone(),
            &declarations,
            self.expander,
            &mut self.checks,
        );
        self.global_args = GlobalArgs::new(
            defaults,
            &declarations,
            &self.build_args,
            self.expander,
            &self.budget,
        )?;
        self.read_epoch(&stages)?;
        let mut last = None;
        for (number, stage) in stages.into_iter().enumerate() {
            if let Err(error) = self.add_stage(number, stage) {
                self.errors.extend(last.replace(error));
            }
        }
        last.map_or(Ok(()), Err)
    }

    fn add_stage(&mut self, number: usize, from: instruction::Stage) -> Result<(), Error> {
        self.checks.enter(&from.comments);
        let (expander, checks) = (self.expander, &mut self.checks);
        let mut used = BTreeSet::new();
        let base_name = self.global_args.base_name(&from, expander, checks, &mut used)?;
        self.budget.spend(base_name.len());
        self.budget.check().map_err(|error| error.at(from.span))?;
        let platform = self.global_args.platform(&from, expander, checks, &mut used)?;
        self.checks.enter(&[]);
        let paths = self.graph.new_path_set();
        let mut stage = Stage::from_instruction(&from, base_name, paths);
        stage.commands = commands(from);
        stage.platform = platform;
        let wanted = stage.platform.as_ref().unwrap_or(&self.options.platform);
        if !stage.name.is_empty() {
            stage.named_context = self.contexts.find(&stage.name, wanted)?;
        }
        if stage.named_context.is_some() {
            let id = self.stages.add(stage);
            self.stages[id].base = None;
            return Ok(());
        }
        if stage.name.is_empty() {
            stage.step_name = format!("stage-{number}");
        }
        stage.needs.from_args = used;
        stage.ignore_cache = self.ignores_cache(&stage.name);
        let steps = stage.commands.iter().filter(|command| is_step(command)).count();
        let has_image = stage.base_name != "scratch";
        let id = self.stages.add(stage);
        let stage = &mut self.stages[id];
        stage.steps = steps + usize::from(has_image && stage.base.is_none());
        Ok(())
    }

    fn ignores_cache(&self, stage: &str) -> bool {
        match &self.options.no_cache {
            None => false,
            Some(names) if names.is_empty() => true,
            Some(names) => names.iter().any(|name| name.eq_ignore_ascii_case(stage)),
        }
    }
}

fn commands(stage: instruction::Stage) -> Vec<Command> {
    let command = |instruction| Command {
        instruction: Rc::new(instruction),
        sources: Vec::new(),
        onbuild: false,
    };
    stage.commands.into_iter().map(command).collect()
}

fn is_step(command: &Command) -> bool {
    matches!(
        command.instruction.kind,
        InstructionKind::Add(_)
            | InstructionKind::Copy(_)
            | InstructionKind::Run(_)
            | InstructionKind::Workdir(_)
    )
}
