//! The request of a build.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, bail};
use kiln_event::LogLimits;
use kiln_exporter::{CacheTarget, CacheTo, Output};
use kiln_frontend::ProcessLimits;
use kiln_oci::{Platform, Reference};
use kiln_registry::{Client, FetchAnswer, FetchRequest};
use kiln_sandbox::cgroup::Limits;
use kiln_worker::{Allowed, CacheSource, GitLimits, SecretSource, SourcePolicies};

use super::attest::AttestOptions;
use super::files::TEXT_LIMIT;

/// The name of the main context in graphs.
pub const CONTEXT_NAME: &str = "context";
/// The ID of the SSH agent for mounts and repositories that name none.
pub(super) const DEFAULT_AGENT: &str = "default";

/// The location of the main context.
#[derive(Clone, Debug)]
pub enum ContextPlace {
    /// The path of a local directory.
    Directory(PathBuf),
    /// A stream, which holds an archive or a Dockerfile without a context.
    Stream(ContextStream),
    /// The address of a repository or a file.
    Remote(String),
}

impl ContextPlace {
    /// Returns `true` for a stream.
    pub fn is_stream(&self) -> bool {
        matches!(self, Self::Stream(_))
    }
}

/// A stream that a build reads its context from. Clones share it.
#[derive(Clone)]
pub struct ContextStream(Arc<Mutex<dyn Read + Send>>);

impl ContextStream {
    /// Wraps a reader.
    pub fn new(reader: impl Read + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(reader)))
    }
}

impl Read for ContextStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read(buffer)
    }
}

impl fmt::Debug for ContextStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ContextStream")
    }
}

/// The location of a Dockerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum DockerfilePlace {
    /// In the context, under its default name.
    #[default]
    Context,
    /// At a path that the user names.
    Path(PathBuf),
    /// At a URL.
    Remote(String),
    /// Contents that the caller has.
    Text {
        /// The name of their location, for build records.
        name: String,
        /// The contents.
        text: Vec<u8>,
    },
}

/// The stream of outputs whose destination is `-`. Clones share it.
#[derive(Clone)]
pub struct OutputStream(Arc<Mutex<dyn Write + Send>>);

impl OutputStream {
    /// Wraps a writer.
    pub fn new(writer: impl Write + Send + 'static) -> Self {
        Self(Arc::new(Mutex::new(writer)))
    }
}

impl Default for OutputStream {
    fn default() -> Self {
        Self::new(io::sink())
    }
}

impl Write for OutputStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl fmt::Debug for OutputStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OutputStream")
    }
}

/// The network of `RUN` steps without a network option.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StepNetwork {
    /// A network of each step's own, on a bridge; the host's if the bridge isn't available.
    #[default]
    Default,
    /// The host's network.
    Host,
    /// A loopback device only.
    None,
}

/// The external caches of a build.
#[derive(Clone, Debug, Default)]
pub struct Caches {
    /// Caches to import results from.
    pub from: Vec<CacheSource>,
    /// Caches to export.
    pub to: Vec<CacheTo>,
}

impl Caches {
    /// Returns `true` if images are to embed the cache records of their layers.
    pub fn is_inline(&self) -> bool {
        self.to.iter().any(|to| to.target == CacheTarget::Inline)
    }
}

/// The request of a build. [`BuildSpec::dockerfile`] has defaults for everything but the context.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an option of its own")]
pub struct BuildSpec {
    /// The location of the main context.
    pub context: ContextPlace,
    /// The most bytes of an archive in a stream or of a file from a URL; `None` for no limit.
    pub input_limit: Option<u64>,
    /// The limits of memory and time for git.
    pub git: GitLimits,
    /// The location of the Dockerfile.
    pub dockerfile: DockerfilePlace,
    /// The image of the frontend, with arguments behind it. It runs even if the Dockerfile names
    /// another one, or if it is an image of the built-in frontend.
    pub frontend_image: Option<String>,
    /// The stage to build; `None` for the last one.
    pub target: Option<String>,
    /// Build arguments by name.
    pub build_args: BTreeMap<String, String>,
    /// Labels of the image by name.
    pub labels: BTreeMap<String, String>,
    /// Named contexts that are directories, by the name of their local source.
    pub directories: BTreeMap<String, PathBuf>,
    /// Directories of OCI layouts, by their name in the graph.
    pub layouts: BTreeMap<String, PathBuf>,
    /// Named contexts in the form that the frontend expects.
    pub named_contexts: BTreeMap<String, String>,
    /// `true` if the build resolves images at their registries even if the store has them.
    pub pull: bool,
    /// `true` if a context is a repository that git reaches through SSH.
    pub uses_ssh: bool,
    /// The policies that allow, deny or replace sources.
    pub policies: SourcePolicies,
    /// The target platforms; empty for this machine's.
    pub platforms: Vec<Platform>,
    /// The network of steps that name none.
    pub network: StepNetwork,
    /// The entitlements of steps beyond the sandbox.
    pub allowed: Allowed,
    /// Additional hosts: name and address.
    pub hosts: Vec<(String, String)>,
    /// The OCI runtime that runs steps instead of the sandbox.
    pub runtime: Option<PathBuf>,
    /// Resource limits that don't affect the results of steps.
    pub resources: Limits,
    /// Resource limits that are part of the graph.
    pub limits: ProcessLimits,
    /// The sources of secrets, by ID.
    pub secrets: BTreeMap<String, SecretSource>,
    /// The sockets of SSH agents that the build may use, by ID.
    pub agents: BTreeMap<String, PathBuf>,
    /// Stages whose steps don't use the cache; an empty list means all stages.
    pub no_cache: Option<Vec<String>>,
    /// External caches to import and export.
    pub caches: Caches,
    /// The outputs to write.
    pub outputs: Vec<Output>,
    /// The stream of outputs whose destination is `-`.
    pub output_stream: OutputStream,
    /// The attestations to attach to the images.
    pub attest: AttestOptions,
    /// `true` if a failed step leaves its files and mounts behind for [`StepError::Exit`].
    ///
    /// [`StepError::Exit`]: kiln_solver::StepError::Exit
    pub keep_failed: bool,
    /// The most steps that run at once; `None` for the engine's default.
    pub jobs: Option<usize>,
    /// The limits of the output of steps.
    pub log_limits: LogLimits,
    /// `true` if ignore files and `--exclude` apply only where BuildKit applies them.
    pub strict_buildkit: bool,
    /// The command line of the build, for its record. Must not contain credentials.
    pub command: String,
}

