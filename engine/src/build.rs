//! A build: reads the input, lowers it to graphs, solves them, and exports the result.

mod ahead;
mod attest;
mod cache_export;
mod caches;
mod context;
mod export;
mod files;
mod graph_build;
mod graph_cache;
mod images;
mod locals;
mod lowering;
mod packer;
mod plan;
mod policy;
mod program;
mod record;
mod scan;
mod scanner;
mod session;
mod source_time;
mod spec;
mod step;
mod tools;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Result;
use kiln_frontend::call::{Outline, Report, Targets};
use kiln_frontend::lint::Warning;
use kiln_llb::Definition;

pub use attest::{AttestOptions, GraphRequest, ProvenGraph, ProvenInput};
pub use files::{Dockerfile, TEXT_LIMIT, read_text};
pub use graph_build::{GraphBuild, GraphInputs, RemoteFile};
pub use images::{ImageAnswer, ImageAnswers, Unresolved, unresolved};
pub use lowering::side_by_side;
pub use program::{ProgramReply, Reply};
pub use scanner::{CORE_SBOM, SPDX, Scanned, Scanner, ScannerImage};
pub use session::{Built, Failure};
pub use spec::{
    BuildSpec, CONTEXT_NAME, Caches, ContextPlace, ContextStream, DockerfilePlace, OutputStream,
    StepNetwork,
};
pub use step::Step;

use crate::engine::Engine;
use crate::monitor::{Monitor, spool};
use crate::records::{Recorded, Recording};
use context::Input;
use locals::Locals;
use lowering::options;
use program::Query;
use session::Session;
use tools::{Reporting, Tools};

/// The end of a build or of a query about a Dockerfile.
#[derive(Debug)]
pub struct Outcome<T> {
    /// The result, or the reason for the failure.
    pub result: Result<T, Failure>,
    /// The findings of the build checks.
    pub warnings: Vec<Warning>,
    /// The Dockerfile of the findings, or another file that the frontend has read in its place. `None`
    /// if it couldn't be read.
    pub dockerfile: Option<Dockerfile>,
    /// The build's record, or the reason why it couldn't be written. `None` for a query.
    pub record: Option<Result<Recorded>>,
}

impl<T> Outcome<T> {
    /// Converts a successful result.
    pub fn map<U>(self, convert: impl FnOnce(T) -> U) -> Outcome<U> {
        let Self { result, warnings, dockerfile, record } = self;
        Outcome { result: result.map(convert), warnings, dockerfile, record }
    }
}

impl Engine {
    /// Builds the images of a request and writes its outputs. The store keeps a record of the
    /// build.
    ///
    /// # Errors
    /// Fails if the context or the Dockerfile can't be read. Later failures are in the outcome.
    pub async fn build(&self, spec: BuildSpec, monitor: Monitor) -> Result<Outcome<Built>> {
        let work = async |session: &Session<'_>| session.run().await;
        Box::pin(self.with_session(spec, monitor, Some(|built| built), work)).await
    }

    /// Creates the build graph of each platform without building.
    ///
    /// # Errors
    /// Fails if the context or the Dockerfile can't be read.
    pub async fn graphs(
        &self,
        spec: BuildSpec,
        monitor: Monitor,
    ) -> Result<Outcome<Vec<Definition>>> {
        Box::pin(self.with_session(spec, monitor, None, async |session| session.graphs().await))
            .await
    }

    /// Runs the build checks.
    ///
    /// # Errors
    /// Fails if the context or the Dockerfile can't be read.
    pub async fn check(&self, spec: BuildSpec, monitor: Monitor) -> Result<Outcome<Reply<Report>>> {
        let work =
            async |session: &Session<'_>| session.reply(Query::Check, || session.check()).await;
        Box::pin(self.with_session(spec, monitor, None, work)).await
    }

    /// Returns the arguments, secrets and agents that a build accepts.
    ///
    /// # Errors
    /// Fails if the context or the Dockerfile can't be read.
    pub async fn outline(
        &self,
        spec: BuildSpec,
        monitor: Monitor,
    ) -> Result<Outcome<Reply<Outline>>> {
        let work =
            async |session: &Session<'_>| session.reply(Query::Outline, || session.outline()).await;
        Box::pin(self.with_session(spec, monitor, None, work)).await
    }

    /// Lists the stages of a Dockerfile.
    ///
    /// # Errors
    /// Fails if the context or the Dockerfile can't be read.
    pub async fn targets(
        &self,
        spec: BuildSpec,
        monitor: Monitor,
    ) -> Result<Outcome<Reply<Targets>>> {
        let work =
            async |session: &Session<'_>| session.reply(Query::Targets, || session.targets()).await;
        Box::pin(self.with_session(spec, monitor, None, work)).await
    }

    /// Runs `work` with the input of a build. If `built` is given, it extracts the build from the
    /// result, and the store records it.
    async fn with_session<T>(
        &self,
        mut spec: BuildSpec,
        monitor: Monitor,
        built: Option<fn(&T) -> &Built>,
        work: impl AsyncFnOnce(&Session<'_>) -> Result<T, Failure>,
    ) -> Result<Outcome<T>> {
        spec.fetch_dockerfile(&self.options.registries).await?;
        let input = tokio::task::block_in_place(|| Input::local(&spec, &self.store))?;
        let text = input.as_ref().map(|input| &*input.dockerfile.text).unwrap_or_default();
        // The Dockerfile of a remote context isn't known yet.
        let may_be_program = input.is_none() || program::of_request(&spec, text).is_some();
        let locals = Locals::new(&spec, input.as_ref(), may_be_program, &self.store)?;
        let redactor = Arc::new(record::redactor(&spec));
        let Monitor { events, cancel } = monitor;
        let mut events = events.with_log_limits(spec.log_limits);
        let mut recording = None;
        if built.is_some() {
            let (fuller, recorded) = events.with_receiver(spool(&self.store));
            let (record, redactor) = (record::record(&spec, &redactor), Arc::clone(&redactor));
            recording = Some(Recording::begin(&self.store, record, redactor, recorded)?);
            events = fuller;
        }
        let tools = Tools::new(self, &spec, redactor, &locals)?;
        let reporting = Reporting { events: &events, cancel: &cancel };
        let input = match input {
            Some(input) => Ok(input),
            None => Input::fetch(&spec, options(&spec), &tools, reporting).await,
        };
        let (result, warnings, dockerfile) = match input {
            Ok(input) => {
                let session = Session {
                    request: &spec,
                    input: &input,
                    tools: &tools,
                    events,
                    cancel: cancel.clone(),
                    warnings: Mutex::default(),
                    file: Mutex::default(),
                    engine: self,
                    locals: &locals,
                };
                let result = work(&session).await;
                let warnings =
                    session.warnings.into_inner().unwrap_or_else(PoisonError::into_inner);
                let file = session.file.into_inner().unwrap_or_else(PoisonError::into_inner);
                (result, warnings, Some(file.unwrap_or(input.dockerfile)))
            }
            Err(error) => {
                // The receivers end with the last sender.
                drop(events);
                (Err(Failure::Other(error)), Vec::new(), None)
            }
        };
        let record = match recording {
            None => None,
            Some(recording) => {
                let outcome = result.as_ref().map(|value| built.map(|built| built(value)));
                let ending = record::ending(outcome, cancel.is_cancelled(), &warnings);
                Some(recording.finish(ending).await)
            }
        };
        Ok(Outcome { result, warnings, dockerfile, record })
    }
}
