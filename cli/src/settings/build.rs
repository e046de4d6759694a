//! The request of a build, from its arguments.

mod destinations;
mod invocation;
mod named_contexts;
mod on_error;
mod output;
mod places;
mod policies;
mod resources;
mod secrets;
mod ssh;
mod values;

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln::build::AttestOptions;
use kiln::build::BuildSpec;
use kiln::build::{Caches, OutputStream, StepNetwork};
use kiln_event::LogLimits;
use kiln_exporter::{CacheFrom, CacheTo};
use kiln_oci::Reference;
use kiln_worker::{Allowed, CachePlace, CacheSource, GitLimits};

use super::engines::{self, LoadTarget};
use super::hosts::parse_host;
use super::once::Sources;
use super::{Settings, limits, platforms, runtime, text_variable};
use crate::arguments::build::{BuildArguments, Network, Right};
use crate::arguments::on_error::OnError;
use crate::arguments::progress::ProgressMode;
use named_contexts::NamedContexts;

pub(crate) use invocation::Invocation;

/// The environment variable that adds warnings to the metadata, as for buildx.
const METADATA_WARNINGS: &str = "BUILDX_METADATA_WARNINGS";

/// The request of a build, and what the command does around it.
#[derive(Debug)]
pub(crate) struct BuildRequest {
    /// The request to the engine.
    pub(crate) spec: BuildSpec,
    /// The reason why images for an engine stay in the store instead.
    pub(crate) kept: Option<String>,
    /// The reaction to a failed step.
    pub(crate) on_error: OnError,
    /// `true` if the build prints why steps ran.
    pub(crate) explain: bool,
}

/// Returns the entitlements of a build. Who asks for the host's network may use it.
fn allowed(network: Network, rights: &[Right]) -> Allowed {
    Allowed {
        host_network: network == Network::Host || rights.contains(&Right::NetworkHost),
        insecure: rights.contains(&Right::SecurityInsecure),
        ..Allowed::default()
    }
}

impl BuildRequest {
    /// Parses the arguments into a request. An output on standard output goes to `output_stream`.
    pub(crate) fn resolve(arguments: BuildArguments, output_stream: OutputStream) -> Result<Self> {
        let context = places::context_place(&arguments.context)?;
        let tags = arguments.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>>>()?;
        let outputs = output::resolve(&arguments, &tags)?;
        let mut sources = Sources::default();
        on_error::check(arguments.on_error, &context, arguments.file.as_deref())?;
        let dockerfile = places::dockerfile_place(arguments.file, &context, &mut sources)?;
        let named = NamedContexts::new(&arguments.build_contexts, &context)?;
        let no_cache = uncached_stages(arguments.no_cache, arguments.no_cache_filter);
        let platforms = platforms::platforms(&arguments.platforms)?;
        platforms::check_outputs(&platforms, &outputs)?;
        let attest = arguments.attest;
        let (provenance, sbom) = (attest.provenance.as_deref(), attest.sbom.as_deref());
        let attest = AttestOptions::parse(&attest.attests, provenance, sbom)?;
        attest.check(&outputs)?;
        let spec = BuildSpec {
            context,
            git: git_limits(&arguments.git_memory, arguments.git_timeout)?,
            input_limit: limits::size_limit(&arguments.input_limit)
                .context("invalid --input-limit")?,
            dockerfile,
            frontend_image: arguments.frontend_image.filter(|image| !image.trim().is_empty()),
            outputs,
            output_stream,
            target: arguments.target.filter(|target| !target.is_empty()),
            build_args: values::build_args(&arguments.build_args)?,
            labels: values::labels(&arguments.labels)?,
            directories: named.directories,
            layouts: named.layouts,
            named_contexts: named.values,
            pull: arguments.pull,
            uses_ssh: named.uses_ssh,
            policies: policies::source_policies()?,
            platforms,
            network: arguments.network.into(),
            allowed: allowed(arguments.network, &arguments.allow),
            hosts: arguments
                .add_hosts
                .iter()
                .map(|host| parse_host(host))
                .collect::<Result<_>>()?,
            runtime: runtime::find(&arguments.runtime)?,
            resources: super::resources::limits(&arguments.resources)?,
            limits: resources::process_limits(
                arguments.shm_size.as_deref(),
                &arguments.ulimits,
                arguments.resources.cgroup_parent,
            )?,
            secrets: secrets::secrets(&arguments.secrets, &mut sources)?,
            agents: ssh::agents(&arguments.agents)?,
            no_cache,
            attest,
            caches: caches(&arguments.cache_from, &arguments.cache_to)?,
            keep_failed: arguments.on_error == OnError::Shell,
            jobs: arguments.jobs.map(usize::from),
            log_limits: log_limits(arguments.no_log_limit),
            strict_buildkit: arguments.strict_buildkit,
            command: Invocation::current().command(),
        };
        Ok(Self { spec, kept: None, on_error: arguments.on_error, explain: arguments.explain })
    }

