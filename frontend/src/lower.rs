//! Instructions to nodes and an image config.
//!
//! In order:
//!
//! 1. Global arguments are evaluated, and with them every `FROM` ([`arguments`], [`prepare`]).
//! 2. Instructions that read other stages or images are connected with those ([`dependencies`]).
//! 3. What the target reaches is resolved: base images, all in one request, and named contexts
//!    ([`base`], [`named_context`]). Triggers of base images come in front of a stage's own
//!    instructions ([`onbuild`]), and may need stages that need resolving in turn.
//! 4. The reachable stages are dispatched in order ([`dispatch`]): one file for each instruction.
//!    Each changes the stage's state and image config, and adds plans of ops to the [`graph`].
//! 5. The plans that the target reaches become nodes.
//!
//! A stage that another one is built on hands its state on by reference count; nothing is copied
//! per instruction but what ends up in an op.

mod add;
mod arg;
mod arguments;
mod base;
mod budget;
mod capabilities;
mod checks;
mod chmod;
mod cmd;
mod copy;
mod copy_sources;
mod dependencies;
mod dispatch;
mod entrypoint;
mod env;
mod environment;
mod epoch;
mod epoch_stage;
mod expose;
mod git;
mod go_text;
mod graph;
mod healthcheck;
mod image;
mod label;
mod limits;
mod main_context;
mod maintainer;
mod metadata;
mod named_context;
mod offline;
mod onbuild;
mod outline;
mod path;
mod platform;
mod prepare;
mod reference;
mod run;
mod run_mount;
mod run_secret;
mod run_ssh;
mod shell;
mod stage;
mod step_name;
mod stopsignal;
#[cfg(test)]
mod tests;
mod url;
mod user;
mod volume;
mod workdir;

use std::collections::BTreeMap;

use kiln_llb::op::{NetMode, ProxyEnv};
use kiln_llb::{Definition, Edge, SourceInfo};
use kiln_oci::{ImageConfig, Platform};

pub use budget::SpentText;
pub use limits::ProcessLimits;

use crate::call::{Outline, Report};
use crate::error::Error;
use crate::expand::Expander;
use crate::instruction::Dockerfile;
use crate::lint::{Linter, Warning};
use crate::parser::{self, Parsed};
use crate::resolve::{ContextFiles, Images, ResolveMode};
use crate::text::parse_bool;

use arguments::GlobalArgs;
use budget::Budget;
use checks::Checks;
use epoch::Epoch;
use graph::Graph;
use main_context::MainContext;
pub use main_context::{is_remote_context, remote_context};
use named_context::NamedContexts;
use stage::{StageId, Stages};

/// What a build asks of the frontend.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub struct Options {
    /// The stage to build, by name; `None` stands for the last.
    pub target: Option<String>,
    /// Values of arguments (`--build-arg`).
    pub build_args: BTreeMap<String, String>,
    /// Labels (`--label`).
    pub labels: BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: Platform,
    /// Whether nobody has asked for that platform: then an image on a base for another one stays
    /// what its base is.
    pub implicit_platform: bool,
    /// The platform that builds run on.
    pub build_platform: Platform,
    /// The network mode of `RUN` where it names none: `host`, `none`, or nothing.
    pub network: Option<String>,
    /// Who is asked for images (`--pull`).
    pub resolve_mode: ResolveMode,
    /// Named contexts (`--build-context`): name to value as typed. Directories are turned by the
    /// caller into `local:NAME`, the name of a local source that it knows. A value for `context`,
    /// a URL, stands in for the build context.
    pub named_contexts: BTreeMap<String, String>,
    /// Whether that URL leads to an archive, whose files are the context.
    pub archive_context: bool,
    /// The name of the Dockerfile, for messages.
    pub filename: String,
    /// `local.unique` of local sources: what ties them to this build.
    pub session: String,
    /// More hosts for `RUN` (`--add-host`): name and address.
    pub extra_hosts: Vec<(String, String)>,
    /// What `RUN` steps may use.
    pub limits: ProcessLimits,
    /// Host name of `RUN` steps.
    pub hostname: Option<String>,
    /// Stages whose steps run even when cached; `Some` and empty stands for all (`--no-cache`).
    pub no_cache: Option<Vec<String>>,
    /// Whether the named context of the main context is a local source: its name, `context`.
    pub context_name: String,
    /// Whether several platforms are built: step names tell them apart.
    pub multi_platform: bool,
    /// Whether ignore files and `--exclude` count where BuildKit heeds them, and nowhere else.
    pub strict_buildkit: bool,
    /// The text that the Dockerfile has been expanded to, which clones of the options share.
    pub spent: SpentText,
}

