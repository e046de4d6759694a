//! The state of the stages during lowering.
//!
//! Besides the stages of the Dockerfile there are *unregistered* stages: one for each image that
//! `COPY --from` or `RUN --mount=from` names without a `FROM`, and one for each mount that names
//! nothing. The reference counts the latter too, and numbers in `--from=N` and step names depend on
//! that count.

use std::collections::HashMap;
use std::ops::{Index, IndexMut};
use std::rc::Rc;

use kiln_llb::op::NetMode;

use kiln_oci::{History, ImageConfig, Platform};

use crate::error::{Error, Span};
use crate::instruction::{self, Instruction};
use crate::text::to_lower;

use super::environment::Environment;
use super::graph::{Output, PathSet};
use super::named_context::NamedContext;
use super::outline::Needs;
use super::scan::ScanArgs;

/// The number of a stage, counted from zero.
pub(super) type StageId = usize;

/// The files of a stage, and the settings of its next process.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The output with the files; `None` for an empty file system.
    pub output: Option<Output>,
    /// The environment, including build arguments.
    pub env: Rc<Environment>,
    /// The absolute working directory.
    pub dir: String,
    /// The user and, optionally, group that run processes; empty for the default.
    pub user: String,
    /// The platform in normal form, if the origin of the files has one.
    pub platform: Option<Platform>,
    /// The network mode of processes.
    pub network: NetMode,
}

impl State {
    /// Returns a state with the given files and the working directory `/`.
    pub(super) fn of(output: Option<Output>, platform: Option<&Platform>) -> Self {
        let platform = platform.map(Platform::normal);
        Self { output, dir: "/".to_owned(), platform, ..Self::default() }
    }

    /// Sets an environment variable.
    pub(super) fn set_env(&mut self, key: &str, value: &str) {
        Rc::make_mut(&mut self.env).set(key, value);
    }
}

/// An instruction and the stages that it reads.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// The instruction, shared by reference count.
    pub instruction: Rc<Instruction>,
    /// The stages: one for `COPY --from`, one for each mount of `RUN`.
    pub sources: Vec<StageId>,
    /// `true` for a trigger of the base image.
    pub onbuild: bool,
}

/// A declared build argument with its value.
#[derive(Clone, Debug)]
pub(super) struct BuildArg {
    /// The name of the argument.
    pub key: Rc<str>,
    /// The argument's value, if it has one.
    pub value: Option<Rc<str>>,
}

/// A stage during lowering.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Stage {
    /// The name given by `AS`, in lower case, or empty.
    pub name: String,
    /// The description from the comment in front of the stage.
    pub doc: String,
    /// The inputs that the stage accepts.
    pub needs: Needs,
    /// The name used in messages and step names.
    pub step_name: String,
    /// The name of the base: expanded, then resolved.
    pub base_name: String,
    /// The `FROM` line as written.
    pub original: String,
    /// The lines of the `FROM`.
    pub span: Option<Span>,
    /// The platform, once it is known.
    pub platform: Option<Platform>,
    /// The earlier stage on which it is built.
    pub base: Option<StageId>,
    /// The named context that replaces the stage.
    pub named_context: Option<NamedContext>,
    /// The instructions, including triggers.
    pub commands: Vec<Command>,
    /// The stages that the instructions read, and the lines of those instructions.
    pub deps: Vec<(StageId, Span)>,
    /// The files, and the settings of the next process.
    pub state: State,
    /// The image config, without the history entries of this Dockerfile.
    pub image: Rc<ImageConfig>,
    /// The history entries that this stage adds.
    pub history: Vec<History>,
    /// Build arguments in order of declaration, those of the base stage included.
    pub build_args: Vec<BuildArg>,
    /// The used paths of the stage's own files, if they come from a local context.
    pub paths: PathSet,
    /// The arguments of scans. They select no stage whose files come from elsewhere.
    pub scan: ScanArgs,
    /// `true` if the stage is complete.
    pub dispatched: bool,
    /// `true` if the base image is resolved.
    pub resolved: bool,
    /// `true` if the triggers of the base stage were added.
    pub triggered: bool,
    /// `true` if the stage only exists because an instruction names its image.
    pub unregistered: bool,
    /// `true` if the steps run even when cached.
    pub ignore_cache: bool,
    /// `true` if the current instruction is a trigger.
    pub in_trigger: bool,
    /// The number of steps that are numbered already.
    pub step: usize,
    /// The total number of steps.
    pub steps: usize,
    /// `true` if the stage has a `WORKDIR`.
    pub workdir_set: bool,
    /// The lines of the last `ENTRYPOINT`.
    pub entrypoint: Option<Span>,
    /// The lines of the last `CMD`.
    pub cmd: Option<Span>,
    /// The lines of the last `HEALTHCHECK`.
    pub healthcheck: Option<Span>,
}

