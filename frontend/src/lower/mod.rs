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
mod expose;
mod git;
mod go_text;
mod graph;
mod healthcheck;
mod image;
mod label;
mod main_context;
mod maintainer;
mod metadata;
mod named_context;
mod onbuild;
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

use crate::error::Error;
use crate::expand::Expander;
use crate::instruction::Dockerfile;
use crate::lint::{Linter, Warning};
use crate::parser;
use crate::resolve::{ContextFiles, Images};
use crate::text::parse_bool;

use arguments::GlobalArgs;
use checks::Checks;
use epoch::Epoch;
use graph::Graph;
use main_context::MainContext;
pub use main_context::{is_remote_context, remote_context};
use named_context::NamedContexts;
use stage::{StageId, Stages};

/// What a build asks of the frontend.
#[derive(Clone, Debug)]
pub struct Options {
    /// The stage to build, by name; `None` stands for the last.
    pub target: Option<String>,
    /// Values of arguments (`--build-arg`).
    pub build_args: BTreeMap<String, String>,
    /// Labels (`--label`).
    pub labels: BTreeMap<String, String>,
    /// The platform to build for.
    pub platform: Platform,
    /// The platform that builds run on.
    pub build_platform: Platform,
    /// The network mode of `RUN` where it names none: `host`, `none`, or nothing.
    pub network: Option<String>,
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
    /// Host name of `RUN` steps.
    pub hostname: Option<String>,
    /// Stages whose steps run even when cached; `Some` and empty stands for all (`--no-cache`).
    pub no_cache: Option<Vec<String>>,
    /// Whether the named context of the main context is a local source: its name, `context`.
    pub context_name: String,
    /// Whether several platforms are built: step names tell them apart.
    pub multi_platform: bool,
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
    let dockerfile = match options.build_args.get("BUILDKIT_DOCKERFILE_CHECK") {
        Some(value) => {
            let linter = Linter::from_build_arg(value).map_err(|error| vec![error])?;
            parser::parse_with(source, linter)?
        }
        None => parser::parse(source)?,
    };
    let info = SourceInfo {
        filename: options.filename.clone(),
        data: source.to_vec(),
        language: "Dockerfile".to_owned(),
    };
    let lowering = Lowering::new(&dockerfile, options, images, context);
    lowering.and_then(|lowering| lowering.run(dockerfile, info)).map_err(|error| vec![error])
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
        let multi_platform = match given("BUILDKIT_MULTI_PLATFORM") {
            None => options.multi_platform,
            Some(value) => multi_platform(value, options.multi_platform)?,
        };
        Ok(Self {
            options,
            images,
            context,
            build_args: options.build_args.clone(),
            global_args: GlobalArgs::default(),
            expander: Expander::new(dockerfile.escape),
            checks: Checks::new(dockerfile.linter.clone(), dockerfile.warnings.clone()),
            contexts: NamedContexts::new(&options.named_contexts),
            main_context: MainContext::new(options, context, &mut graph)?,
            epoch: None,
            proxies: arguments::proxies(&options.build_args),
            network: net_mode(options.network.as_deref())?,
            hostname: hostname.unwrap_or_default(),
            multi_platform,
            graph,
            stages: Stages::default(),
        })
    }

    fn run(mut self, dockerfile: Dockerfile, source: SourceInfo) -> Result<Lowered, Error> {
        self.prepare(dockerfile)?;
        let target = self.target()?;
        self.connect()?;
        let reachable = self.resolve(target)?;
        self.dispatch_stages(&reachable)?;
        self.graph.use_path(self.stages[target].paths, "/");
        let warnings = self.checks.finish()?;
        let history = self.stages.history(target);
        let stage = &mut self.stages[target];
        let mut image = std::mem::take(stage.image_mut());
        image.history.extend(history);
        image.config.labels.extend(self.options.labels.clone());
        image::set_platform(&mut image, &self.options.platform);
        let output = stage.state.output;
        let edge = output.map(|output| self.graph.finish(output)).transpose()?;
        let epoch = self.epoch.map(|epoch| epoch.seconds);
        Ok(Lowered { edge, image, warnings, epoch, source })
    }

    fn target(&self) -> Result<StageId, Error> {
        let Some(name) = self.options.target.as_ref().filter(|name| !name.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        self.stages.by_name(name).ok_or_else(|| {
            let message = format!("target stage {} could not be found", crate::text::quote(name));
            let case = crate::suggest::Case::Sensitive;
            Error::new(crate::suggest::suggest(message, name, self.stages.names(), case))
        })
    }

    /// Returns the platform that step names tell, if they tell one.
    fn named_platform(&self, platform: &Platform) -> Option<Platform> {
        self.multi_platform.then(|| platform.clone())
    }
}

fn multi_platform(value: &str, several: bool) -> Result<bool, Error> {
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
