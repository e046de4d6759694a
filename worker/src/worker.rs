//! The executor: which module does which op.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use kiln_llb::graph::Vertex;
use kiln_llb::op::{OpKind, SourceOp};
use kiln_oci::{Digest, Platform};
use kiln_sandbox::cgroup::Limits;
use kiln_sandbox::network::Bridge;
use kiln_solver::{CacheRule, Executor, StepContext, StepError};
use kiln_store::{LayerId, Store};

use crate::blobs::blocking;
use crate::cache::StoreCache;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::exec::allowed::Allowed;
use crate::exec::secret::Secrets;
use crate::file::direct::LayerPacker;
use crate::flight::cancellable;
use crate::output::Output;
use crate::resolve::ImageResolver;
use crate::snapshots::Snapshots;
use crate::source::identifier::Identifier;
use crate::source::local::{LocalAttributes, LocalContext};
use crate::source::origin::Origin;
use crate::source::remote::{Pin, RemoteOptions, Remotes};
use crate::{bases, content, diff, emulation, file, ingredients, key, merge, source};

/// What a [`Worker`] works with.
#[derive(Debug)]
pub struct WorkerOptions {
    /// The store.
    pub store: Store,
    /// Answers what images are: the one that the frontend asked.
    pub images: Arc<ImageResolver>,
    /// The directories of local sources, by the sources' names.
    pub contexts: BTreeMap<String, PathBuf>,
    /// The network of `RUN` steps that ask for none in particular.
    pub network: DefaultNetwork,
    /// What steps may do that a Dockerfile can't decide by itself.
    pub allowed: Allowed,
    /// What `RUN` steps see as `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, SecretSource>,
    /// The sockets of SSH agents that are lent to steps, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// How much `RUN` steps may use.
    pub limits: Limits,
    /// The OCI runtime that runs them, in place of the sandbox.
    pub runtime: Option<PathBuf>,
    /// What files and repositories elsewhere are fetched with.
    pub remote: RemoteOptions,
    /// Packs layers that no step reads, where the outputs want blobs of them and nobody will want
    /// trees; `None` has every layer made as a tree.
    pub packer: Option<Arc<dyn LayerPacker>>,
    /// Is told of layers that the build's outputs will need; `None` where they need none.
    pub committed: Option<Arc<dyn CommittedLayers>>,
    /// Whether a `RUN` step that fails leaves a [`FailedStep`](crate::FailedStep) behind.
    pub keep_failed: bool,
}

/// Is told of layers as they are made, long before the outputs are written.
pub trait CommittedLayers: fmt::Debug + Send + Sync {
    /// A chain of layers is there that will be part of what the build is for. Returns at once.
    fn committed(&self, top: &LayerId);
}

/// The network of steps that ask for none in particular.
#[derive(Clone, Debug, Default)]
pub enum DefaultNetwork {
    /// A namespace of each step's own on this bridge; the host's where that can't be had.
    Bridge(Bridge),
    /// The host's.
    #[default]
    Host,
    /// None but a loopback device.
    None,
}

/// Where the value of a secret is.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file, read when a step needs it.
    File(PathBuf),
    /// Here.
    Value(Vec<u8>),
}

impl fmt::Debug for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Value(_) => f.write_str("Value(…)"),
        }
    }
}

/// Gives meaning to ops over a store.
#[derive(Debug)]
pub struct Worker {
    pub(crate) images: Arc<ImageResolver>,
    contexts: BTreeMap<String, PathBuf>,
    pub(crate) snapshots: Snapshots,
    remotes: Remotes,
    exec: Exec,
    packer: Option<Arc<dyn LayerPacker>>,
    committed: Option<Arc<dyn CommittedLayers>>,
}

impl Worker {
    /// Makes a worker.
    pub fn new(options: WorkerOptions) -> Self {
        let snapshots = Snapshots::new(options.store.clone(), &options.images);
        let secrets = Secrets::new(options.secrets.clone());
        Self {
            images: Arc::clone(&options.images),
            remotes: Remotes::new(snapshots.clone(), secrets, options.remote.clone()),
            contexts: options.contexts.clone(),
            packer: options.packer.clone(),
            committed: options.committed.clone(),
            exec: Exec::new(snapshots.clone(), options),
            snapshots,
        }
    }