impl BuildSpec {
    /// Returns a request that builds the Dockerfile of a directory with its files, and keeps the
    /// image in the store.
    pub fn dockerfile(context: impl Into<PathBuf>) -> Self {
        Self {
            context: ContextPlace::Directory(context.into()),
            input_limit: None,
            git: GitLimits::default(),
            dockerfile: DockerfilePlace::Context,
            frontend_image: None,
            target: None,
            build_args: BTreeMap::new(),
            labels: BTreeMap::new(),
            directories: BTreeMap::new(),
            layouts: BTreeMap::new(),
            named_contexts: BTreeMap::new(),
            pull: false,
            uses_ssh: false,
            policies: SourcePolicies::default(),
            platforms: Vec::new(),
            network: StepNetwork::Default,
            allowed: Allowed::default(),
            hosts: Vec::new(),
            runtime: None,
            resources: Limits::default(),
            limits: ProcessLimits::default(),
            secrets: BTreeMap::new(),
            agents: BTreeMap::new(),
            no_cache: None,
            caches: Caches::default(),
            outputs: vec![Output::image()],
            output_stream: OutputStream::default(),
            attest: AttestOptions::default(),
            keep_failed: false,
            jobs: None,
            log_limits: LogLimits::default(),
            strict_buildkit: false,
            command: String::new(),
        }
    }

    /// Uses a text as the Dockerfile.
    #[must_use]
    pub fn text(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.dockerfile = DockerfilePlace::Text { name: "-".to_owned(), text: text.into() };
        self
    }

    /// Adds a name to each image.
    #[must_use]
    pub fn tag(mut self, name: &Reference) -> Self {
        for output in &mut self.outputs {
            output.names.push(name.clone());
        }
        self
    }

    /// Sets the value of a build argument.
    #[must_use]
    pub fn build_arg(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.build_args.insert(name.into(), value.into());
        self
    }

    /// Returns the addresses that the user names as contexts.
    pub(super) fn addresses(&self) -> Vec<String> {
        let context = match &self.context {
            ContextPlace::Remote(url) => Some(url),
            ContextPlace::Directory(_) | ContextPlace::Stream(_) => None,
        };
        context.into_iter().chain(self.named_contexts.values()).cloned().collect()
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

    /// Fetches a Dockerfile at a URL.
    ///
    /// # Errors
    /// Fails if the Dockerfile can't be fetched.
    pub(super) async fn fetch_dockerfile(&mut self, client: &Client) -> Result<()> {
        let DockerfilePlace::Remote(url) = &self.dockerfile else { return Ok(()) };
        let doing = "fetch the Dockerfile";
        // The error's text begins with the URL.
        let failed = |error: kiln_registry::Error| {
            let text = format!("{doing} {error}");
            anyhow::Error::new(error).context(text)
        };
        let request = FetchRequest { url: url.clone(), ..FetchRequest::default() };
        let answer = client.fetch(&request).await.map_err(failed)?;
        let FetchAnswer::File(found) = answer else {
            bail!("{doing} {}: nothing is there", kiln_registry::redacted(url));
        };
        let mut text = Vec::new();
        found.copy_to(&mut text, Some(TEXT_LIMIT), |_| ()).await.map_err(failed)?;
        self.dockerfile = DockerfilePlace::Text { name: url.clone(), text };
        Ok(())
    }
}
