//! The components that turn graphs into files. A build creates them once.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use kiln_event::EventSender;
use kiln_images::{ImageResolver, ImageResolverOptions, PullPolicy};
use kiln_llb::{Definition, Graph};
use kiln_solver::{SolveOptions, Solved, solve};
use kiln_store::Store;
use kiln_tree::Dir;
use kiln_worker::{
    BuildInputs, Directories, Output, RemoteCache, RemoteOptions, Runner, RuntimeRunner,
    SourcePolicies, StoreCache, Worker,
};
use tokio_util::sync::CancellationToken;

use super::ahead::Ahead;
use super::graph_build::GraphInputs;
use super::locals::Locals;
use super::packer;
use super::session::Failure;
use super::spec::{BuildSpec, DEFAULT_AGENT};
use crate::engine::Engine;
use crate::redact::Redactor;

/// The event sender and cancellation token of some work.
#[derive(Clone, Copy)]
pub(super) struct Reporting<'a> {
    /// The sender of the work's events.
    pub(super) events: &'a EventSender,
    /// The token that stops the work.
    pub(super) cancel: &'a CancellationToken,
}

/// The components that turn graphs into files.
pub(super) struct Tools {
    pub(super) store: Store,
    pub(super) resolver: Arc<ImageResolver>,
    pub(super) worker: Arc<Worker>,
    /// The packer that works while steps run; `None` if no output needs packed layers.
    pub(super) ahead: Option<Ahead>,
    /// The policies for sources.
    pub(super) policies: SourcePolicies,
    /// The redactor for secrets in the names of steps.
    pub(super) redactor: Arc<Redactor>,
    jobs: usize,
    /// `true` if the engine may make files of images.
    has_trees: bool,
}

impl Tools {
    /// Creates the tools.
    pub(super) fn new(
        engine: &Engine,
        request: &BuildSpec,
        redactor: Arc<Redactor>,
        locals: &Locals,
    ) -> Result<Self> {
        let resolver = Arc::new(ImageResolver::new(ImageResolverOptions {
            layouts: request.layouts.clone(),
            policy: if request.pull { PullPolicy::Always } else { PullPolicy::default() },
            ..engine.image_options()
        }));
        let store = engine.store.clone();
        let ahead = Ahead::new(&request.outputs, &store, &resolver);
        let sources = Arc::new(Directories(locals.directories.clone()));
        let inputs = BuildInputs {
            allowed: request.allowed.clone(),
            secrets: Arc::new(request.secrets.clone()),
            agents: Arc::new(request.agents.clone()),
            keep_failed: request.keep_failed,
            limits: request.resources.clone(),
            packing: packer::packing(&request.outputs),
            ahead: ahead.as_ref().map(|ahead| Arc::clone(&ahead.packer)),
            remote: RemoteOptions {
                max_bytes: request.input_limit,
                git: request.git,
                contexts: request.addresses(),
                // Only the user may lend SSH keys; a Dockerfile may not.
                ssh_agent: request
                    .agents
                    .get(DEFAULT_AGENT)
                    .cloned()
                    .or_else(|| engine.options.ssh_agent.clone().filter(|_| request.uses_ssh)),
                user_agent: None,
                uploads: None,
            },
            ..BuildInputs::new(Arc::clone(&resolver), sources)
        };
        let runtime = request.runtime.as_ref().map(|program| -> Arc<dyn Runner> {
            let isolation = engine.options.isolation;
            Arc::new(RuntimeRunner::new(program.clone(), &store, isolation))
        });
        let tools = Self::of(engine, resolver, inputs, runtime, redactor)?;
        let (jobs, policies) =
            (request.jobs.unwrap_or(engine.options.jobs), request.policies.clone());
        Ok(Self { ahead, policies, jobs, ..tools })
    }

