//! The request of a build: its parsed arguments.

#![expect(clippy::disallowed_methods, reason = "the command line reads the environment")]

use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln::BuildSpec;
use kiln::build::attest::AttestOptions;
use kiln::build::spec::{Caches, OutputStream, StepNetwork};
use kiln_event::LogLimits;
use kiln_exporter::{CacheFrom, CacheTo};
use kiln_oci::Reference;
use kiln_worker::{Allowed, CachePlace, CacheSource, GitLimits};

use super::hosts::parse_host;
use super::invocation::Invocation;
use super::named_contexts::NamedContexts;
use super::on_error::{self, OnError};
use super::{output, places, platforms, resources, secrets, ssh, values};
use crate::commands::build::{BuildArguments, Network, Right};
use crate::engines::{self, LoadTarget};
use crate::limits;
use crate::once::Sources;
use crate::printer::Printer;
use crate::settings::Settings;

/// The request of a build, and what the command does around it.
#[derive(Debug)]
pub(crate) struct BuildRequest {
    /// The request to the engine.
    pub(crate) spec: BuildSpec,
    /// The reason why images for an engine stay in the store instead.
    pub(super) kept: Option<String>,
    /// The reaction to a failed step.
    pub(super) on_error: OnError,
    /// `true` if the build prints why steps ran.
    pub(super) explain: bool,
}

impl BuildRequest {
    /// Parses the arguments into a request.
    pub(crate) fn resolve(arguments: BuildArguments, printer: &Printer) -> Result<Self> {
        let context = places::context_place(&arguments.context)?;
        let tags = arguments.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>>>()?;
        let outputs = output::resolve(&arguments, &tags)?;
        let hosts =
            arguments.add_hosts.iter().map(|host| parse_host(host)).collect::<Result<Vec<_>>>()?;
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
            outputs,
            output_stream: OutputStream::new(printer.stdout()),
            target: arguments.target.filter(|target| !target.is_empty()),
            build_args: values::build_args(&arguments.build_args)?,
            labels: values::labels(&arguments.labels)?,
            directories: named.directories,
            layouts: named.layouts,
            named_contexts: named.values,
            pull: arguments.pull,
            uses_ssh: named.uses_ssh,
            platforms,
            network: arguments.network.into(),
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
            caches: caches(&arguments.cache_from, &arguments.cache_to)?,
            keep_failed: arguments.on_error == OnError::Shell,
            jobs: arguments.jobs.map(usize::from),
            log_limits: log_limits(arguments.no_log_limit),
            strict_buildkit: arguments.strict_buildkit,
            command: Invocation::current().command(),
        };
        let (on_error, explain) = (arguments.on_error, arguments.explain);
        Ok(Self { spec, kept: None, on_error, explain })
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
        let value = std::env::var(name).ok().and_then(|text| text.parse::<i64>().ok());
        // A negative number means no limit.
        value.map_or(default, |bytes| u64::try_from(bytes).ok())
    };
    LogLimits {
        max_size: limit("BUILDKIT_STEP_LOG_MAX_SIZE", default.max_size),
        max_speed: limit("BUILDKIT_STEP_LOG_MAX_SPEED", default.max_speed),
    }
}