    /// Finds the engine for each output that loads an image.
    pub(crate) async fn find_engines(&mut self, settings: &Settings) -> Result<()> {
        for output in &mut self.spec.outputs {
            let Some(choice) = output.form().engine_choice else { continue };
            match engines::find(&choice, settings.registries.warnings()).await? {
                LoadTarget::Store(reason) => {
                    output.keep_in_store();
                    self.kept = reason;
                }
                LoadTarget::Engine(engine) => output.load_into(engine),
            }
        }
        platforms::check_outputs(&self.spec.platforms, &self.spec.outputs)
    }
}

/// Returns the display of progress: from the arguments, else from the environment.
pub(crate) fn progress(arguments: &BuildArguments, settings: &Settings) -> Result<ProgressMode> {
    let mode = ProgressMode::of(arguments, text_variable("BUILDKIT_PROGRESS"))?;
    Ok(match mode {
        // A live display would be mixed up with log lines.
        ProgressMode::Auto if settings.debug => ProgressMode::Plain,
        mode => mode,
    })
}

/// Returns `true` if the environment requests warnings in the metadata file.
pub(crate) fn metadata_has_warnings() -> bool {
    let asked = text_variable(METADATA_WARNINGS).unwrap_or_default();
    ["1", "t", "true"].contains(&asked.to_lowercase().as_str())
}

impl From<Network> for StepNetwork {
    fn from(network: Network) -> Self {
        match network {
            Network::Default => Self::Default,
            Network::Host => Self::Host,
            Network::None => Self::None,
        }
    }
}

/// Parses the values of `--cache-from` and `--cache-to`.
fn caches(from: &[String], to: &[String]) -> Result<Caches> {
    let mut caches = Caches::default();
    for text in from {
        let parsed = CacheFrom::parse(text).context("invalid --cache-from")?;
        caches.from.extend(parsed.into_iter().map(source));
    }
    for text in to {
        caches.to.extend(CacheTo::parse(text).context("invalid --cache-to")?);
    }
    Ok(caches)
}

fn source(from: CacheFrom) -> CacheSource {
    let place = match from.place {
        kiln_exporter::CachePlace::Local { src, tag, digest } => {
            CachePlace::Layout { directory: src, tag, digest }
        }
        kiln_exporter::CachePlace::Registry { reference } => CachePlace::Registry(reference),
    };
    CacheSource { place, mounts: from.mounts }
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
        let value = text_variable(name).and_then(|text| text.parse::<i64>().ok());
        // A negative number means no limit.
        value.map_or(default, |bytes| u64::try_from(bytes).ok())
    };
    LogLimits {
        max_size: limit("BUILDKIT_STEP_LOG_MAX_SIZE", default.max_size),
        max_speed: limit("BUILDKIT_STEP_LOG_MAX_SPEED", default.max_speed),
    }
}
