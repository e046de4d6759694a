//! A build in progress.

use std::fmt;
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use kiln_attest::Attestations;
use kiln_event::EventSender;
use kiln_exporter::{ExportRequest, ImageSource};
use kiln_frontend::Lowered;
use kiln_frontend::lint::Warning;
use kiln_llb::{Definition, Graph};
use kiln_oci::Platform;
use kiln_solver::{SolveError, StepError};
use kiln_store::LayerId;
use kiln_worker::{Output, RemoteCache};
use tokio_util::sync::CancellationToken;

use super::cache_export::Cacheable;
use super::context::Input;
use super::export::Exporting;
use super::policy;
use super::spec::BuildSpec;
use super::step::Step;
use super::tools::{self, Reporting, Tools};

/// The request, tools and state of a build.
pub(super) struct Session<'a> {
    pub(super) request: &'a BuildSpec,
    pub(super) input: &'a Input,
    pub(super) tools: &'a Tools,
    pub(super) events: EventSender,
    pub(super) cancel: CancellationToken,
    /// The findings of the build checks, which are printed at the end.
    pub(super) warnings: Mutex<Vec<Warning>>,
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
    /// Lowers the Dockerfile, solves the graphs, and exports the result.
    pub(super) async fn run(&self) -> Result<Built, Failure> {
        let begun = time::OffsetDateTime::now_utc();
        let importing = self.begin_imports();
        let lowered = self.lower()?;
        self.check_outputs(&lowered)?;
        let scans = self.scans(&lowered)?;
        let cache = Arc::new(self.imported(importing).await);
        // An image without files needs no graph.
        let with_files = lowered.iter().filter(|(_, lowered)| lowered.edge.is_some());
        let graphs = with_files.map(|(_, lowered)| self.definition(lowered));
        // The results of the scans come last.
        let graphs = graphs.chain(scans.into_iter().map(Ok));
        let graphs: Vec<Definition> = graphs.collect::<anyhow::Result<_>>()?;
        let graph = if graphs.is_empty() { None } else { Some(tools::load(&graphs)?) };
        if let Some(graph) = graph.as_ref().filter(|_| !cache.is_local()) {
            Box::pin(self.prepare(graph, &cache)).await;
        }
        loop {
            match Box::pin(self.make(&lowered, begun, graph.as_ref(), &cache)).await {
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
        lowered: &[(Platform, Lowered)],
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
        let mut images = images(lowered.to_vec(), outputs.by_ref())?;
        let scans = outputs.collect();
        self.inline(&mut images, &made).await?;
        let tops: Vec<LayerId> = images.iter().filter_map(|image| image.layer.clone()).collect();
        let mut outputs = self.request.outputs.clone();
        if !cache.is_local() {
            // A retry writes all outputs again, but can't rewind a stream. So streams come last.
            outputs.sort_by_key(kiln_exporter::Output::is_stdout);
        }
        let attestations = self.attestations(lowered, &images, &made, begun).await?;
        let attestations = Attestations { given: self.scanned(scans).await?, ..attestations };
        let request = ExportRequest {
            attester: None,
            has_index: lowered.iter().any(|(_, lowered)| lowered.multi_platform),
            images,
            outputs,
        };
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
    fn check_outputs(&self, lowered: &[(Platform, Lowered)]) -> Result<(), Failure> {
        let platforms: Vec<Platform> = lowered.iter().map(|(it, _)| it.clone()).collect();
        let is_index = platforms.len() > 1 || lowered.iter().any(|(_, it)| it.multi_platform);
        let is_attested = self.request.attest.is_requested();
        let check = |output: &kiln_exporter::Output| {
            output.check_platforms(&platforms, is_index, is_attested)
        };
        let epoch = lowered.iter().find_map(|(_, it)| it.epoch);
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

    /// Lowers the Dockerfile and returns the graph of each platform.
    pub(super) fn graphs(&self) -> Result<Vec<Definition>, Failure> {
        let graphs = self.lower()?;
        let graphs = graphs.iter().map(|(_, lowered)| self.definition(lowered));
        Ok(graphs.collect::<anyhow::Result<_>>()?)
    }

    /// Returns a graph with the sources that the policies leave.
    pub(super) fn definition(&self, lowered: &Lowered) -> anyhow::Result<Definition> {
        policy::enforce(&self.tools.policies, lowered.definition())
    }
}

/// Returns the image of each platform. `outputs` holds the results of the images with files.
fn images(
    lowered: Vec<(Platform, Lowered)>,
    mut outputs: impl Iterator<Item = Output>,
) -> Result<Vec<ImageSource>, Failure> {
    let image = |(platform, lowered): (Platform, Lowered)| {
        let output = lowered.edge.as_ref().and_then(|_| outputs.next());
        let layer = output.as_ref().map(layer_of).transpose()?.flatten();
        Ok(ImageSource { config: lowered.image, layer, platform, epoch: lowered.epoch })
    };
    lowered.into_iter().map(image).collect()
}

fn layer_of(output: &Output) -> Result<Option<LayerId>, Failure> {
    output
        .layer()
        .map(Option::<&LayerId>::cloned)
        .ok_or_else(|| Failure::Other(anyhow!("the build's result is a directory of the host")))
}
