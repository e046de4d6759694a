//! A build in progress.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;
use kiln_event::EventSender;
use kiln_exporter::{ExportRequest, ImageSource};
use kiln_frontend::lint::Warning;
use kiln_llb::{Definition, Graph, SourceInfo};
use kiln_oci::Platform;
use kiln_solver::{SolveError, StepError};
use kiln_store::LayerId;
use kiln_worker::{Output, RemoteCache};
use tokio_util::sync::CancellationToken;

use super::cache_export::Cacheable;
use super::context::Input;
use super::export::Exporting;
use super::files::Dockerfile;
use super::locals::Locals;
use super::plan::{Plan, PlannedImage};
use super::spec::BuildSpec;
use super::step::Step;
use super::tools::{self, Reporting, Tools};
use crate::engine::Engine;

/// The request, tools and state of a build.
pub(super) struct Session<'a> {
    pub(super) request: &'a BuildSpec,
    pub(super) input: &'a Input,
    pub(super) tools: &'a Tools,
    pub(super) events: EventSender,
    pub(super) cancel: CancellationToken,
    /// The findings of the build checks, which are printed at the end.
    pub(super) warnings: Mutex<Vec<Warning>>,
    /// The file that reports show in place of the Dockerfile, if a frontend names another one.
    pub(super) file: Mutex<Option<Dockerfile>>,
    pub(super) engine: &'a Engine,
    pub(super) locals: &'a Locals,
}

/// The outcome of a build that succeeded.
#[derive(Debug)]
pub struct Built {
    /// The images and files that the exporter wrote.
    pub exported: kiln_exporter::Exported,
    /// The number of steps.
    pub steps: usize,
    /// The number of steps whose results came from the cache.
    pub cached: usize,
}

/// The reason for a failed build.
#[derive(Debug)]
pub enum Failure {
    /// Errors in the Dockerfile.
    Dockerfile(Vec<kiln_frontend::Error>),
    /// A failed step.
    Solve(SolveError),
    /// Any other error.
    Other(anyhow::Error),
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Other(error)
    }
}

impl Failure {
    /// Returns `true` if a step failed by itself, rather than because the build was stopped.
    pub fn is_of_a_step(&self) -> bool {
        let Self::Solve(SolveError::Step { error, .. }) = self else { return false };
        !matches!(**error, StepError::Cancelled)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dockerfile(errors) => {
                let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
                f.write_str(&errors.join("; "))
            }
            Self::Solve(error) => error.fmt(f),
            Self::Other(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for Failure {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Dockerfile(errors) => errors.first().map(|error| error as _),
            Self::Solve(error) => Some(error),
            Self::Other(error) => Some(error.as_ref()),
        }
    }
}

impl Session<'_> {
    /// Has the frontend describe the images, solves their graphs, and exports the result.
    pub(super) async fn run(&self) -> Result<Built, Failure> {
        let begun = time::OffsetDateTime::now_utc();
        let importing = self.begin_imports();
        let (plan, cache) = match self.frontend() {
            None => {
                let plan = self.plan(self.lower()?)?;
                self.check_outputs(&plan)?;
                (plan, Arc::new(self.imported(importing).await))
            }
            Some(frontend) => {
                let cache = Arc::new(self.imported(importing).await);
                let plan = Box::pin(self.plan_by(&frontend, &cache)).await?;
                self.show_file_of(&plan);
                self.check_outputs(&plan)?;
                (plan, cache)
            }
        };
        // An image without files needs no graph. The results of the scans come last.
        let with_files = plan.images.iter().filter(|image| image.has_files());
        let graphs = with_files.map(|image| &image.definition);
        let scans = plan.images.iter().filter_map(|image| image.scan.as_ref());
        let graphs: Vec<Definition> = graphs.chain(scans).cloned().collect();
        let graph = if graphs.is_empty() { None } else { Some(tools::load(&graphs)?) };
        if let Some(graph) = graph.as_ref().filter(|_| !cache.is_local()) {
            Box::pin(self.prepare(graph, &cache)).await;
        }
        loop {
            match Box::pin(self.make(&plan, begun, graph.as_ref(), &cache)).await {
                Err(_) if self.may_try_again() => {}
                ended => return ended.inspect_err(|_| self.stop_packing()),
            }
        }
    }

    /// Prepares the import of results and cache mounts from external caches.
    async fn prepare(&self, graph: &Arc<Graph>, cache: &RemoteCache) {
        self.tools.worker.know_bases(graph).await;
        let mut filling = None;
        let begin = || {
            let step = Step::begin(&self.events, "importing cache mounts".to_owned());
            filling.insert(step).reporter(&self.cancel)
        };
        cache.fill_mounts(graph, &self.tools.resolver.blobs(), begin).await;
        if let Some(step) = filling {
            step.complete();
        }
    }

