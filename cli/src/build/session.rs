//! One build at work.

use std::cell::RefCell;
use std::sync::Arc;

use anyhow::anyhow;
use kiln_exporter::{ExportRequest, ImageSource};
use kiln_frontend::{Lowered, Warning};
use kiln_llb::{Definition, Graph};
use kiln_oci::Platform;
use kiln_solver::{EventSender, SolveError, StepError};
use kiln_store::LayerId;
use kiln_worker::{Output, RemoteCache};
use tokio_util::sync::CancellationToken;

use super::cache_export::Cacheable;
use super::context::Input;
use super::images::Step;
use super::output::Exporting;
use super::request::BuildRequest;
use super::tools::{self, Reporting, Tools};
use crate::commands::sync;
use crate::hints;
use crate::printer::{Printer, causes};

/// What a build works with.
pub(super) struct Session<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) input: &'a Input,
    pub(super) tools: &'a Tools,
    pub(super) events: EventSender,
    pub(super) cancel: CancellationToken,
    pub(super) printer: &'a Printer,
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

impl Failure {
    /// Tells whether a step failed by itself, and not because the build was stopped.
    pub(crate) fn is_of_a_step(&self) -> bool {
        let Self::Solve(SolveError::Step { error, .. }) = self else { return false };
        !matches!(**error, StepError::Cancelled)
    }

    /// Returns what helps against it, besides what a step has printed.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Dockerfile(errors) => errors.iter().find_map(|error| error.hint.clone()),
            Self::Solve(SolveError::Step { error, .. }) => match &**error {
                StepError::Other(error) => hints::of(error.as_ref()),
                StepError::Exit { .. } | StepError::Cancelled => None,
            },
            Self::Solve(error) => hints::of(error),
            Self::Other(error) => hints::of(error.as_ref()),
        }
    }

    /// Returns the error in one line.
    pub(crate) fn summary(&self) -> anyhow::Error {
        match self {
            Self::Dockerfile(errors) => anyhow::Error::msg(
                errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
            ),
            Self::Solve(SolveError::Step { error, .. }) => {
                anyhow::Error::msg(causes(error.as_ref())).context("failed to solve")
            }
            Self::Solve(error) => anyhow::Error::msg(causes(error)),
            Self::Other(error) => anyhow::Error::msg(causes(error.as_ref())),
        }
    }
}

impl Session<'_> {
    /// Lowers, solves and exports.
    pub(super) async fn run(&self) -> Result<Done, Failure> {
        let begun = time::OffsetDateTime::now_utc();
        let importing = self.begin_imports();
        let lowered = self.lower()?;
        self.check_outputs(&lowered)?;
        let cache = Arc::new(self.imported(importing).await);
        // An image without files needs no graph.
        let with_files = lowered.iter().filter(|(_, lowered)| lowered.edge.is_some());
        let graphs: Vec<Definition> = with_files.map(|(_, lowered)| lowered.definition()).collect();
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

    /// Gets ready to take results from caches elsewhere.
    async fn prepare(&self, graph: &Arc<Graph>, cache: &RemoteCache) {
        self.tools.worker.know_bases(graph).await;
        let mut filling = None;
        let begin = || {
            let step = Step::begin(&self.events, "importing cache mounts".to_owned());
            filling.insert(step).id()
        };
        cache.fill_mounts(graph, &self.tools.resolver.blobs(), begin, &self.events).await;
        if let Some(step) = filling {
            step.complete();
        }
    }

    /// Solves and exports.
    async fn make(
        &self,
        lowered: &[(Platform, Lowered)],
        begun: time::OffsetDateTime,
        graph: Option<&Arc<Graph>>,
        cache: &Arc<RemoteCache>,
    ) -> Result<Done, Failure> {
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
        let mut images = images(lowered.to_vec(), outputs)?;
        self.inline(&mut images, &made).await?;
        let tops: Vec<LayerId> = images.iter().filter_map(|image| image.layer.clone()).collect();
        let mut outputs = self.request.outputs.clone();
        if !cache.is_local() {
            // All may have to be written once more, and a stream can't be taken back.
            outputs.sort_by_key(kiln_exporter::Output::is_stdout);
        }
        let request = ExportRequest {
            attestations: self.attestations(lowered, begun)?,
            has_index: lowered.iter().any(|(_, lowered)| lowered.multi_platform),
            images,
            outputs,
        };
        let exported = self.exporting().export(request).await?;
        exported.warnings.iter().for_each(|message| self.warn(message));
        self.export_caches(&made, &tops).await?;
        if let Err(error) = sync::start(&self.tools.store) {
            self.warn(&format!("{error:#}"));
        }
        Ok(Done { exported, steps, cached })
    }

    /// Returns what an export works with.
    pub(super) fn exporting(&self) -> Exporting {
        let Tools { store, resolver, worker, .. } = self.tools;
        Exporting {
            store: store.clone(),
            worker: Arc::clone(worker),
            blobs: resolver.blobs(),
            limits: resolver.archive_limits(),
            events: self.events.clone(),
            cancel: self.cancel.clone(),
            stdout: self.printer.stdout(),
        }
    }

    fn stop_packing(&self) {
        if let Some(ahead) = &self.tools.ahead {
            ahead.stop();
        }
    }

    /// Refuses what can't be written of these images, before anything is built for it.
    fn check_outputs(&self, lowered: &[(Platform, Lowered)]) -> Result<(), Failure> {
        let platforms: Vec<Platform> = lowered.iter().map(|(it, _)| it.clone()).collect();
        let is_index = platforms.len() > 1 || lowered.iter().any(|(_, it)| it.multi_platform);
        let check = |output: &kiln_exporter::Output| output.check_platforms(&platforms, is_index);
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

    /// Lowers, and returns the graph of each platform.
    pub(super) fn graphs(&self) -> Result<Vec<Definition>, Failure> {
        Ok(self.lower()?.iter().map(|(_, lowered)| lowered.definition()).collect())
    }
}

/// Returns the image of each platform. `outputs` are the files of those that have any.
fn images(
    lowered: Vec<(Platform, Lowered)>,
    outputs: Vec<Output>,
) -> Result<Vec<ImageSource>, Failure> {
    let mut outputs = outputs.into_iter();
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
