//! Builds whose graphs the caller makes: a client of a server, or a frontend in a container.
//!
//! Such a build begins without a graph. The caller solves any number of graphs, reads files of their
//! results, asks about images, and at last exports some of the results. All graphs of a build share
//! its sources, secrets and entitlements, and load each source once.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kiln_attest::Attestations;
use kiln_event::{EventSender, Reporter};
use kiln_exporter::{ExportRequest, Exported};
use kiln_images::ImageResolver;
use kiln_llb::Graph;
use kiln_llb::op::{MountKind, OpKind, SourceOp};
use kiln_solver::Solved;
use kiln_store::LayerId;
use kiln_tree::Dir;
use kiln_worker::{
    AgentSources, Allowed, ExecContainer, ExecContainerRequest, GitReference, LocalSources, Output,
    Pin, RemoteOptions, SecretSource, SecretSources,
};
use tokio_util::sync::CancellationToken;

use super::export::Exporting;
use super::graph_cache::GraphCaches;
use super::session::Failure;
use super::source_time::time_of;
use super::spec::OutputStream;
use super::tools::{Reporting, Tools};
use crate::engine::Engine;

/// The inputs of a build whose graphs the caller makes.
#[derive(Debug)]
pub struct GraphInputs {
    /// The files of local sources.
    pub sources: Arc<dyn LocalSources>,
    /// The secrets.
    pub secrets: Arc<dyn SecretSources>,
    /// The SSH agents that steps may use.
    pub agents: Arc<dyn AgentSources>,
    /// The entitlements of steps beyond the sandbox.
    pub allowed: Allowed,
    /// The options of files and repositories on servers.
    pub remote: RemoteOptions,
    /// `true` if the error of a failed `RUN` step has its [`LeftFiles`](kiln_worker::LeftFiles).
    pub keep_files: bool,
}

impl GraphInputs {
    /// Returns inputs without secrets, agents and entitlements.
    pub fn new(sources: Arc<dyn LocalSources>) -> Self {
        Self {
            sources,
            secrets: Arc::new(BTreeMap::<_, SecretSource>::new()),
            agents: Arc::new(BTreeMap::new()),
            allowed: Allowed::default(),
            remote: RemoteOptions::default(),
            keep_files: false,
        }
    }
}

/// A file at a URL.
#[derive(Debug)]
pub struct RemoteFile {
    /// The digest of the content.
    pub digest: String,
    /// The name.
    pub name: String,
    /// The time that the server reports, in seconds since 1970.
    pub seconds: Option<i64>,
    /// The content.
    pub content: File,
}

/// A build whose graphs the caller makes.
pub struct GraphBuild {
    pub(super) tools: Tools,
    pub(super) cancel: CancellationToken,
    pub(super) caches: GraphCaches,
}

impl std::fmt::Debug for GraphBuild {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GraphBuild").finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins a build whose graphs the caller makes. `cancel` stops all work of the build.
    ///
    /// # Errors
    /// Fails if the machine's name servers can't be read.
    pub fn begin(&self, inputs: GraphInputs, cancel: CancellationToken) -> Result<GraphBuild> {
        let tools = Tools::for_graphs(self, inputs)?;
        Ok(GraphBuild { tools, cancel, caches: GraphCaches::default() })
    }
}

impl GraphBuild {
    /// Solves a graph with the store's cache and the imported caches.
    ///
    /// # Errors
    /// Fails if a step fails, or if the build is cancelled.
    pub async fn solve(
        &self,
        graph: &Arc<Graph>,
        events: &EventSender,
    ) -> Result<Solved<Output>, Failure> {
        self.reset_cache_mounts(graph)?;
        tokio::select! {
            () = self.tools.worker.look_up_images(graph) => {}
            () = self.cancel.cancelled() => {}
        }
        let cache = self.cache().await;
        tokio::select! {
            () = self.tools.worker.know_images(graph) => {}
            () = self.cancel.cancelled() => {}
        }
        if !cache.is_local() {
            self.tools.worker.know_bases(graph).await;
        }
        loop {
            let reporting = Reporting { events, cancel: &self.cancel };
            match self.tools.solve_graph(graph, &cache, reporting).await {
                // A cache has lost blobs that it listed. The next attempt makes them again.
                Err(_) if self.has_lost_blobs() => {}
                ended => return ended,
            }
        }
    }

