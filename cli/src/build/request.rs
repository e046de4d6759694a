//! What a build was asked for.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln_exporter::{Compression, Output, OutputKind};
use kiln_frontend::ProcessLimits;
use kiln_oci::{Platform, Reference};
use kiln_registry::{FetchAnswer, FetchRequest};
use kiln_sandbox::cgroup::Limits;
use kiln_worker::{Allowed, GitLimits, SecretSource};

use super::attest::AttestOptions;
use super::caches::Caches;
use super::files::TEXT_LIMIT as DOCKERFILE_LIMIT;
use super::hosts::parse_host;
use super::named_contexts::NamedContexts;
use super::on_error::{self, OnError};
use super::places::{self, ContextPlace, DockerfilePlace};
use super::{output, platforms, resources, secrets, ssh, values};
use kiln_solver::LogLimits;

use crate::commands::build::{BuildArguments, Network, Right};
use crate::engines::{self, Taker};
use crate::limits;
use crate::once::Sources;
use crate::settings::Settings;

/// The name by which a graph refers to the main context.
pub(super) const CONTEXT_NAME: &str = "context";

/// What a build was asked for.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct BuildRequest {
    /// Where the main context is.
    pub(super) context: ContextPlace,
    /// Most bytes of an archive on standard input, and of a file from a URL; `None` for no limit.
    pub(super) input_limit: Option<u64>,
    /// Limits of git.
    pub(super) git: GitLimits,
    /// Where the Dockerfile is.
    pub(super) dockerfile: DockerfilePlace,
    /// The stage to build.
    pub(super) target: Option<String>,
    /// Build arguments.
    pub(super) build_args: BTreeMap<String, String>,
    /// Labels.
    pub(super) labels: BTreeMap<String, String>,
    /// Named contexts that are directories, by the name of their local source.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Directories of OCI layouts.
    pub(super) layouts: BTreeMap<String, PathBuf>,
    /// Named contexts as the frontend takes them.
    pub(super) named_contexts: BTreeMap<String, String>,
    /// Whether images are to be what their registries have now.
    pub(super) pull: bool,
    /// Whether a context is a repository that is reached by SSH.
    pub(super) uses_ssh: bool,
    /// The platforms to build for; none where nobody has asked for any.
    pub(super) platforms: Vec<Platform>,
    /// The network of steps that name none.
    pub(super) network: Network,
    /// What steps may do beyond the sandbox.
    pub(super) allowed: Allowed,
    /// More hosts: name and address.
    pub(super) hosts: Vec<(String, String)>,
    /// The OCI runtime that runs steps.
    pub(super) runtime: Option<PathBuf>,
    /// What steps may use, where it's no matter to their results.
    pub(super) resources: Limits,
    /// What steps may use, as the graph says it.
    pub(super) limits: ProcessLimits,
    /// Secrets by ID.
    pub(super) secrets: BTreeMap<String, SecretSource>,
    /// The sockets of SSH agents that are lent to the build, by ID.
    pub(super) agents: BTreeMap<String, PathBuf>,
    /// Stages whose steps run in any case; all where it is empty.
    pub(super) no_cache: Option<Vec<String>>,
    /// Caches elsewhere.
    pub(super) caches: Caches,
    /// Where the image goes.
    pub(super) outputs: Vec<Output>,
    /// What is said about the image.
    pub(super) attest: AttestOptions,
    /// Why images that were to be loaded are kept here.
    pub(super) kept: Option<String>,
    /// What happens when a step fails.
    pub(super) on_error: OnError,
    /// How many steps run at once; `None` for what suits the machine.
    pub(super) jobs: Option<usize>,
    /// Whether it is said why steps ran.
    pub(super) explain: bool,
    /// How much steps may print.
    pub(super) log_limits: LogLimits,
    /// Whether ignore files and `--exclude` count where BuildKit heeds them, and nowhere else.
    pub(super) strict_buildkit: bool,
}

impl BuildRequest {
    /// Returns the platforms that were asked for.
    pub(crate) fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    /// Returns the addresses that the user has named as contexts.
    pub(super) fn addresses(&self) -> Vec<String> {
        let context = match &self.context {
            ContextPlace::Remote(url) => Some(url),
            ContextPlace::Directory(_) | ContextPlace::StandardInput => None,
        };
        context.into_iter().chain(self.named_contexts.values()).cloned().collect()
    }