impl Default for Options {
    /// A build of the last stage for this machine, with nothing given.
    fn default() -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            platform: Platform::host(),
            implicit_platform: false,
            build_platform: Platform::host(),
            network: None,
            resolve_mode: ResolveMode::default(),
            named_contexts: BTreeMap::new(),
            archive_context: false,
            filename: "Dockerfile".to_owned(),
            session: String::new(),
            extra_hosts: Vec::new(),
            limits: ProcessLimits::default(),
            hostname: None,
            no_cache: None,
            context_name: "context".to_owned(),
            multi_platform: false,
            strict_buildkit: false,
            spent: SpentText::default(),
        }
    }
}

/// What the frontend makes of a Dockerfile.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The image's files; `None` for an empty image.
    pub edge: Option<Edge>,
    /// The image config, without the layers that the build adds.
    pub image: ImageConfig,
    /// Build checks that fired, by line and rule.
    pub warnings: Vec<Warning>,
    /// `SOURCE_DATE_EPOCH`, in seconds, where it is given.
    pub epoch: Option<i64>,
    /// The Dockerfile, for the places of ops.
    pub source: SourceInfo,
    /// Whether the result is one of several platforms, even where there is only one
    /// (`BUILDKIT_MULTI_PLATFORM`).
    pub multi_platform: bool,
}

impl Lowered {
    /// Returns the graph as a definition.
    pub fn definition(&self) -> Definition {
        let Some(edge) = &self.edge else {
            return Definition::default();
        };
        Definition { sources: vec![self.source.clone()], ..edge.marshal() }
    }
}

/// Makes a graph and an image config of a Dockerfile.
///
/// # Errors
/// Returns what is wrong with it: one error, or several where they are independent.
pub fn lower(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
) -> Result<Lowered, Vec<Error>> {
    lower_or_warn(source, options, images, context, &mut Vec::new())
}

/// Makes a graph and an image config of a Dockerfile. What the build checks find is added to
/// `warnings` whether there are errors or not.
///
/// # Errors
/// As [`lower`].
pub fn lower_or_warn(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
    warnings: &mut Vec<Warning>,
) -> Result<Lowered, Vec<Error>> {
    let attempt = attempt(source, options, images, context, Scope::Target);
    let (lowering, target) = attempt.reached.inspect_err(|_| {
        warnings.extend(in_order(attempt.warnings));
    })?;
    let lowered = lowering.finish(target, source_info(source, options));
    let lowered = lowered.map_err(|error| vec![error])?;
    warnings.extend(lowered.warnings.iter().cloned());
    Ok(lowered)
}

/// Returns warnings by line and rule.
fn in_order(mut warnings: Vec<Warning>) -> Vec<Warning> {
    let place = |warning: &Warning| warning.spans.first().map_or(0, |span| span.start);
    warnings.sort_by(|a, b| (place(a), a.rule, &a.message).cmp(&(place(b), b.rule, &b.message)));
    warnings
}

/// Tells what a build of a Dockerfile can be given.
///
/// # Errors
/// As [`lower`].
pub fn outline(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
) -> Result<Outline, Vec<Error>> {
    let (lowering, target) = attempt(source, options, images, context, Scope::Target).reached?;
    Ok(lowering.outline(target, source))
}

/// Runs the build checks on what the target needs, or on all stages where no target is named.
pub fn check(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
) -> Report {
    let named = options.target.as_ref().is_some_and(|name| !name.is_empty());
    let scope = if named { Scope::Target } else { Scope::All };
    let Attempt { reached, warnings } = attempt(source, options, images, context, scope);
    let (warnings, errors) = match reached {
        Ok((lowering, _)) => (lowering.checks.into_warnings(), Vec::new()),
        Err(errors) => (warnings, errors),
    };
    Report { warnings, errors, source: source_info(source, options) }
}

