//! Dispatch of the instructions of each stage, in order.

use std::collections::BTreeSet;
use std::rc::Rc;

use kiln_oci::Platform;

use crate::error::Error;
use crate::expand::Expander;
use crate::instruction::{Instruction, InstructionKind};
use crate::lint::{Finding, rules};
use crate::suggest::{self, Case};

use super::environment::{self, Environment};
use super::graph::{Output, PathSet};
use super::image;
use super::scan::SCAN_ARGS;
use super::stage::{Command, Stage, StageId};
use super::{Lowering, step_name};
use super::{
    add, arg, cmd, copy, entrypoint, env, expose, healthcheck, label, maintainer, onbuild, run,
    shell, stopsignal, user, volume, workdir,
};

/// An instruction in its context: the lowering, the stage and the stages that it reads.
pub(super) struct Site<'s, 'l> {
    /// The lowering of the Dockerfile.
    pub lowering: &'s mut Lowering<'l>,
    /// The instruction's stage. It is taken out of the lowering's stages during the dispatch.
    pub stage: &'s mut Stage,
    /// The number of the stage.
    pub id: StageId,
    /// The instruction that is dispatched.
    pub instruction: &'s Instruction,
    /// The stages that the instruction reads.
    pub sources: &'s [StageId],
    /// `true` if the instruction uses undefined variables.
    pub has_undefined: bool,
}

impl Lowering<'_> {
    /// Dispatches the instructions of every reachable stage, and continues after errors.
    pub(super) fn dispatch_stages(&mut self, reachable: &[bool]) {
        for (id, _) in reachable.iter().enumerate().filter(|(_, reached)| **reached) {
            if self.stages[id].dispatched {
                continue;
            }
            if self.budget.is_exceeded() {
                return;
            }
            self.stages.inherit(id);
            let placeholder = Stage::new(String::new(), None, self.stages[id].paths);
            let mut stage = std::mem::replace(&mut self.stages[id], placeholder);
            self.dispatch_stage(id, &mut stage);
            stage.dispatched = true;
            stage.scan = self.scan_args(&stage);
            self.stages[id] = stage;
        }
    }

    fn dispatch_stage(&mut self, id: StageId, stage: &mut Stage) {
        if let Err(error) = begin(stage, self) {
            self.fail(stage.error_at(error), true);
            return;
        }
        self.budget.spend_config(&stage.image);
        if let Err(error) = self.budget.check() {
            self.fail(stage.error_at(error), true);
            return;
        }
        let commands = std::mem::take(&mut stage.commands);
        for Command { instruction, sources, onbuild } in &commands {
            stage.in_trigger = *onbuild;
            self.checks.enter(&instruction.comments);
            let mut site =
                Site { lowering: self, stage, id, instruction, sources, has_undefined: false };
            let dispatched = site.dispatch().and_then(|()| site.charge());
            let dispatched = dispatched.and_then(|()| site.measure());
            if let Err(error) = dispatched {
                let is_certain = !site.has_undefined || self.budget.is_exceeded();
                self.fail(error.at(instruction.span), is_certain);
            }
            if self.budget.is_exceeded() {
                break;
            }
        }
        stage.commands = commands;
        self.checks.enter(&[]);
    }
}

/// Initializes a stage from its image config.
fn begin(stage: &mut Stage, lowering: &Lowering<'_>) -> Result<(), Error> {
    // A directory in place of a stage has no platform, as in the reference.
    let platform = stage.platform.get_or_insert_with(|| Platform {
        architecture: String::new(),
        os: String::new(),
        os_version: None,
        os_features: Vec::new(),
        variant: None,
    });
    let os = platform.os.clone();
    image::ensure_path(Rc::make_mut(&mut stage.image), &os);
    let config = Rc::clone(&stage.image);
    for entry in &config.config.env {
        let (key, value) = environment::split(entry);
        stage.state.set_env(key, value);
    }
    if !config.config.working_dir.is_empty() {
        workdir::change(stage, &config.config.working_dir)?;
    }
    if !config.config.user.is_empty() {
        stage.state.user.clone_from(&config.config.user);
    }
    stage.state.network = lowering.network;
    Ok(())
}

impl Site<'_, '_> {
    fn dispatch(&mut self) -> Result<(), Error> {
        match &self.instruction.kind {
            InstructionKind::Add(add) => add::dispatch(self, add),
            InstructionKind::Arg(arg) => arg::dispatch(self, arg),
            InstructionKind::Cmd(command) => {
                cmd::dispatch(self, command);
                Ok(())
            }
            InstructionKind::Copy(copy) => copy::dispatch(self, copy),
            InstructionKind::Entrypoint(command) => {
                entrypoint::dispatch(self, command);
                Ok(())
            }
            InstructionKind::Env(pairs) => env::dispatch(self, pairs),
            InstructionKind::Expose(ports) => expose::dispatch(self, ports),
            InstructionKind::Healthcheck(check) => {
                healthcheck::dispatch(self, check);
                Ok(())
            }
            InstructionKind::Label(pairs) => label::dispatch(self, pairs),
            InstructionKind::Maintainer(name) => {
                maintainer::dispatch(self, name);
                Ok(())
            }
            InstructionKind::Onbuild(trigger) => {
                onbuild::dispatch(self, trigger);
                Ok(())
            }
            InstructionKind::Run(run) => run::dispatch(self, run),
            InstructionKind::Shell(words) => {
                shell::dispatch(self, words);
                Ok(())
            }
            InstructionKind::Stopsignal(signal) => stopsignal::dispatch(self, signal),
            InstructionKind::User(name) => user::dispatch(self, name),
            InstructionKind::Volume(paths) => volume::dispatch(self, paths),
            InstructionKind::Workdir(path) => workdir::dispatch(self, path),
        }
    }