impl Stage {
    /// Returns a stage on `base_name` without instructions.
    pub(super) fn new(base_name: String, span: Option<Span>, paths: PathSet) -> Self {
        Self {
            name: String::new(),
            doc: String::new(),
            needs: Needs::default(),
            step_name: String::new(),
            base_name,
            original: String::new(),
            span,
            platform: None,
            base: None,
            named_context: None,
            commands: Vec::new(),
            deps: Vec::new(),
            state: State::of(None, None),
            image: Rc::default(),
            history: Vec::new(),
            build_args: Vec::new(),
            paths,
            scan: ScanArgs::default(),
            dispatched: false,
            resolved: false,
            triggered: false,
            unregistered: false,
            ignore_cache: false,
            in_trigger: false,
            step: 0,
            steps: 0,
            workdir_set: false,
            entrypoint: None,
            cmd: None,
            healthcheck: None,
        }
    }

    /// Returns the stage for a `FROM`.
    pub(super) fn from_instruction(
        stage: &instruction::Stage,
        base_name: String,
        paths: PathSet,
    ) -> Self {
        Self {
            name: stage.name.clone(),
            doc: stage.doc.clone(),
            step_name: stage.name.clone(),
            original: stage.original.clone(),
            ..Self::new(base_name, Some(stage.span), paths)
        }
    }

    /// Returns the image config for modification.
    pub(super) fn image_mut(&mut self) -> &mut ImageConfig {
        Rc::make_mut(&mut self.image)
    }

    /// Returns `error` with the place of the stage's `FROM`.
    pub(super) fn error_at(&self, error: Error) -> Error {
        match self.span {
            Some(span) => error.at(span),
            None => error,
        }
    }

    /// Returns the operating system of the stage's platform.
    pub(super) fn os(&self) -> &str {
        self.platform.as_ref().map_or("linux", |platform| platform.os.as_str())
    }
}

/// All stages, in order, with an index of their names.
#[derive(Debug, Default)]
pub(super) struct Stages {
    list: Vec<Stage>,
    by_name: HashMap<String, StageId>,
}

impl Stages {
    /// Adds a stage. If an earlier stage has the name of its base, that stage becomes its base.
    pub(super) fn add(&mut self, mut stage: Stage) -> StageId {
        stage.base = self.by_name.get(&stage.base_name).copied();
        if let Some(base) = stage.base {
            stage.needs.from_args.extend(self.list[base].needs.from_args.iter().cloned());
        }
        let id = self.list.len();
        if !stage.name.is_empty() {
            self.by_name.insert(to_lower(&stage.name), id);
        }
        self.list.push(stage);
        id
    }

    /// Returns the last stage with a name, regardless of case.
    pub(super) fn by_name(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&to_lower(name)).copied()
    }

    /// Returns the stage with a number.
    ///
    /// # Errors
    /// Fails if no stage has the number.
    pub(super) fn by_number(&self, number: i64) -> Result<StageId, Error> {
        usize::try_from(number)
            .ok()
            .filter(|number| *number < self.list.len())
            .ok_or_else(|| Error::new(format!("invalid stage index {number}")))
    }

    /// Returns the number of stages.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the names of the named stages.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|stage| stage.name.as_str()).filter(|name| !name.is_empty())
    }

    /// Copies the inherited settings from the stage's base.
    pub(super) fn inherit(&mut self, id: StageId) {
        let Some(base) = self.list[id].base else {
            return;
        };
        let (before, after) = self.list.split_at_mut(id);
        let (base, stage) = (&before[base], &mut after[0]);
        stage.state = base.state.clone();
        stage.platform.clone_from(&base.platform);
        stage.image = Rc::clone(&base.image);
        if !stage.image.config.on_build.is_empty() {
            stage.image_mut().config.on_build.clear();
        }
        stage.paths = base.paths;
        stage.workdir_set = base.workdir_set;
        stage.build_args.extend(base.build_args.iter().cloned());
    }

    /// Returns the history entries of a stage and the stages below, without those of the base
    /// image.
    pub(super) fn history(&self, id: StageId) -> Vec<History> {
        let mut chain = vec![id];
        while let Some(base) = chain.last().and_then(|id| self.list[*id].base) {
            chain.push(base);
        }
        chain.into_iter().rev().flat_map(|id| self.list[id].history.iter().cloned()).collect()
    }
}

impl Index<StageId> for Stages {
    type Output = Stage;

    fn index(&self, id: StageId) -> &Stage {
        &self.list[id]
    }
}

impl IndexMut<StageId> for Stages {
    fn index_mut(&mut self, id: StageId) -> &mut Stage {
        &mut self.list[id]
    }
}
