//! The request of a build: its parsed arguments.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln_exporter::{Output, OutputKind};
use kiln_frontend::ProcessLimits;
use kiln_images::Compression;
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
use kiln_event::LogLimits;

use crate::commands::build::{BuildArguments, Network, Right};
use crate::engines::{self, LoadTarget};
use crate::limits;
use crate::once::Sources;
use crate::settings::Settings;

/// The name of the main context in graphs.
pub(super) const CONTEXT_NAME: &str = "context";

/// The request of a build.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub(crate) struct BuildRequest {
    /// The location of the main context.
    pub(super) context: ContextPlace,
    /// The most bytes of an archive on standard input or of a file from a URL; `None` for no limit.
    pub(super) input_limit: Option<u64>,
    /// The limits of memory and time for git.
    pub(super) git: GitLimits,
    /// The location of the Dockerfile.
    pub(super) dockerfile: DockerfilePlace,
    /// The stage to build; `None` for the last one.
    pub(super) target: Option<String>,
    /// The values of `--build-arg`, by name.
    pub(super) build_args: BTreeMap<String, String>,
    /// The values of `--label`, by name.
    pub(super) labels: BTreeMap<String, String>,
    /// Named contexts that are directories, by the name of their local source.
    pub(super) directories: BTreeMap<String, PathBuf>,
    /// Directories of OCI layouts, by their name in the graph.
    pub(super) layouts: BTreeMap<String, PathBuf>,
    /// Named contexts in the form that the frontend expects.
    pub(super) named_contexts: BTreeMap<String, String>,
    /// `true` if the build resolves images at their registries even if the store has them.
    pub(super) pull: bool,
    /// `true` if a context is a repository that git reaches through SSH.
    pub(super) uses_ssh: bool,
    /// The target platforms; empty if the user names none.
    pub(super) platforms: Vec<Platform>,
    /// The network of steps that name none.
    pub(super) network: Network,
    /// The entitlements of steps beyond the sandbox.
    pub(super) allowed: Allowed,
    /// Additional hosts: name and address.
    pub(super) hosts: Vec<(String, String)>,
    /// The OCI runtime that runs steps.
    pub(super) runtime: Option<PathBuf>,
    /// Resource limits that don't affect the results of steps.
    pub(super) resources: Limits,
    /// Resource limits that are part of the graph.
    pub(super) limits: ProcessLimits,
    /// The sources of secrets, by ID.
    pub(super) secrets: BTreeMap<String, SecretSource>,
    /// The sockets of SSH agents that the build may use, by ID.
    pub(super) agents: BTreeMap<String, PathBuf>,
    /// Stages whose steps don't use the cache; an empty list means all stages.
    pub(super) no_cache: Option<Vec<String>>,
    /// External caches to import and export.
    pub(super) caches: Caches,
    /// The outputs to write.
    pub(super) outputs: Vec<Output>,
    /// The attestations to attach to the images.
    pub(super) attest: AttestOptions,
    /// The reason why images for an engine stay in the store instead.
    pub(super) kept: Option<String>,
    /// The reaction to a failed step.
    pub(super) on_error: OnError,
    /// The most steps that run at once; `None` for a default that suits the machine.
    pub(super) jobs: Option<usize>,
    /// `true` if the build prints why steps ran.
    pub(super) explain: bool,
    /// The limits of the output of steps.
    pub(super) log_limits: LogLimits,
    /// `true` if ignore files and `--exclude` apply only where `BuildKit` applies them.
    pub(super) strict_buildkit: bool,
}

impl BuildRequest {
    /// Returns the target platforms that the user names.
    pub(crate) fn platforms(&self) -> &[Platform] {
        &self.platforms
    }

    /// Returns the addresses that the user names as contexts.
    pub(super) fn addresses(&self) -> Vec<String> {
        let context = match &self.context {
            ContextPlace::Remote(url) => Some(url),
            ContextPlace::Directory(_) | ContextPlace::StandardInput => None,
        };
        context.into_iter().chain(self.named_contexts.values()).cloned().collect()
    }

    /// Parses the arguments into a request.
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

    /// Fetches a Dockerfile at a URL.
    ///
    /// # Errors
    /// Fails if the Dockerfile can't be fetched.
    pub(crate) async fn fetch_dockerfile(&mut self, settings: &Settings) -> Result<()> {
        let DockerfilePlace::Remote(url) = &self.dockerfile else { return Ok(()) };
        let doing = "fetch the Dockerfile";
        // The error's text begins with the URL.
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

    /// Finds the engine for each output that loads an image.
    pub(crate) async fn find_engines(&mut self, settings: &Settings) -> Result<()> {
        for output in &mut self.outputs {
            let OutputKind::Load(choice) = &output.kind else { continue };
            match engines::find(choice, settings.registries.warnings()).await? {
                LoadTarget::Store(reason) => {
                    output.kind = OutputKind::Image;
                    self.kept = reason;
                }
                LoadTarget::Engine(engine) => {
                    if !engine.keeps_blobs() && !output.is_packing_given {
                        output.packing.compression = Compression::Uncompressed;
                    }
                    output.kind = OutputKind::Engine(engine);
                }
            }
        }
        platforms::check_outputs(&self.platforms, &self.outputs)
    }

    /// Returns the names of the images.
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

/// Returns the stages whose steps don't use the cache; an empty list means all.
fn uncached_stages(is_all: bool, stages: Vec<String>) -> Option<Vec<String>> {
    if is_all {
        return Some(Vec::new());
    }
    (!stages.is_empty()).then_some(stages)
}

/// Parses the limits of git: bytes of memory and seconds. Zero means no limit.
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

/// Returns the limits of the output of steps, from the environment variables that BuildKit reads.
fn log_limits(is_unlimited: bool) -> LogLimits {
    if is_unlimited {
        return LogLimits::NONE;
    }
    let default = LogLimits::default();
    let limit = |name, default| {
        let value = std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
        // A negative number means no limit.
        value.map_or(default, |bytes| u64::try_from(bytes).ok())
    };
    LogLimits {
        max_size: limit("BUILDKIT_STEP_LOG_MAX_SIZE", default.max_size),
        max_speed: limit("BUILDKIT_STEP_LOG_MAX_SPEED", default.max_speed),
    }
}
