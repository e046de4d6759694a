//! One build at work.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use kiln_exporter::ImageSource;
use kiln_frontend::{ContextFiles, Images, Lowered, Options, Warning};
use kiln_llb::{Definition, Graph};
use kiln_oci::Platform;
use kiln_registry::Client;
use kiln_solver::{Event, EventSender, SolveError, SolveOptions, Solved, solve};
use kiln_store::{LayerId, Store};
use kiln_worker::{
    DefaultNetwork, ImageResolver, ImageResolverOptions, Output, RemoteOptions, StoreCache, Worker,
    WorkerOptions,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::context::Input;
use super::files::Files;
use super::images::{Resolver, Step};
use super::output::Exporting;
use super::request::{BuildRequest, CONTEXT_NAME};
use crate::commands::build::Network;
use crate::commands::sync;
use crate::settings::Settings;

/// What the frontend answers.
type Answer<T> = Result<T, Vec<kiln_frontend::Error>>;

/// What a build works with.
pub(super) struct Session<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) input: &'a Input,
    pub(super) settings: &'a Settings,
    pub(super) store: Store,
    pub(super) events: EventSender,
    pub(super) cancel: CancellationToken,
    /// Build checks that fired, to be shown at the end.
    pub(super) warnings: RefCell<Vec<Warning>>,
}

/// What a build has come to.
#[derive(Debug)]
pub(crate) struct Done {
    /// What was written.
    pub(crate) exported: kiln_exporter::Exported,
    /// How many steps there were.
    pub(crate) steps: usize,
    /// How many of them were known.
    pub(crate) cached: usize,
}

/// Why a build has failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The Dockerfile is wrong.
    Dockerfile(Vec<kiln_frontend::Error>),
    /// A step failed.
    Solve(SolveError),
    /// Anything else.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Session<'_> {
    /// Lowers, solves and exports.
    pub(super) async fn run(&self) -> Result<Done, Failure> {
        let store = &self.store;
        let resolver = self.resolver();
        let lowered = self.lower(&resolver)?;
        let blobs = resolver.blobs();
        let worker = self.worker(store, resolver)?;
        // An image without files needs no graph.
        let (layer, steps, cached) = if lowered.edge.is_some() {
            let solved = self.solve(store, &worker, &lowered).await?;
            (layer_of(&solved.output)?, solved.steps, solved.cached)
        } else {
            (None, 0, 0)
        };
        let exporting = Exporting {
            store: store.clone(),
            worker,
            blobs,
            events: self.events.clone(),
            cancel: self.cancel.clone(),
        };
        let platform = self.request.platform.clone();
        let source = ImageSource { config: lowered.image, layer, platform };
        let outputs = self.request.outputs.clone();
        let exported = exporting.export(source, outputs, lowered.epoch).await?;
        if let Err(error) = sync::start(store) {
            self.events.send(Event::Warning { id: None, message: format!("{error:#}") });
        }
        Ok(Done { exported, steps, cached })
    }

    /// Lowers, and returns the graph.
    pub(super) fn graph(&self) -> Result<Definition, Failure> {
        Ok(self.lower(&self.resolver())?.definition())
    }

    fn resolver(&self) -> Arc<ImageResolver> {
        Arc::new(ImageResolver::new(ImageResolverOptions {
            store: self.store.clone(),
            layouts: self.request.layouts.clone(),
            registry: Client::default(),
            archive_limits: self.settings.archive_limits,
        }))
    }

    fn lower(&self, resolver: &ImageResolver) -> Result<Lowered, Failure> {
        let lowered = self.ask(resolver, kiln_frontend::lower)?;
        self.warnings.borrow_mut().extend(lowered.warnings.iter().cloned());
        Ok(lowered)
    }

    /// Asks the frontend a question about the Dockerfile, with the images and files at hand.
    fn ask<T>(
        &self,
        resolver: &ImageResolver,
        question: impl FnOnce(&[u8], &Options, &dyn Images, &dyn ContextFiles) -> Answer<T>,
    ) -> Result<T, Failure> {
        let (request, dockerfile) = (self.request, &self.input.dockerfile);
        let files = Files::open(&self.input.directory, dockerfile, &request.directories)?;
        let images =
            Resolver { images: resolver, events: &self.events, runtime: Handle::current() };
        let options = self.options();
        let step = Step::begin(&self.events, format!("[internal] load {}", dockerfile.name));
        // Resolving images blocks this thread until the registries answer.
        let answer =
            tokio::task::block_in_place(|| question(&dockerfile.text, &options, &images, &files));
        match &answer {
            Ok(_) => step.complete(),
            Err(errors) => step.fail(&errors.first().map_or(&"" as &dyn Display, |error| error)),
        }
        answer.map_err(Failure::Dockerfile)
    }

    fn options(&self) -> Options {
        let request = self.request;
        Options {
            target: request.target.clone(),
            build_args: request.build_args.clone(),
            labels: request.labels.clone(),
            platform: request.platform.clone(),
            build_platform: Platform::host(),
            network: match request.network {
                Network::Default => None,
                Network::Host => Some("host".to_owned()),
                Network::None => Some("none".to_owned()),
            },
            named_contexts: request.named_contexts.clone(),
            filename: self.input.dockerfile.name.clone(),
            session: "kiln".to_owned(),
            extra_hosts: request.hosts.clone(),
            hostname: None,
            no_cache: request.no_cache.clone(),
            context_name: CONTEXT_NAME.to_owned(),
            multi_platform: false,
        }
    }

    fn worker(&self, store: &Store, images: Arc<ImageResolver>) -> Result<Arc<Worker>, Failure> {
        let mut contexts = self.request.directories.clone();
        contexts.insert(CONTEXT_NAME.to_owned(), self.input.directory.clone());
        let options = WorkerOptions {
            store: store.clone(),
            images,
            contexts,
            network: DefaultNetwork::Host,
            resolv_conf: self.settings.resolv_conf()?,
            secrets: self.request.secrets.clone(),
            remote: RemoteOptions {
                max_bytes: self.request.input_limit,
                environment: self.settings.git_environment(),
                // Only who builds may lend keys, not a Dockerfile.
                ssh_agent: self.settings.ssh_agent().filter(|_| self.request.uses_ssh),
            },
        };
        Ok(Arc::new(Worker::new(options).context("prepare the worker")?))
    }

    async fn solve(
        &self,
        store: &Store,
        worker: &Arc<Worker>,
        lowered: &Lowered,
    ) -> Result<Solved<Output>, Failure> {
        if !rustix::process::geteuid().is_root() {
            let problem = "building without root privileges is not supported yet: run kiln as root";
            return Err(Failure::Other(anyhow!(problem)));
        }
        let graph = Graph::load(&lowered.definition()).context("check the build graph")?;
        let options = SolveOptions {
            jobs: self.settings.jobs(),
            events: self.events.clone(),
            cancel: self.cancel.clone(),
        };
        solve(
            Arc::new(graph),
            Arc::clone(worker),
            Arc::new(StoreCache::new(store.clone())),
            options,
        )
        .await
        .map_err(Failure::Solve)
    }
}

fn layer_of(output: &Output) -> Result<Option<LayerId>, Failure> {
    output
        .layer()
        .map(Option::<&LayerId>::cloned)
        .ok_or_else(|| Failure::Other(anyhow!("the build's result is a directory of the host")))
}