    /// Creates the tools of a build with these inputs. `runner` replaces the machine's runner of
    /// programs.
    fn of(
        engine: &Engine,
        resolver: Arc<ImageResolver>,
        inputs: BuildInputs,
        runner: Option<Arc<dyn Runner>>,
        redactor: Arc<Redactor>,
    ) -> Result<Self> {
        let mut machine = engine.machine()?;
        if let Some(runner) = runner {
            machine.runner = runner;
        }
        let worker = Arc::new(Worker::new(&machine, inputs));
        let (store, jobs) = (engine.store.clone(), engine.options.jobs);
        let has_trees = engine.options.has_trees;
        let policies = SourcePolicies::default();
        Ok(Self { store, resolver, worker, ahead: None, policies, redactor, jobs, has_trees })
    }

    /// Creates the tools of a build whose graphs the caller makes.
    pub(super) fn for_graphs(engine: &Engine, inputs: GraphInputs) -> Result<Self> {
        let resolver = Arc::new(ImageResolver::new(engine.image_options()));
        let build = BuildInputs {
            allowed: inputs.allowed,
            secrets: inputs.secrets,
            agents: inputs.agents,
            remote: inputs.remote,
            keep_files: inputs.keep_files,
            keep_secrets: true,
            ..BuildInputs::new(Arc::clone(&resolver), inputs.sources)
        };
        Self::of(engine, resolver, build, None, Arc::new(Redactor::default()))
    }

    /// Returns the tools for the graphs of a frontend that is the program of an image.
    pub(super) fn for_program(&self) -> Self {
        Self {
            store: self.store.clone(),
            resolver: Arc::clone(&self.resolver),
            worker: Arc::clone(&self.worker),
            ahead: None,
            policies: self.policies.clone(),
            redactor: Arc::clone(&self.redactor),
            jobs: self.jobs,
            has_trees: self.has_trees,
        }
    }

    /// Fails unless the engine may make files of images.
    pub(super) fn check_privileges(&self) -> Result<()> {
        if !self.has_trees {
            bail!("files of images can't be made by this command");
        }
        Ok(())
    }

    /// Solves several graphs as one, with the store's cache.
    pub(super) async fn solve(
        &self,
        definitions: &[Definition],
        reporting: Reporting<'_>,
    ) -> Result<Solved<Output>, Failure> {
        let graph = load(definitions)?;
        let cache = RemoteCache::new(self.cache(), Vec::new(), &self.resolver.blobs(), None);
        self.solve_graph(&graph, &Arc::new(cache), reporting).await
    }

    /// Returns the store's cache.
    pub(super) fn cache(&self) -> StoreCache {
        let redactor = Arc::clone(&self.redactor);
        let cache = StoreCache::new(self.store.clone());
        cache.redacted(Arc::new(move |name| redactor.text(name)))
    }

    /// Solves a graph with a cache.
    pub(super) async fn solve_graph(
        &self,
        graph: &Arc<Graph>,
        cache: &Arc<RemoteCache>,
        reporting: Reporting<'_>,
    ) -> Result<Solved<Output>, Failure> {
        self.check_privileges()?;
        let (events, cancel) = (reporting.events.clone(), reporting.cancel.clone());
        let options = SolveOptions { jobs: self.jobs, events, cancel };
        let (graph, cache) = (Arc::clone(graph), Arc::clone(cache));
        let solved = solve(graph, Arc::clone(&self.worker), cache, options);
        solved.await.map_err(Failure::Solve)
    }

    /// Opens the files of an output.
    pub(super) async fn open(&self, output: &Output) -> Result<Dir> {
        let Some(layer) = output.layer() else { bail!("a directory of the host is no layer") };
        self.worker.materialise(output).await?;
        Ok(self.worker.read(layer)?)
    }
}

/// Checks several graphs and merges them into one.
pub(super) fn load(definitions: &[Definition]) -> Result<Arc<Graph>> {
    Ok(Arc::new(Graph::load_all(definitions).context("check the build graph")?))
}
