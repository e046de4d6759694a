//! One build at work.

use std::cell::RefCell;
use std::fmt::Display;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use kiln_exporter::ImageSource;
use kiln_frontend::call::{Outline, Report, Targets};
use kiln_frontend::{ContextFiles, Images, Lowered, Options, Warning};
use kiln_llb::Definition;
use kiln_oci::Platform;
use kiln_solver::{Event, EventSender, SolveError, StepError};
use kiln_store::LayerId;
use kiln_worker::Output;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::context::Input;
use super::files::Files;
use super::images::{Resolver, Step};
use super::output::Exporting;
use super::request::{BuildRequest, CONTEXT_NAME};
use super::tools::Tools;
use crate::commands::build::Network;
use crate::commands::sync;
use crate::printer::causes;

/// What the frontend answers.
type Answer<T> = Result<T, Vec<kiln_frontend::Error>>;

/// What a build works with.
pub(super) struct Session<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) input: &'a Input,
    pub(super) tools: &'a Tools,
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

impl Failure {
    /// Tells whether a step failed by itself, and not because the build was stopped.
    pub(crate) fn is_of_a_step(&self) -> bool {
        let Self::Solve(SolveError::Step { error, .. }) = self else { return false };
        !matches!(**error, StepError::Cancelled)
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
        let Tools { store, resolver, worker, .. } = self.tools;
        let lowered = self.lower()?;
        // An image without files needs no graph.
        let (layer, steps, cached) = if lowered.edge.is_some() {
            let (events, cancel) = (&self.events, &self.cancel);
            let solved = self.tools.solve(&lowered.definition(), (events, cancel)).await?;
            (layer_of(&solved.output)?, solved.steps, solved.cached)
        } else {
            (None, 0, 0)
        };
        let exporting = Exporting {
            store: store.clone(),
            worker: Arc::clone(worker),
            blobs: resolver.blobs(),
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
        Ok(self.lower()?.definition())
    }

    fn lower(&self) -> Result<Lowered, Failure> {
        self.ask(|source, options, images, files| {
            let warnings = &mut *self.warnings.borrow_mut();
            kiln_frontend::lower_or_warn(source, options, (images, files), warnings)
        })
    }

    /// Lists the stages.
    pub(super) fn targets(&self) -> Result<Targets, Failure> {
        kiln_frontend::targets(&self.input.dockerfile.text).map_err(Failure::Dockerfile)
    }

    /// Tells what a build can be given.
    pub(super) fn outline(&self) -> Result<Outline, Failure> {
        self.ask(kiln_frontend::outline)
    }

    /// Runs the build checks.
    pub(super) fn check(&self) -> Result<Report, Failure> {
        self.ask(|source, options, images, files| {
            Ok(kiln_frontend::check(source, options, images, files))
        })
    }

    /// Asks the frontend a question about the Dockerfile, with the images and files at hand.
    fn ask<T>(
        &self,
        question: impl FnOnce(&[u8], &Options, &dyn Images, &dyn ContextFiles) -> Answer<T>,
    ) -> Result<T, Failure> {
        let (request, dockerfile) = (self.request, &self.input.dockerfile);
        let files = Files::open(
            self.input.root.try_clone().context("open the context")?,
            dockerfile,
            &request.directories,
        )?;
        let images = Resolver {
            images: &self.tools.resolver,
            events: &self.events,
            runtime: Handle::current(),
            cancel: &self.cancel,
        };
        let options = Options {
            filename: dockerfile.name.clone(),
            archive_context: self.input.is_archive,
            ..options(request)
        };
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
}

/// Returns what the frontend is asked for, but for what the Dockerfile says.
pub(super) fn options(request: &BuildRequest) -> Options {
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
        archive_context: false,
        filename: String::new(),
        session: "kiln".to_owned(),
        extra_hosts: request.hosts.clone(),
        limits: request.limits.clone(),
        hostname: None,
        no_cache: request.no_cache.clone(),
        context_name: CONTEXT_NAME.to_owned(),
        multi_platform: false,
    }
}

fn layer_of(output: &Output) -> Result<Option<LayerId>, Failure> {
    output
        .layer()
        .map(Option::<&LayerId>::cloned)
        .ok_or_else(|| Failure::Other(anyhow!("the build's result is a directory of the host")))
}