    /// Returns the solver's cache over the same store.
    pub fn cache(&self) -> StoreCache {
        StoreCache::new(self.snapshots.store.clone())
    }

    /// Makes sure that all layers of an output have trees, as outputs of files need it.
    ///
    /// # Errors
    /// Fails where a layer can't be fetched, or isn't what its digests say.
    pub async fn materialise(&self, output: &Output) -> Result<()> {
        self.snapshots.materialise([output], None).await
    }

    /// Brings in what a source names, outside of a graph; a graph that names the same finds it.
    ///
    /// # Errors
    /// Fails where it can't be had, or the step is cancelled.
    pub async fn fetch(&self, source: &SourceOp, context: &StepContext) -> Result<Output> {
        let platform = Platform::host();
        cancellable(context, self.load(source, &platform, context)).await
    }

    /// Returns what a source elsewhere held when this worker brought it in, or what it says itself
    /// that it holds; `None` for other sources, and where neither is known.
    pub fn pin(&self, source: &SourceOp) -> Option<Pin> {
        match Identifier::parse(source).ok()? {
            Identifier::Remote(remote) => self.remotes.pin(source, &remote),
            _ => None,
        }
    }

    /// Returns an output's files as a directory to read. Its trees must be there.
    ///
    /// # Errors
    /// Fails where it can't be mounted.
    pub fn read(&self, layer: Option<&kiln_store::LayerId>) -> Result<kiln_tree::Dir> {
        self.snapshots.read(layer)
    }

    fn checked_rule(&self, vertex: &Vertex) -> Result<CacheRule> {
        let Some(kind) = &vertex.op.kind else {
            let bases = bases::bases(&vertex.op);
            return Ok(CacheRule { hidden: true, bases, ..CacheRule::default() });
        };
        let salt = Some(key::op(&vertex.op));
        let ingredients = ingredients::op(&vertex.op);
        let mut rule = CacheRule { salt, ingredients, ..CacheRule::default() };
        match kind {
            OpKind::Source(source) => self.source_rule(source, vertex, &mut rule)?,
            OpKind::Exec(exec) => self.exec.check(exec)?,
            OpKind::File(file) => file::check(file, vertex.op.inputs.len())?,
            OpKind::Merge(_) | OpKind::Diff(_) => {}
            OpKind::Build(_) => return Err(Error::Unsupported("a build op".to_owned())),
        }
        (rule.content_inputs, rule.selected) = content::content_inputs(&vertex.op)?;
        rule.bases = bases::bases(&vertex.op);
        rule.added_to = bases::added_to(&vertex.op);
        Ok(rule)
    }

    fn source_rule(&self, source: &SourceOp, vertex: &Vertex, rule: &mut CacheRule) -> Result<()> {
        match Identifier::parse(source)? {
            Identifier::Image(reference, _) | Identifier::Layout(reference, _) => {
                match reference.digest() {
                    Some(digest) => {
                        let platform = platform(vertex);
                        rule.salt = Some(key::image(&digest, &platform));
                        rule.ingredients = ingredients::image(&reference, &digest, &platform);
                    }
                    // What a tag stands for isn't known before somebody has been asked.
                    None => rule.ephemeral = true,
                }
            }
            Identifier::Local(name) => {
                LocalAttributes::parse(source)?;
                self.context(&name)?;
                rule.ephemeral = true;
            }
            Identifier::Remote(source) => match source.key() {
                Some(key) => rule.salt = Some(key),
                None => rule.ephemeral = true,
            },
        }
        Ok(())
    }

    fn context(&self, name: &str) -> Result<&PathBuf> {
        self.contexts
            .get(name)
            .ok_or_else(|| Error::Invalid(format!("no directory is known as context {name}")))
    }

    async fn run(
        &self,
        vertex: &Vertex,
        inputs: Vec<Output>,
        context: &StepContext,
    ) -> std::result::Result<Vec<Output>, StepError> {
        let work = self.work(vertex, &inputs, context);
        match &vertex.op.kind {
            Some(OpKind::Exec(exec)) => {
                emulation::check(&platform(vertex))?;
                self.exec.run(exec, &inputs, context).await
            }
            _ => Ok(cancellable(context, work).await?),
        }
    }