    /// Makes out what was asked for.
    pub(crate) fn resolve(arguments: BuildArguments) -> Result<Self> {
        let context = places::context_place(&arguments.context)?;
        let tags = arguments.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>>>()?;
        let outputs = output::resolve(&arguments, &tags)?;
        let hosts =
            arguments.add_hosts.iter().map(|host| parse_host(host)).collect::<Result<Vec<_>>>()?;
        let mut sources = Sources::default();
        let dockerfile = places::dockerfile_place(arguments.file, &context, &mut sources)?;
        on_error::check(arguments.on_error, &context, &dockerfile)?;
        let named = NamedContexts::new(&arguments.build_contexts, &context)?;
        let no_cache = uncached_stages(arguments.no_cache, arguments.no_cache_filter);
        let platforms = platforms::platforms(&arguments.platforms)?;
        platforms::check_outputs(&platforms, &outputs)?;
        let attest = AttestOptions::resolve(&arguments.attest)?;
        attest.check(&outputs)?;
        Ok(Self {
            context,
            git: git_limits(&arguments.git_memory, arguments.git_timeout)?,
            input_limit: limits::size_limit(&arguments.input_limit)
                .context("invalid --input-limit")?,
            dockerfile,
            outputs,
            target: arguments.target.filter(|target| !target.is_empty()),
            build_args: values::build_args(&arguments.build_args)?,
            labels: values::labels(&arguments.labels)?,
            directories: named.directories,
            layouts: named.layouts,
            named_contexts: named.values,
            pull: arguments.pull,
            uses_ssh: named.uses_ssh,
            platforms,
            network: arguments.network,
            allowed: Allowed {
                host_network: arguments.network == Network::Host
                    || arguments.allow.contains(&Right::NetworkHost),
                insecure: arguments.allow.contains(&Right::SecurityInsecure),
            },
            hosts,
            runtime: crate::runtime::find(&arguments.runtime)?,
            resources: crate::resources::limits(&arguments.resources)?,
            limits: resources::process_limits(
                arguments.shm_size.as_deref(),
                &arguments.ulimits,
                arguments.resources.cgroup_parent,
            )?,
            secrets: secrets::secrets(&arguments.secrets, &mut sources)?,
            agents: ssh::agents(&arguments.agents)?,
            no_cache,
            attest,
            caches: Caches::resolve(&arguments.cache_from, &arguments.cache_to)?,
            kept: None,
            on_error: arguments.on_error,
            jobs: arguments.jobs.map(usize::from),
            explain: arguments.explain,
            log_limits: log_limits(arguments.no_log_limit),
            strict_buildkit: arguments.strict_buildkit,
        })
    }

    /// Fetches a Dockerfile that is behind a URL.
    ///
    /// # Errors
    /// Fails where it can't be fetched.
    pub(crate) async fn fetch_dockerfile(&mut self, settings: &Settings) -> Result<()> {
        let DockerfilePlace::Remote(url) = &self.dockerfile else { return Ok(()) };
        let doing = "fetch the Dockerfile";
        // The error begins with the URL.
        let failed = |error: kiln_registry::Error| {
            let text = format!("{doing} {error}");
            anyhow::Error::new(error).context(text)
        };
        let request = FetchRequest { url: url.clone(), ..FetchRequest::default() };
        let answer = settings.registries.client().fetch(&request).await.map_err(failed)?;
        let FetchAnswer::File(found) = answer else {
            bail!("{doing} {}: nothing is there", kiln_registry::fetch::redacted(url));
        };
        let mut text = Vec::new();
        found.copy_to(&mut text, Some(DOCKERFILE_LIMIT), |_| ()).await.map_err(failed)?;
        self.dockerfile = DockerfilePlace::Text { name: url.clone(), text };
        Ok(())
    }

    /// Looks for who is to take images that are to be loaded.
    pub(crate) async fn find_engines(&mut self, settings: &Settings) -> Result<()> {
        for output in &mut self.outputs {
            let OutputKind::Load(choice) = &output.kind else { continue };
            match engines::find(choice, settings.registries.warnings()).await? {
                Taker::Store(reason) => {
                    output.kind = OutputKind::Image;
                    self.kept = reason;
                }
                Taker::Engine(engine) => {
                    if !engine.keeps_blobs() && !output.is_packing_given {
                        output.packing.compression = Compression::Uncompressed;
                    }
                    output.kind = OutputKind::Engine(engine);
                }
            }
        }
        platforms::check_outputs(&self.platforms, &self.outputs)
    }

    /// Returns the names that images are to have.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for name in self.outputs.iter().flat_map(|output| &output.names) {
            let name = name.familiar();
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }
}

/// Returns the stages whose steps run in any case: all for an empty list.
fn uncached_stages(is_all: bool, stages: Vec<String>) -> Option<Vec<String>> {
    if is_all {
        return Some(Vec::new());
    }
    (!stages.is_empty()).then_some(stages)
}

/// Reads the limits of git: bytes of memory and seconds, of which zero stands for no limit.
fn git_limits(memory: &str, seconds: u64) -> Result<GitLimits> {
    let memory = limits::size_limit(memory).context("invalid --git-memory")?;
    let patience = (seconds > 0).then(|| Duration::from_secs(seconds));
    Ok(GitLimits { memory, patience })
}

fn parse_tag(text: &str) -> Result<Reference> {
    let tag: Reference = text.parse().with_context(|| format!("invalid tag {text:?}"))?;
    if tag.digest().is_some() {
        bail!("invalid tag {text:?}: a name for a new image can't have a digest");
    }
    Ok(tag)
}

/// Returns how much steps may print, by the variables that BuildKit reads for this.
fn log_limits(is_unlimited: bool) -> LogLimits {
    if is_unlimited {
        return LogLimits::NONE;
    }
    let default = LogLimits::default();
    let limit = |name, default| {
        let value = std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
        // Negative numbers stand for no limit.
        value.map_or(default, |bytes| u64::try_from(bytes).ok())
    };
    LogLimits {
        max_size: limit("BUILDKIT_STEP_LOG_MAX_SIZE", default.max_size),
        max_speed: limit("BUILDKIT_STEP_LOG_MAX_SPEED", default.max_speed),
    }
}
