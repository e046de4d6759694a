//! The executor, which passes each op to the module for its kind.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use kiln_event::Reporter;
use kiln_images::{ImageResolver, Origin, PackAhead, Packing, Snapshots, blocking, cancellable};
use kiln_llb::op::{Mount, MountKind, OpKind, SourceOp};
use kiln_llb::{Graph, Vertex};
use kiln_oci::{Digest, Platform};
use kiln_sandbox::cgroup::Limits;
use kiln_solver::{CacheRule, Executor, StepContext, StepError};
use kiln_store::LayerId;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::cache::StoreCache;
use crate::error::{Error, Result};
use crate::exec::Exec;
use crate::exec::allowed::Allowed;
use crate::exec::container::{ExecContainer, ExecContainerRequest};
use crate::exec::secret::{SecretSource, SecretSources, Secrets};
use crate::exec::ssh::AgentSources;
use crate::machine::Machine;
use crate::output::{Output, materialise};
use crate::source::git::GitReference;
use crate::source::identifier::{Identifier, check_digest, layer_limit};
use crate::source::local::{LocalAttributes, LocalContext, LocalSources, unknown_context};
use crate::source::remote::{Pin, RemoteOptions, RemoteSource, Remotes};
use crate::{bases, content, diff, emulation, file, ingredients, key, merge};

/// The inputs of one build.
#[derive(Debug)]
pub struct BuildInputs {
    /// The image resolver. It should be the frontend's, so that both see the same images.
    pub images: Arc<ImageResolver>,
    /// The files of local sources.
    pub sources: Arc<dyn LocalSources>,
    /// The entitlements that the user has granted.
    pub allowed: Allowed,
    /// The secrets.
    pub secrets: Arc<dyn SecretSources>,
    /// The SSH agents that steps may use.
    pub agents: Arc<dyn AgentSources>,
    /// The resource limits of `RUN` steps.
    pub limits: Limits,
    /// The options for files and repositories on servers.
    pub remote: RemoteOptions,
    /// The packing of layers that no step reads, if the outputs need blobs and no trees. `None`
    /// creates a tree for every layer.
    pub packing: Option<Packing>,
    /// The packer that receives each layer that the build's outputs need at its commit. `None` if
    /// they need no blobs.
    pub ahead: Option<Arc<PackAhead>>,
    /// `true` if a failed `RUN` step leaves a [`FailedStep`](crate::FailedStep) behind.
    pub keep_failed: bool,
    /// `true` if the error of a failed `RUN` step has its [`LeftFiles`](crate::LeftFiles).
    pub keep_files: bool,
    /// `true` if steps with secrets or agents that are under way in other builds don't serve this one,
    /// because the builds may belong to different users.
    pub keep_secrets: bool,
}

impl BuildInputs {
    /// Returns the inputs of a build without secrets, entitlements and limits.
    pub fn new(images: Arc<ImageResolver>, sources: Arc<dyn LocalSources>) -> Self {
        Self {
            images,
            sources,
            allowed: Allowed::default(),
            secrets: Arc::new(BTreeMap::<_, SecretSource>::new()),
            agents: Arc::new(BTreeMap::new()),
            limits: Limits::default(),
            remote: RemoteOptions::default(),
            packing: None,
            ahead: None,
            keep_failed: false,
            keep_files: false,
            keep_secrets: false,
        }
    }
}

/// The solver's executor over kiln's store.
#[derive(Debug)]
pub struct Worker {
    pub(crate) images: Arc<ImageResolver>,
    sources: Arc<dyn LocalSources>,
    pub(crate) snapshots: Snapshots,
    remotes: Remotes,
    exec: Exec,
    packing: Option<Packing>,
    ahead: Option<Arc<PackAhead>>,
    steps: Option<Arc<Semaphore>>,
    keep_secrets: bool,
}