    async fn work(
        &self,
        vertex: &Vertex,
        inputs: &[Output],
        context: &StepContext,
    ) -> Result<Vec<Output>> {
        match &vertex.op.kind {
            Some(OpKind::Source(source)) => {
                let platform = platform(vertex);
                Ok(vec![self.load(source, &platform, context).await?])
            }
            Some(OpKind::File(op)) => {
                let packer = self.packer.as_ref();
                file::run(&self.snapshots, op, inputs.to_vec(), packer, context).await
            }
            Some(OpKind::Merge(op)) => {
                Ok(vec![merge::merge(&self.snapshots, op, inputs, context).await?])
            }
            Some(OpKind::Diff(op)) => {
                Ok(vec![diff::diff(&self.snapshots, op, inputs, context).await?])
            }
            Some(OpKind::Build(_)) => Err(Error::Unsupported("a build op".to_owned())),
            Some(OpKind::Exec(_)) | None => Ok(inputs.to_vec()),
        }
    }

    async fn load(
        &self,
        source: &SourceOp,
        platform: &Platform,
        context: &StepContext,
    ) -> Result<Output> {
        let (origin, digest) = match Identifier::parse(source)? {
            Identifier::Local(name) => return self.load_local(&name, source).await,
            Identifier::Remote(remote) => {
                let layer = self.remotes.load(source, &remote, context).await?;
                return Ok(Output::Layer(Some(layer)));
            }
            Identifier::Image(reference, policy) => {
                let digest = self.images.digest_by(&reference, policy).await?;
                (Origin::Registry(reference.name()), digest)
            }
            Identifier::Layout(reference, name) => {
                let digest = reference.digest().ok_or_else(|| {
                    Error::image(&source.identifier, "oci-layout source has no digest")
                })?;
                let directory = self.images.layout(&name, &digest).ok_or_else(|| {
                    Error::image(&source.identifier, format!("no oci layout is known as {name:?}"))
                })?;
                (Origin::Layout(directory), digest)
            }
        };
        let store = &self.snapshots.store;
        let top = source::image::load(&self.images, store, &origin, &digest, platform).await?;
        Ok(Output::Layer(top))
    }

    async fn load_local(&self, name: &str, source: &SourceOp) -> Result<Output> {
        let attributes = LocalAttributes::parse(source)?;
        let context = Arc::new(LocalContext::open(name, self.context(name)?, &attributes)?);
        if attributes.include.is_empty() {
            return Ok(Output::Local(context));
        }
        let snapshots = self.snapshots.clone();
        let copy = blocking(move || {
            let copy = snapshots.copy_of(&context, Path::new("/"), &attributes.include)?;
            snapshots.commit_pending(copy)
        });
        Ok(Output::Layer(Some(copy.await?)))
    }

    async fn digest(&self, vertex: &Vertex, input: usize, output: &Output) -> Result<Digest> {
        let selections = content::selections(&vertex.op, input)?.unwrap_or_default();
        self.snapshots.materialise([output], None).await?;
        let (snapshots, output) = (self.snapshots.clone(), output.clone());
        blocking(move || content::digest(&snapshots, &output, &selections)).await
    }
}

/// Returns the platform that a source is asked for.
pub(crate) fn platform(vertex: &Vertex) -> Platform {
    vertex.op.platform.as_ref().map_or_else(Platform::host, |platform| {
        Platform::new(&platform.os, &platform.architecture, platform.variant.as_deref())
    })
}

impl Executor for Worker {
    type Output = Output;

    fn rule(&self, vertex: &Vertex) -> std::result::Result<CacheRule, StepError> {
        Ok(self.checked_rule(vertex)?)
    }

    async fn content_digest(
        &self,
        vertex: &Vertex,
        input: usize,
        output: &Output,
    ) -> std::result::Result<Digest, StepError> {
        Ok(self.digest(vertex, input, output).await?)
    }

    async fn execute(
        &self,
        vertex: &Vertex,
        inputs: Vec<Output>,
        context: StepContext,
    ) -> std::result::Result<Vec<Output>, StepError> {
        let outputs = self.run(vertex, inputs, &context).await?;
        if let Some(committed) = &self.committed {
            let kept = context.kept.iter().filter_map(|output| outputs.get(*output as usize));
            for top in kept.filter_map(Output::layer).flatten() {
                committed.committed(top);
            }
        }
        Ok(outputs)
    }
}