    /// Solves the graph and exports the result.
    async fn make(
        &self,
        plan: &Plan,
        begun: time::OffsetDateTime,
        graph: Option<&Arc<Graph>>,
        cache: &Arc<RemoteCache>,
    ) -> Result<Built, Failure> {
        let solved = match graph {
            None => None,
            Some(graph) => {
                let reporting = Reporting { events: &self.events, cancel: &self.cancel };
                Some(self.tools.solve_graph(graph, cache, reporting).await?)
            }
        };
        let (steps, cached) =
            solved.as_ref().map_or((0, 0), |solved| (solved.steps, solved.cached));
        let (outputs, keys) =
            solved.map_or_else(Default::default, |solved| (solved.outputs, solved.vertices));
        let graph = graph.map(|graph| &**graph);
        let made = Cacheable { graph, keys: &keys, cache };
        if let Some(ahead) = &self.tools.ahead {
            ahead.close();
        }
        let mut outputs = outputs.into_iter();
        let mut images = images(plan, outputs.by_ref())?;
        let scans = outputs.collect();
        self.inline(&mut images, &made).await?;
        let tops: Vec<LayerId> = images.iter().filter_map(|image| image.layer.clone()).collect();
        let mut outputs = self.request.outputs.clone();
        for (key, value) in &plan.annotations {
            for output in &mut outputs {
                let added = output.annotations.insert_by_key(key, value);
                added.map_err(|error| Failure::Other(error.into()))?;
            }
        }
        if !cache.is_local() {
            // A retry writes all outputs again, but can't rewind a stream. So streams come last.
            outputs.sort_by_key(kiln_exporter::Output::is_stdout);
        }
        let mut attestations = self.attestations(plan, &images, &made, begun).await?;
        attestations.add_given(self.scanned(scans).await?);
        let request = ExportRequest { attester: None, has_index: plan.has_index, images, outputs };
        let exported = self.exporting().export(request, attestations).await?;
        exported.warnings.iter().for_each(|message| self.warn(message));
        self.export_caches(&made, &tops).await?;
        Ok(Built { exported, steps, cached })
    }

    /// Returns the context of an export.
    pub(super) fn exporting(&self) -> Exporting {
        let Tools { store, resolver, worker, .. } = self.tools;
        Exporting {
            store: store.clone(),
            worker: Arc::clone(worker),
            limits: resolver.archive_limits(),
            events: self.events.clone(),
            cancel: self.cancel.clone(),
            stream: self.request.output_stream.clone(),
        }
    }

    fn stop_packing(&self) {
        if let Some(ahead) = &self.tools.ahead {
            ahead.stop();
        }
    }

    /// Rejects outputs that can't hold these images, before the build begins.
    fn check_outputs(&self, plan: &Plan) -> Result<(), Failure> {
        let platforms: Vec<Platform> =
            plan.images.iter().map(|image| image.platform.clone()).collect();
        let is_index = platforms.len() > 1 || plan.has_index;
        let is_attested = self.request.attest.is_requested()
            || plan.images.iter().any(|image| !image.statements.is_empty());
        let check = |output: &kiln_exporter::Output| {
            output.check_platforms(&platforms, is_index, is_attested)
        };
        let epoch = plan.images.iter().find_map(|image| image.epoch);
        let is_vain = |output: &kiln_exporter::Output| {
            output.rewrite_timestamp && output.epoch.or(epoch).is_none()
        };
        if self.request.outputs.iter().any(is_vain) {
            let message = "rewrite-timestamp is specified, but no source-date-epoch was found";
            self.warn(message);
        }
        let checked = self.request.outputs.iter().try_for_each(check);
        checked.map_err(|error| Failure::Other(error.into()))
    }

    /// Returns the graph of each platform.
    pub(super) async fn graphs(&self) -> Result<Vec<Definition>, Failure> {
        let plan = match self.frontend() {
            None => self.plan(self.lower()?)?,
            Some(frontend) => {
                let cache = Arc::new(self.imported(self.begin_imports()).await);
                Box::pin(self.plan_by(&frontend, &cache)).await?
            }
        };
        Ok(plan.images.into_iter().map(|image| image.definition).collect())
    }

    /// Lets reports show the file that the graphs refer to. The frontend may have read another one
    /// than the Dockerfile.
    fn show_file_of(&self, plan: &Plan) {
        let source = plan.images.iter().find_map(|image| image.definition.sources.first());
        if let Some(SourceInfo { filename: name, data: text, .. }) = source.cloned() {
            let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
            file.get_or_insert(Dockerfile { name, text, ignore: None });
        }
    }
}

/// Returns the image of each platform. `outputs` holds the results of the images with files.
fn images(
    plan: &Plan,
    mut outputs: impl Iterator<Item = Output>,
) -> Result<Vec<ImageSource>, Failure> {
    let image = |image: &PlannedImage| {
        let output = if image.has_files() { outputs.next() } else { None };
        let layer = output.as_ref().map(layer_of).transpose()?.flatten();
        let (config, platform) = (image.config.clone(), image.platform.clone());
        Ok(ImageSource { config, layer, platform, epoch: image.epoch })
    };
    plan.images.iter().map(image).collect()
}

fn layer_of(output: &Output) -> Result<Option<LayerId>, Failure> {
    output
        .layer()
        .map(Option::<&LayerId>::cloned)
        .ok_or_else(|| Failure::Other(anyhow!("the build's result is a directory of the host")))
}
