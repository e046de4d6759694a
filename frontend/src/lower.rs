//! Lowering of instructions to nodes and an image config.
//!
//! The steps, in order:
//!
//! 1. Global arguments are evaluated, and with them every `FROM` ([`arguments`], [`prepare`]).
//! 2. Instructions that read other stages or images are connected with them ([`dependencies`]).
//! 3. Everything that the target reaches is resolved: base images, all in one request, and named
//!    contexts ([`base`], [`named_context`]). Triggers of base images are inserted before a stage's
//!    own instructions ([`onbuild`]). They may need further stages, which are resolved in turn.
//! 4. The reachable stages are dispatched in order ([`dispatch`]), with one file for each
//!    instruction. Each instruction changes the stage's state and image config, and adds plans of
//!    ops to the [`graph`].
//! 5. The plans that the target reaches become nodes.
//!
//! A stage shares its state with the stages built on it by reference count. An instruction copies
//! only the data that its op needs.

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
mod scan;
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
use crate::hint::Hint;
use crate::instruction::Dockerfile;
use crate::lint::{Linter, Warning};
use crate::parser::{self, Parsed};
use crate::resolve::{ContextFiles, Images, ResolveMode};
use kiln_oci::text::parse_bool;

use arguments::GlobalArgs;
use budget::Budget;
use checks::Checks;
use epoch::Epoch;
use graph::Graph;
use main_context::MainContext;
pub use main_context::{is_remote_context, remote_context, repository};
use named_context::NamedContexts;
pub use scan::ScanExtras;
use stage::{StageId, Stages};

/// The options of a build that concern the frontend.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a wish of its own")]
pub struct Options {
    /// The name of the stage to build; `None` for the last stage.
    pub target: Option<String>,
    /// The values of build arguments (`--build-arg`), by name.
    pub build_args: BTreeMap<String, String>,
    /// The labels to add to the image (`--label`).
    pub labels: BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: Platform,
    /// `true` if `platform` is a default and not the user's choice. An image with a base for
    /// another platform then keeps that platform.
    pub implicit_platform: bool,
    /// The platform on which the builder runs.
    pub build_platform: Platform,
    /// The network mode of `RUN` without `--network`: `host`, `none`, or `None` for the default.
    pub network: Option<String>,
    /// The places to look for images (`--pull`).
    pub resolve_mode: ResolveMode,
    /// The named contexts (`--build-context`): name to value as typed. The caller replaces
    /// directories by `local:NAME`, with the name of a local source. A URL for `context` replaces
    /// the build context.
    pub named_contexts: BTreeMap<String, String>,
    /// `true` if that URL leads to an archive whose files are the context.
    pub archive_context: bool,
    /// The files of the build context, if they are part of a graph of the caller's. They replace
    /// those of the URL or of the local source, and no ignore file applies to them.
    pub context: Option<Edge>,
    /// The graphs that named contexts refer to (`input:NAME`), by name.
    pub inputs: BTreeMap<String, ContextInput>,
    /// The IDs of the sessions that send local sources, by the source's name. Other sources come
    /// from the session of the build.
    pub local_sessions: BTreeMap<String, String>,
    /// The name of the Dockerfile, used in messages.
    pub filename: String,
    /// The value of `local.unique` of local sources, which ties them to this build.
    pub session: String,
    /// Additional hosts for `RUN` (`--add-host`): names and addresses.
    pub extra_hosts: Vec<(String, String)>,
    /// The resource limits of `RUN` steps.
    pub limits: ProcessLimits,
    /// The host name of `RUN` steps.
    pub hostname: Option<String>,
    /// The stages whose steps run even when cached (`--no-cache`). An empty list stands for all
    /// stages.
    pub no_cache: Option<Vec<String>>,
    /// The name of the local source with the files of the build context: `context`.
    pub context_name: String,
    /// `true` if several platforms are built. Step names then include the platform.
    pub multi_platform: bool,
    /// `true` to apply ignore files and `--exclude` only where BuildKit applies them.
    pub strict_buildkit: bool,
    /// `true` to return the files that a scanner reads beside those of the image.
    pub scans: bool,
    /// The amount of text expanded so far, which clones of the options share.
    pub spent: SpentText,
}

impl Default for Options {
    /// Returns the options for a build of the last stage for this machine.
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
            context: None,
            inputs: BTreeMap::new(),
            local_sessions: BTreeMap::new(),
            filename: "Dockerfile".to_owned(),
            session: String::new(),
            extra_hosts: Vec::new(),
            limits: ProcessLimits::default(),
            hostname: None,
            no_cache: None,
            context_name: "context".to_owned(),
            multi_platform: false,
            strict_buildkit: false,
            scans: false,
            spent: SpentText::default(),
        }
    }
}

/// A graph that a named context refers to.
#[derive(Clone, Debug, Default)]
pub struct ContextInput {
    /// The output with the files; `None` for an empty file system.
    pub edge: Option<Edge>,
    /// The image config that stages built on it inherit.
    pub config: Option<ImageConfig>,
}

