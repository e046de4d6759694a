//! Stages while they are lowered.
//!
//! Besides the stages of the Dockerfile there are *unregistered* ones: one for every image that
//! `COPY --from` or `RUN --mount=from` names without a `FROM` (and one for every mount that names
//! nothing, which the reference counts too: numbers in `--from=N` and step names depend on it).

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

/// Number of a stage.
pub(super) type StageId = usize;

/// What a stage's files are, and how its next process would run.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    /// The files; `None` for an empty file system.
    pub output: Option<Output>,
    /// The environment, build arguments included.
    pub env: Rc<Environment>,
    /// The working directory.
    pub dir: String,
    /// The user.
    pub user: String,
    /// The platform in normal form, where the files' origin has one.
    pub platform: Option<Platform>,
    /// The network of processes.
    pub network: NetMode,
}

impl State {
    /// Returns a state with the given files, at the root.
    pub(super) fn of(output: Option<Output>, platform: Option<&Platform>) -> Self {
        let platform = platform.map(Platform::normal);
        Self { output, dir: "/".to_owned(), platform, ..Self::default() }
    }

    /// Sets a variable.
    pub(super) fn set_env(&mut self, key: &str, value: &str) {
        Rc::make_mut(&mut self.env).set(key, value);
    }
}

/// An instruction with the stages that it reads.
#[derive(Clone, Debug)]
pub(super) struct Command {
    /// The instruction.
    pub instruction: Rc<Instruction>,
    /// The stages: one for `COPY --from`, one for each mount of `RUN`.
    pub sources: Vec<StageId>,
    /// Whether it is a trigger of the base image.
    pub onbuild: bool,
}

/// A declared build argument and its value.
#[derive(Clone, Debug)]
pub(super) struct BuildArg {
    /// The name.
    pub key: Rc<str>,
    /// The value, if it has one.
    pub value: Option<Rc<str>>,
}

/// A stage.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct Stage {
    /// The name given by `AS`, in lower case, or empty.
    pub name: String,
    /// The comment about it.
    pub doc: String,
    /// What it can be given.
    pub needs: Needs,
    /// The name in messages and steps.
    pub step_name: String,
    /// What it is built on: expanded, then resolved.
    pub base_name: String,
    /// The `FROM` line.
    pub original: String,
    /// Where the `FROM` stands.
    pub span: Option<Span>,
    /// The platform, once it is known.
    pub platform: Option<Platform>,
    /// The earlier stage that it is built on.
    pub base: Option<StageId>,
    /// The named context that stands in for it.
    pub named_context: Option<NamedContext>,
    /// The instructions.
    pub commands: Vec<Command>,
    /// The stages that instructions read, and where those stand.
    pub deps: Vec<(StageId, Span)>,
    /// The files, and how processes run.
    pub state: State,
    /// The image config, without the history entries of this Dockerfile.
    pub image: Rc<ImageConfig>,
    /// The history entries that this stage adds.
    pub history: Vec<History>,
    /// Build arguments in order of declaration, those of the base stage included.
    pub build_args: Vec<BuildArg>,
    /// Which of its own files are used, if it comes from a local context.
    pub paths: PathSet,
    /// Whether nothing more is to be done for it.
    pub dispatched: bool,
    /// Whether its base image is known.
    pub resolved: bool,
    /// Whether the triggers of its base stage were added.
    pub triggered: bool,
    /// Whether only an instruction names it.
    pub unregistered: bool,
    /// Whether its steps run even when cached.
    pub ignore_cache: bool,
    /// Whether the instruction at hand is a trigger.
    pub in_trigger: bool,
    /// Steps that have a number already.
    pub step: usize,
    /// Steps that will have one.
    pub steps: usize,
    /// Whether a `WORKDIR` was met.
    pub workdir_set: bool,
    /// The last `ENTRYPOINT`.
    pub entrypoint: Option<Span>,
    /// The last `CMD`.
    pub cmd: Option<Span>,
    /// The last `HEALTHCHECK`.
    pub healthcheck: Option<Span>,
}

impl Stage {
    /// Returns a stage on `base_name` with nothing known about it.
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

    /// Returns the stage that a `FROM` begins.
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

    /// Returns the image config, to be changed.
    pub(super) fn image_mut(&mut self) -> &mut ImageConfig {
        Rc::make_mut(&mut self.image)
    }

    /// Returns an error at the stage's `FROM`.
    pub(super) fn error_at(&self, error: Error) -> Error {
        match self.span {
            Some(span) => error.at(span),
            None => error,
        }
    }

    /// Returns the operating system that the stage is for.
    pub(super) fn os(&self) -> &str {
        self.platform.as_ref().map_or("linux", |platform| platform.os.as_str())
    }
}

/// All stages, in order.
#[derive(Debug, Default)]
pub(super) struct Stages {
    list: Vec<Stage>,
    by_name: HashMap<String, StageId>,
}

impl Stages {
    /// Adds a stage. It is built on an earlier one if that has the name of its base.
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

    /// Returns the last stage with a name, in whatever case it is given.
    pub(super) fn by_name(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&to_lower(name)).copied()
    }

    /// Returns the stage with a number.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(super) fn by_number(&self, number: i64) -> Result<StageId, Error> {
        usize::try_from(number)
            .ok()
            .filter(|number| *number < self.list.len())
            .ok_or_else(|| Error::new(format!("invalid stage index {number}")))
    }

    /// Returns how many stages there are.
    pub(super) fn len(&self) -> usize {
        self.list.len()
    }

    /// Returns the names that stages were given.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.list.iter().map(|stage| stage.name.as_str()).filter(|name| !name.is_empty())
    }

    /// Gives a stage what it inherits from the stage that it is built on.
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

    /// Returns the history entries that lead to a stage, without those of its base image.
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