impl Worker {
    /// Creates the worker of one build on a machine.
    pub fn new(machine: &Machine, inputs: BuildInputs) -> Self {
        let snapshots = Snapshots::new(machine.store.clone(), &inputs.images);
        let secrets = Secrets::new(Arc::clone(&inputs.secrets));
        let (git, remote) = (machine.git.clone(), inputs.remote.clone());
        Self {
            images: Arc::clone(&inputs.images),
            sources: Arc::clone(&inputs.sources),
            remotes: Remotes::new(snapshots.clone(), secrets, git, remote),
            packing: inputs.packing,
            ahead: inputs.ahead.clone(),
            steps: machine.steps.clone(),
            keep_secrets: inputs.keep_secrets,
            exec: Exec::new(snapshots.clone(), machine, inputs),
            snapshots,
        }
    }

    /// Returns the access to layers that the steps use.
    pub fn snapshots(&self) -> &Snapshots {
        &self.snapshots
    }

    /// Returns the solver's cache over the same store.
    pub fn cache(&self) -> StoreCache {
        StoreCache::new(self.snapshots.store.clone())
    }

    /// Unpacks all layers of an output that have no tree. Outputs of files require that.
    ///
    /// # Errors
    /// Fails if a layer can't be fetched or doesn't match its digests.
    pub async fn materialise(&self, output: &Output) -> Result<()> {
        materialise(&self.snapshots, [output], &Reporter::silent()).await
    }

    /// Returns the uppermost layer of an output; `None` for an empty file system. Copies a build
    /// context into a layer.
    ///
    /// # Errors
    /// Fails if the context can't be read, or the store not written.
    pub async fn layer(&self, output: &Output) -> Result<Option<LayerId>> {
        let (snapshots, output) = (self.snapshots.clone(), output.clone());
        blocking(move || output.to_layer(&snapshots)).await
    }

    /// Looks up the digests of a graph's images without one. Their keys are known then, as are those
    /// of the steps on top of them. An image that can't be found fails the step that needs it.
    pub async fn look_up_images(&self, graph: &Graph) {
        let lookups = graph.vertices().iter().filter_map(|vertex| {
            let Some(OpKind::Source(source)) = &vertex.op.kind else { return None };
            match Identifier::parse(source).ok()? {
                Identifier::Image(reference, policy) if reference.digest().is_none() => {
                    Some(async move { self.images.digest_by(&reference, policy).await })
                }
                _ => None,
            }
        });
        join_all(lookups).await;
    }

    /// Loads a source outside of a graph. Graphs with the same source reuse the result.
    ///
    /// # Errors
    /// Fails if the source isn't available, or if the step is cancelled.
    pub async fn fetch(&self, source: &SourceOp, reporter: &Reporter) -> Result<Output> {
        let platform = Platform::host();
        cancellable(reporter, self.load(source, &platform, reporter)).await
    }

    /// Returns the identity of a remote source's content: of the content that this worker has
    /// loaded, or else as the source itself determines it. Returns `None` for other sources and for
    /// unknown content.
    pub fn pin(&self, source: &SourceOp) -> Option<Pin> {
        match Identifier::parse(source).ok()? {
            Identifier::Remote(remote) => self.remotes.pin(source, &remote),
            Identifier::Blob(blob) => Some(Pin::digest(&blob.digest().to_string())),
            _ => None,
        }
    }

    /// Looks up the reference of a git source, and fetches its objects if they are asked for. Returns
    /// `None` for other sources.
    ///
    /// # Errors
    /// Fails if the repository isn't available or doesn't have the reference.
    pub async fn git_reference(
        &self,
        source: &SourceOp,
        with_objects: bool,
        reporter: &Reporter,
    ) -> Result<Option<GitReference>> {
        let Identifier::Remote(RemoteSource::Git(git)) = Identifier::parse(source)? else {
            return Ok(None);
        };
        cancellable(reporter, git.describe(&self.remotes, with_objects)).await.map(Some)
    }