fn source_info(source: &[u8], options: &Options) -> SourceInfo {
    SourceInfo {
        filename: options.filename.clone(),
        data: source.to_vec(),
        language: "Dockerfile".to_owned(),
    }
}

/// Which stages are lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// Those that the target needs.
    Target,
    /// All.
    All,
}

/// How far lowering has come.
struct Attempt<'a> {
    /// The lowering, at its target, or all that is wrong.
    reached: Result<(Lowering<'a>, StageId), Vec<Error>>,
    /// Where something is wrong, the checks that fired until then.
    warnings: Vec<Warning>,
}

/// Lowers as far as possible. Where parsing finds errors, the instructions that are left are
/// lowered without asking for images, to find what else is wrong.
fn attempt<'a>(
    source: &[u8],
    options: &'a Options,
    images: &'a dyn Images,
    context: &'a dyn ContextFiles,
    scope: Scope,
) -> Attempt<'a> {
    let failed = |errors, warnings| Attempt { reached: Err(errors), warnings };
    if let Err(error) = multi_platform(options) {
        return failed(vec![error], Vec::new());
    }
    let linter = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        Some(value) => Linter::from_build_arg(value),
        None => Linter::from_directive(source),
    };
    let linter = match linter {
        Ok(linter) => linter,
        // That there is nothing to be checked is told first.
        Err(_) if source.is_empty() => Linter::default(),
        Err(error) => return failed(vec![error], Vec::new()),
    };
    let Parsed { dockerfile, mut errors, has_all_stages } = parser::parse_all(source, linter);
    if !has_all_stages && !errors.is_empty() {
        return failed(errors, dockerfile.warnings);
    }
    let mut lowering = match Lowering::new(&dockerfile, options, images, context) {
        Ok(lowering) => lowering,
        Err(error) => {
            errors.push(error);
            return failed(errors, dockerfile.warnings);
        }
    };
    lowering.scope = scope;
    lowering.errors = errors;
    match lowering.run(dockerfile) {
        Ok(target) => Attempt { reached: Ok((lowering, target)), warnings: Vec::new() },
        Err(errors) => failed(errors, lowering.checks.into_warnings()),
    }
}

/// A Dockerfile on its way to a graph.
struct Lowering<'a> {
    options: &'a Options,
    images: &'a dyn Images,
    context: &'a dyn ContextFiles,
    /// Values of arguments.
    build_args: BTreeMap<String, String>,
    global_args: GlobalArgs,
    expander: Expander,
    budget: Budget,
    checks: Checks,
    contexts: NamedContexts,
    main_context: MainContext,
    epoch: Option<Epoch>,
    proxies: Option<ProxyEnv>,
    network: NetMode,
    hostname: String,
    multi_platform: bool,
    graph: Graph,
    stages: Stages,
    scope: Scope,
    /// What is wrong, as far as it is known.
    errors: Vec<Error>,
}

impl<'a> Lowering<'a> {
    fn new(
        dockerfile: &Dockerfile,
        options: &'a Options,
        images: &'a dyn Images,
        context: &'a dyn ContextFiles,
    ) -> Result<Self, Error> {
        let mut graph = Graph::default();
        let given = |key: &str| options.build_args.get(key).filter(|value| !value.is_empty());
        let hostname = given("BUILDKIT_SANDBOX_HOSTNAME").or(options.hostname.as_ref()).cloned();
        Ok(Self {
            options,
            images,
            context,
            build_args: options.build_args.clone(),
            global_args: GlobalArgs::default(),
            expander: Expander::new(dockerfile.escape),
            budget: Budget::new(options.spent.clone()),
            checks: Checks::new(dockerfile.linter.clone(), dockerfile.warnings.clone()),
            contexts: NamedContexts::new(&options.named_contexts),
            main_context: MainContext::new(options, context, &mut graph)?,
            epoch: None,
            proxies: arguments::proxies(&options.build_args),
            network: net_mode(options.network.as_deref())?,
            hostname: hostname.unwrap_or_default(),
            multi_platform: multi_platform(options)?,
            graph,
            stages: Stages::default(),
            scope: Scope::Target,
            errors: Vec::new(),
        })
    }