/// The result of lowering a Dockerfile.
#[derive(Clone, Debug)]
pub struct Lowered {
    /// The output that holds the image's files; `None` for an empty image.
    pub edge: Option<Edge>,
    /// The image config, without the layers that the build adds.
    pub image: ImageConfig,
    /// The build checks that fired, sorted by line and rule.
    pub warnings: Vec<Warning>,
    /// The value of `SOURCE_DATE_EPOCH` in seconds, if it is given.
    pub epoch: Option<i64>,
    /// The Dockerfile, to which the locations of ops refer.
    pub source: SourceInfo,
    /// `true` if the result is an index of platforms, even of a single one
    /// (`BUILDKIT_MULTI_PLATFORM`).
    pub multi_platform: bool,
    /// The files that a scanner reads beside those of the image ([`Options::scans`]).
    pub scan: ScanExtras,
}

impl Lowered {
    /// Returns the graph as a serializable definition.
    pub fn definition(&self) -> Definition {
        let Some(edge) = &self.edge else {
            return Definition::default();
        };
        Definition { sources: vec![self.source.clone()], ..edge.marshal() }
    }
}

/// Lowers a Dockerfile to a graph and an image config.
///
/// # Errors
/// Returns one error, or several if they are independent of each other.
pub fn lower(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
) -> Result<Lowered, Vec<Error>> {
    lower_or_warn(source, options, images, context, &mut Vec::new())
}

/// Lowers a Dockerfile to a graph and an image config. Appends the findings of the build checks to
/// `warnings`, even if lowering fails.
///
/// # Errors
/// See [`lower`].
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

/// Returns the warnings sorted by line, rule and message.
fn in_order(mut warnings: Vec<Warning>) -> Vec<Warning> {
    let place = |warning: &Warning| warning.spans.first().map_or(0, |span| span.start);
    warnings.sort_by(|a, b| (place(a), &a.rule, &a.message).cmp(&(place(b), &b.rule, &b.message)));
    warnings
}

/// Returns the inputs that a build of a Dockerfile accepts.
///
/// # Errors
/// See [`lower`].
pub fn outline(
    source: &[u8],
    options: &Options,
    images: &dyn Images,
    context: &dyn ContextFiles,
) -> Result<Outline, Vec<Error>> {
    let (lowering, target) = attempt(source, options, images, context, Scope::Target).reached?;
    Ok(lowering.outline(target, source))
}

/// Runs the build checks on the stages that the target needs, or on all stages if the options name
/// no target.
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
        ops: Vec::new(),
    }
}

/// The stages that are lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The stages that the target needs.
    Target,
    /// All stages of the Dockerfile.
    All,
}

/// The result of lowering as far as possible.
struct Attempt<'a> {
    /// The lowering and its target, or all errors.
    reached: Result<(Lowering<'a>, StageId), Vec<Error>>,
    /// If there are errors, the checks that fired before them.
    warnings: Vec<Warning>,
}

/// Lowers as far as possible. If parsing fails, the remaining instructions are lowered without
/// resolving images, to find further errors.
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
        // For an empty file, the error about it comes first.
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

/// The state of a lowering.
struct Lowering<'a> {
    options: &'a Options,
    images: &'a dyn Images,
    context: &'a dyn ContextFiles,
    /// The values of build arguments, by name.
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
    /// The errors found so far.
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

    /// Dispatches the stages in scope.
    ///
    /// # Errors
    /// Returns all errors that were found.
    fn run(&mut self, dockerfile: Dockerfile) -> Result<StageId, Vec<Error>> {
        let target = self.stages_to_target(dockerfile);
        let target = target.map_err(|error| self.errors.push(error));
        match target {
            Ok(target) if self.errors.is_empty() => Ok(target),
            _ => Err(std::mem::take(&mut self.errors)),
        }
    }

    /// Runs the steps of lowering, and continues after an error if possible. Returns the last error
    /// that stops it.
    fn stages_to_target(&mut self, dockerfile: Dockerfile) -> Result<StageId, Error> {
        self.prepare(dockerfile)?;
        let target = self.target()?;
        self.connect()?;
        if !self.errors.is_empty() {
            // The build will fail, and the remaining errors are found without the network.
            self.images = &offline::NoImages;
        }
        let reachable = self.resolve(target)?;
        self.dispatch_stages(&reachable);
        match self.checks.error() {
            Some(error) if self.errors.is_empty() => Err(error),
            _ => Ok(target),
        }
    }

    /// Records an error, unless it may be caused by an earlier one: after an error, the values of
    /// variables are uncertain.
    fn fail(&mut self, error: Error, is_certain: bool) {
        if is_certain || self.errors.is_empty() {
            self.errors.push(error);
        }
    }

    /// Returns the result of lowering the target.
    fn finish(mut self, target: StageId, source: SourceInfo) -> Result<Lowered, Error> {
        self.graph.use_path(self.stages[target].paths, "/");
        let scanned = self.scanned(target)?;
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
        let outputs: Vec<_> = output.into_iter().chain(scanned.outputs()).collect();
        let mut edges = self.graph.finish_all(&outputs)?.into_iter();
        let edge = output.and_then(|_| edges.next());
        let (scan, multi_platform) = (scanned.extras(edges), self.multi_platform);
        let epoch = self.epoch.map(|epoch| epoch.seconds);
        Ok(Lowered { edge, image, warnings, epoch, source, multi_platform, scan })
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
            let names = self.stages.names().map(str::to_owned).collect();
            error.with_hint(Hint::NamedStages(names))
        })
    }

    /// Returns the platform for step names, or `None` if they don't include it.
    fn named_platform(&self, platform: &Platform) -> Option<Platform> {
        self.multi_platform.then(|| platform.clone())
    }
}

/// Returns `true` if step names include the platform.
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