    /// Makes the mounts and the network of a container.
    ///
    /// # Errors
    /// Fails if a mount can't be made, or if the container requires an entitlement that isn't
    /// granted.
    pub async fn container(
        &self,
        request: ExecContainerRequest,
        reporter: &Reporter,
    ) -> Result<ExecContainer> {
        // A platform without an architecture only chooses the programs' default path.
        if !request.platform.architecture.is_empty() {
            emulation::check(&request.platform)?;
        }
        cancellable(reporter, self.exec.container(request, reporter)).await
    }

    /// Opens an output's files as a directory for reading. Its trees must exist.
    ///
    /// # Errors
    /// Fails if the layers can't be mounted.
    pub fn read(&self, layer: Option<&LayerId>) -> Result<kiln_tree::Dir> {
        Ok(self.snapshots.read(layer)?)
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
            OpKind::Exec(exec) => {
                self.exec.check(exec)?;
                let is_private =
                    |mount: &Mount| matches!(mount.kind, MountKind::Secret(_) | MountKind::Ssh(_));
                let has_private = !exec.secret_env.is_empty() || exec.mounts.iter().any(is_private);
                rule.private = self.keep_secrets && has_private;
            }
            OpKind::File(file) => file::check(file, vertex.op.inputs.len())?,
            OpKind::Merge(_) | OpKind::Diff(_) | OpKind::Passthrough(_) => {}
            OpKind::Build(_) => return Err(Error::Unsupported("a build op".to_owned())),
        }
        (rule.content_inputs, rule.selected) = content::content_inputs(&vertex.op)?;
        rule.bases = bases::bases(&vertex.op);
        rule.added_to = bases::added_to(&vertex.op);
        Ok(rule)
    }

    fn source_rule(&self, source: &SourceOp, vertex: &Vertex, rule: &mut CacheRule) -> Result<()> {
        let identifier = Identifier::parse(source)?;
        let digest = match &identifier {
            Identifier::Image(reference, _) => self.images.known_digest(reference),
            Identifier::Layout(reference, _) => reference.digest(),
            Identifier::Local(_) | Identifier::Blob(_) | Identifier::Remote(_) => None,
        };
        match identifier {
            Identifier::Image(reference, _) | Identifier::Layout(reference, _) => {
                match digest {
                    Some(digest) => {
                        check_digest(source, &reference, &digest)?;
                        let platform = platform(vertex);
                        rule.salt = Some(key::image(&digest, &platform));
                        rule.ingredients = ingredients::image(&reference, &digest, &platform);
                        if let Some(limit) = layer_limit(source)? {
                            rule.salt = Some(key::lowest_layers(&digest, &platform, limit));
                            rule.ingredients.push(("layers".to_owned(), limit.to_string()));
                        }
                    }
                    // The digest of a tag isn't known before its lookup.
                    None => rule.ephemeral = true,
                }
            }
            Identifier::Local(name) => {
                LocalAttributes::parse(source)?;
                if !self.sources.has(&name) {
                    return Err(unknown_context(&name));
                }
                rule.ephemeral = true;
            }
            Identifier::Blob(source) => rule.salt = Some(source.key()),
            Identifier::Remote(source) => match source.key() {
                Some(key) => rule.salt = Some(key),
                None => rule.ephemeral = true,
            },
        }
        Ok(())
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
                self.exec.run(exec, &inputs, &context.reporter).await
            }
            _ => Ok(cancellable(&context.reporter, work).await?),
        }
    }

    async fn work(
        &self,
        vertex: &Vertex,
        inputs: &[Output],
        context: &StepContext,
    ) -> Result<Vec<Output>> {
        let reporter = &context.reporter;
        match &vertex.op.kind {
            Some(OpKind::Source(source)) => {
                let platform = platform(vertex);
                Ok(vec![self.load(source, &platform, reporter).await?])
            }
            Some(OpKind::File(op)) => {
                let packing = self.packing.filter(|_| context.is_last);
                file::run(&self.snapshots, op, inputs.to_vec(), packing, reporter).await
            }
            Some(OpKind::Merge(op)) => {
                Ok(vec![merge::merge(&self.snapshots, op, inputs, reporter).await?])
            }
            Some(OpKind::Diff(op)) => {
                Ok(vec![diff::diff(&self.snapshots, op, inputs, reporter).await?])
            }
            Some(OpKind::Build(_)) => Err(Error::Unsupported("a build op".to_owned())),
            Some(OpKind::Passthrough(op)) => {
                let passed = op.outputs.iter().map(|input| inputs.get(*input as usize).cloned());
                passed.collect::<Option<_>>().ok_or_else(|| Error::Invalid("no such input".into()))
            }
            Some(OpKind::Exec(_)) | None => Ok(inputs.to_vec()),
        }
    }

    async fn load(
        &self,
        source: &SourceOp,
        platform: &Platform,
        reporter: &Reporter,
    ) -> Result<Output> {
        let (origin, digest) = match Identifier::parse(source)? {
            Identifier::Local(name) => return self.load_local(&name, source, reporter).await,
            Identifier::Blob(blob) => {
                let layer = Box::pin(blob.load(&self.remotes, &self.images, reporter)).await?;
                return Ok(Output::Layer(Some(layer)));
            }
            Identifier::Remote(remote) => {
                let layer = self.remotes.load(source, &remote, reporter).await?;
                return Ok(Output::Layer(Some(layer)));
            }
            Identifier::Image(reference, policy) => {
                let digest = self.images.digest_by(&reference, policy).await?;
                check_digest(source, &reference, &digest)?;
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
        let limit = layer_limit(source)?;
        let top = self.images.declare_lowest(&origin, &digest, platform, limit).await?;
        Ok(Output::Layer(top))
    }

    async fn load_local(
        &self,
        name: &str,
        source: &SourceOp,
        reporter: &Reporter,
    ) -> Result<Output> {
        let attributes = LocalAttributes::parse(source)?;
        let directory = self.sources.directory(name, source, reporter).await?;
        let context = Arc::new(LocalContext::open(name, &directory, &attributes)?);
        if attributes.include.is_empty() {
            return Ok(Output::Local(context));
        }
        let snapshots = self.snapshots.clone();
        let copy = blocking(move || -> Result<_> {
            let copy = context.copy(&snapshots, Path::new("/"), &attributes.include)?;
            Ok(snapshots.commit_pending(copy)?)
        });
        Ok(Output::Layer(Some(copy.await?)))
    }

    /// Waits until a step may run. Only programs and file operations count.
    async fn permit(&self, vertex: &Vertex) -> Option<SemaphorePermit<'_>> {
        let is_counted = matches!(vertex.op.kind, Some(OpKind::Exec(_) | OpKind::File(_)));
        let steps = self.steps.as_ref().filter(|_| is_counted)?;
        // Nothing closes the semaphore.
        steps.acquire().await.ok()
    }

    async fn digest(&self, vertex: &Vertex, input: usize, output: &Output) -> Result<Digest> {
        let selections = content::selections(&vertex.op, input)?.unwrap_or_default();
        materialise(&self.snapshots, [output], &Reporter::silent()).await?;
        let (snapshots, output) = (self.snapshots.clone(), output.clone());
        blocking(move || content::digest(&snapshots, &output, &selections)).await
    }
}

/// Returns the platform of a vertex, or else the host's.
pub(crate) fn platform(vertex: &Vertex) -> Platform {
    vertex.op.platform.as_ref().map_or_else(Platform::host, Platform::normal)
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
        let _permit = self.permit(vertex).await;
        let outputs = Box::pin(self.run(vertex, inputs, &context)).await?;
        if let Some(ahead) = &self.ahead {
            let kept = context.kept.iter().filter_map(|output| outputs.get(*output as usize));
            for top in kept.filter_map(Output::layer).flatten() {
                ahead.add(top);
            }
        }
        Ok(outputs)
    }
}