    /// Dispatches what is to be lowered.
    ///
    /// # Errors
    /// Returns all that is wrong.
    fn run(&mut self, dockerfile: Dockerfile) -> Result<StageId, Vec<Error>> {
        let target = self.stages_to_target(dockerfile);
        let target = target.map_err(|error| self.errors.push(error));
        match target {
            Ok(target) if self.errors.is_empty() => Ok(target),
            _ => Err(std::mem::take(&mut self.errors)),
        }
    }

    /// Goes on after errors where that makes sense; the last one that doesn't let it is returned.
    fn stages_to_target(&mut self, dockerfile: Dockerfile) -> Result<StageId, Error> {
        self.prepare(dockerfile)?;
        let target = self.target()?;
        self.connect()?;
        if !self.errors.is_empty() {
            // There will be no build; what is left to be found doesn't take a network.
            self.images = &offline::NoImages;
        }
        let reachable = self.resolve(target)?;
        self.dispatch_stages(&reachable);
        match self.checks.error() {
            Some(error) if self.errors.is_empty() => Err(error),
            _ => Ok(target),
        }
    }

    /// Takes in an error, unless it may come of an earlier one: after an error, what a variable
    /// stands for is not certain.
    fn fail(&mut self, error: Error, is_certain: bool) {
        if is_certain || self.errors.is_empty() {
            self.errors.push(error);
        }
    }

    /// Returns the graph and the image config of the target.
    fn finish(mut self, target: StageId, source: SourceInfo) -> Result<Lowered, Error> {
        self.graph.use_path(self.stages[target].paths, "/");
        let warnings = in_order(self.checks.into_warnings());
        let history = self.stages.history(target);
        if let Some(epoch) = self.epoch.as_ref().filter(|_| !history.is_empty()) {
            epoch.check()?;
        }
        let stage = &mut self.stages[target];
        let mut image = std::mem::take(stage.image_mut());
        image.history.extend(history);
        image.config.labels.extend(self.options.labels.clone());
        if !self.options.implicit_platform {
            image::set_platform(&mut image, &self.options.platform);
        }
        image::normalize_platform(&mut image);
        image::check_size(&image)?;
        let output = stage.state.output;
        let edge = output.map(|output| self.graph.finish(output)).transpose()?;
        let epoch = self.epoch.map(|epoch| epoch.seconds);
        Ok(Lowered { edge, image, warnings, epoch, source, multi_platform: self.multi_platform })
    }

    fn target(&self) -> Result<StageId, Error> {
        let Some(name) = self.options.target.as_ref().filter(|name| !name.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        self.stages.by_name(name).ok_or_else(|| {
            let message = format!("target stage {} could not be found", crate::text::quote(name));
            let case = crate::suggest::Case::Sensitive;
            let error =
                Error::new(crate::suggest::suggest(message, name, self.stages.names(), case));
            let names: Vec<&str> = self.stages.names().collect();
            error.with_hint(match names.as_slice() {
                [] => "no stage has a name, as in `FROM image AS name`".to_owned(),
                [name] => format!("the only stage with a name is {name}"),
                names => format!("the stages are {}", names.join(", ")),
            })
        })
    }

    /// Returns the platform that step names tell, if they tell one.
    fn named_platform(&self, platform: &Platform) -> Option<Platform> {
        self.multi_platform.then(|| platform.clone())
    }
}

/// Tells whether step names tell platforms apart.
fn multi_platform(options: &Options) -> Result<bool, Error> {
    let several = options.multi_platform;
    let given = options.build_args.get("BUILDKIT_MULTI_PLATFORM");
    let Some(value) = given.filter(|value| !value.is_empty()) else { return Ok(several) };
    match parse_bool(value) {
        None => Err(Error::new(format!("invalid boolean value for multi-platform: {value}"))),
        Some(false) if several => Err(Error::new(
            "conflicting config: returning multiple target platforms is not allowed",
        )),
        Some(asked) => Ok(asked),
    }
}

fn net_mode(name: Option<&str>) -> Result<NetMode, Error> {
    match name {
        None | Some("" | "default" | "sandbox") => Ok(NetMode::Unset),
        Some("host") => Ok(NetMode::Host),
        Some("none") => Ok(NetMode::None),
        Some(name) => Err(Error::new(format!("invalid netmode {name}"))),
    }
}