    /// Empties the cache mounts of steps that run although their results may be cached.
    fn reset_cache_mounts(&self, graph: &Graph) -> Result<()> {
        for vertex in graph.vertices().iter().filter(|vertex| vertex.metadata.ignore_cache) {
            let Some(OpKind::Exec(exec)) = &vertex.op.kind else { continue };
            for mount in &exec.mounts {
                if let MountKind::Cache(cache) = &mount.kind {
                    let has_input = mount.input.is_some();
                    self.tools.store.cache_mounts().reset(&cache.id, has_input)?;
                }
            }
        }
        Ok(())
    }

    /// Returns the uppermost layer of a result; `None` for an empty file system. Copies a local
    /// source into a layer.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub async fn layer(&self, output: &Output) -> Result<Option<LayerId>> {
        Ok(self.tools.worker.layer(output).await?)
    }

    /// Opens the files of a result. Those of a local source are read in place.
    ///
    /// # Errors
    /// Fails if a layer can't be fetched or mounted.
    pub async fn files(&self, output: &Output) -> Result<Dir> {
        match output {
            Output::Local(context) => Ok(context.dir().try_clone()?),
            Output::Layer(_) => self.tools.open(output).await,
        }
    }

    /// Returns the resolver of images.
    pub fn images(&self) -> &ImageResolver {
        &self.tools.resolver
    }

    /// Makes a container with files of this build's results. It must be dropped before the build.
    ///
    /// # Errors
    /// Fails if a mount can't be made, or if the container requires an entitlement that isn't
    /// granted.
    pub async fn container(&self, request: ExecContainerRequest) -> Result<ExecContainer> {
        let reporter = Reporter::silent_until(self.cancel.clone());
        Ok(self.tools.worker.container(request, &reporter).await?)
    }

    /// Loads a remote source, and returns the identity of its content.
    ///
    /// # Errors
    /// Fails if the source isn't available.
    pub async fn pin(&self, source: &SourceOp) -> Result<Option<Pin>> {
        let reporter = Reporter::silent_until(self.cancel.clone());
        self.tools.worker.fetch(source, &reporter).await?;
        Ok(self.tools.worker.pin(source))
    }

    /// Loads a file at a URL. Returns its digest, name and time.
    ///
    /// # Errors
    /// Fails if the source isn't available, or if it is no file.
    pub async fn remote_file(&self, source: &SourceOp) -> Result<RemoteFile> {
        let reporter = Reporter::silent_until(self.cancel.clone());
        let output = self.tools.worker.fetch(source, &reporter).await?;
        let pin = self.tools.worker.pin(source).context("the source is no file at a URL")?;
        let root = self.tools.open(&output).await?;
        let name = root.names()?.into_iter().next().context("the source has no file")?;
        let name = String::from_utf8_lossy(&name).into_owned();
        let metadata = root.metadata(Path::new(&name), false)?;
        let seconds = metadata.map(|metadata| metadata.mtime.seconds).filter(|time| *time != 0);
        let content = root.open_file(Path::new(&name))?;
        Ok(RemoteFile { digest: format!("{}:{}", pin.algorithm, pin.hex), name, seconds, content })
    }

    /// Looks up the reference of a git source, and fetches its objects if they are asked for.
    /// Returns `None` for other sources.
    ///
    /// # Errors
    /// Fails if the repository isn't available or doesn't have the reference.
    pub async fn git_reference(
        &self,
        source: &SourceOp,
        with_objects: bool,
    ) -> Result<Option<GitReference>> {
        let reporter = Reporter::silent_until(self.cancel.clone());
        Ok(self.tools.worker.git_reference(source, with_objects, &reporter).await?)
    }

    /// Returns the time of a remote source in seconds since 1970: that of a repository's commit, or
    /// that which the server of a file reports. `None` if it has none.
    ///
    /// # Errors
    /// Fails if the source isn't available.
    pub async fn time_of(&self, source: &SourceOp) -> Result<Option<i64>> {
        let reporter = Reporter::silent_until(self.cancel.clone());
        time_of(&self.tools, source.clone(), &reporter).await
    }

    /// Writes images with attestations to outputs, as a step of this title. `stream` receives the
    /// outputs whose destination is `-`.
    ///
    /// # Errors
    /// Returns the first failure.
    pub async fn export(
        &self,
        request: ExportRequest,
        attestations: Attestations,
        title: &'static str,
        stream: OutputStream,
        events: EventSender,
    ) -> Result<Exported> {
        self.exporting(stream, events).export_as(title, request, attestations).await
    }

    pub(super) fn exporting(&self, stream: OutputStream, events: EventSender) -> Exporting {
        let Tools { store, resolver, worker, .. } = &self.tools;
        Exporting {
            store: store.clone(),
            worker: Arc::clone(worker),
            limits: resolver.archive_limits(),
            events,
            cancel: self.cancel.clone(),
            stream,
        }
    }
}