    /// Charges the parts of the stage's state that the instruction's step copies.
    fn charge(&self) -> Result<(), Error> {
        let (state, budget) = (&self.stage.state, &self.lowering.budget);
        budget.spend(state.dir.len().saturating_add(state.user.len()));
        budget.check()
    }

    /// Checks the image config's size whenever enough of the budget was spent. A config that is too
    /// large to be read again ends the lowering.
    fn measure(&self) -> Result<(), Error> {
        let (stage, Lowering { budget, stages, .. }) = (&*self.stage, &*self.lowering);
        if !budget.is_measurement_due() {
            return Ok(());
        }
        let earlier = stage.base.map(|base| stages.history(base)).unwrap_or_default();
        let history = earlier.iter().chain(&stage.history).chain(&stage.image.history);
        image::check_least_size(&stage.image, history).inspect_err(|_| budget.exhaust())
    }

    /// Returns the files of a stage that the instruction reads, and the set of used paths. Returns
    /// `None` if the stage isn't dispatched yet. A trigger may read the very stage in which it
    /// runs.
    pub(super) fn source(&self, id: StageId) -> Option<(Option<Output>, PathSet)> {
        if id == self.id {
            return Some((self.stage.state.output, self.stage.paths));
        }
        let source = &self.lowering.stages[id];
        source.dispatched.then_some((source.state.output, source.paths))
    }

    /// Returns the stage's current environment.
    pub(super) fn env(&self) -> Rc<Environment> {
        Rc::clone(&self.stage.state.env)
    }

    /// Expands a word, and reports undefined variables.
    ///
    /// # Errors
    /// Fails on malformed words.
    pub(super) fn expand(&mut self, word: &str) -> Result<String, Error> {
        let expander = self.lowering.expander;
        self.expand_with(expander, word)
    }

    /// Expands the text of a heredoc. Quotes are kept, and a backslash is the escape character
    /// regardless of the directive.
    ///
    /// # Errors
    /// Fails on malformed substitutions.
    pub(super) fn expand_text(&mut self, text: &str) -> Result<String, Error> {
        let expander = Expander { skip_quotes: true, ..Expander::new('\\') };
        self.expand_with(expander, text)
    }

    /// Expands several words, and reports undefined variables.
    ///
    /// # Errors
    /// Fails on malformed words.
    pub(super) fn expand_all(&mut self, words: &[String]) -> Result<Vec<String>, Error> {
        words.iter().map(|word| self.expand(word)).collect()
    }

    /// Records whether a word uses undefined variables, without reporting them.
    pub(super) fn note_variables(&mut self, word: &str) {
        let expansion = self.lowering.expander.process_word(word, &*self.env());
        self.has_undefined |= expansion.is_ok_and(|expansion| !expansion.unmatched.is_empty());
    }

    fn expand_with(&mut self, expander: Expander, word: &str) -> Result<String, Error> {
        let env = self.env();
        let expansion = expander.process_word(word, &*env).inspect_err(|_| {
            // A required variable may be unset because of an earlier error.
            self.has_undefined |= word.contains('?');
        })?;
        self.has_undefined |= !expansion.unmatched.is_empty();
        self.report_undefined(&expansion.unmatched, &env);
        self.lowering.budget.spend(expansion.text.len());
        self.lowering.budget.check()?;
        Ok(expansion.text)
    }

    fn report_undefined(&mut self, unmatched: &BTreeSet<String>, env: &Environment) {
        for name in unmatched {
            let declared = self.stage.build_args.iter().any(|arg| *arg.key == **name);
            if !declared && !SCAN_ARGS.contains(&name.as_str()) {
                // A variable may have an empty name, which is no useful suggestion.
                let nearest = suggest::nearest(name, env.keys(), Case::Sensitive)
                    .filter(|nearest| !nearest.is_empty());
                self.report(rules::undefined_var(name, nearest.as_deref()));
            }
        }
    }

    /// Reports a finding at the instruction.
    pub(super) fn report(&mut self, finding: Finding) {
        self.lowering.checks.report(finding, Some(self.instruction.span));
    }

    /// Adds an entry to the stage's history.
    pub(super) fn commit(&mut self, text: String, has_layer: bool) {
        let created = self.lowering.epoch.as_ref().and_then(|epoch| epoch.text.as_deref());
        self.lowering.budget.spend(text.len());
        self.stage.history.push(image::history(text, has_layer, created));
    }

    /// Adds the history entry of an instruction that creates a layer.
    pub(super) fn commit_layer(&mut self, text: &str) {
        self.commit(format!("{text} # buildkit"), true);
    }

    /// Numbers the instruction's step and returns its name.
    pub(super) fn step_name(&mut self) -> String {
        let env = self.env();
        let text =
            step_name::of_instruction(&self.instruction.original, self.lowering.expander, &*env);
        self.lowering.budget.spend(text.len());
        let platform = self.stage.platform.clone();
        let platform = platform.and_then(|platform| self.lowering.named_platform(&platform));
        step_name::next(self.stage, &text, platform.as_ref(), &*env)
    }
}
