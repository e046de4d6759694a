//! `Control`: builds, workers, disk usage and history.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::control_server::Control;
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryEvent, BuildHistoryRecord, BuildHistoryRequest, BytesMessage, DiskUsageRequest,
    DiskUsageResponse, Exporter, InfoRequest, InfoResponse, ListWorkersRequest,
    ListWorkersResponse, PruneRequest, SolveRequest, SolveResponse, StatusRequest, StatusResponse,
    UpdateBuildHistoryRequest, UpdateBuildHistoryResponse, UsageRecord, VertexWarning,
};
use futures_util::stream::{BoxStream, StreamExt as _, iter};
use kiln::build::{GraphInputs, ProvenInput};
use kiln_store::Store;
use kiln_worker::{Allowed, DEVICE, NETWORK_HOST, RemoteOptions, SECURITY_INSECURE};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use crate::blocking::blocking;
use crate::caches::{self, Caches, Import};
use crate::errors::{of_error, to_message};
use crate::exports::{self, Answer, Exporting};
use crate::frontend;
use crate::history::{Ending, Outcome};
use crate::jobs::{Job, Listed, NewJob, canceled};
use crate::layouts::Layouts;
use crate::policy::{self, JobPolicy};
use crate::references::FrontendResult;
use crate::scanner;
use crate::server::Shared;
use crate::session::Session;
use crate::sources::SessionSources;
use crate::status::{StatusLog, now, stored};
use crate::usage;
use crate::workers;

/// The time within which a session, or a build, has to appear.
const PATIENCE: Duration = Duration::from_secs(6);

type Result<T, E = Status> = std::result::Result<T, E>;
type Messages<T> = BoxStream<'static, Result<T>>;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct ControlService(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Control for ControlService {
    type PruneStream = Messages<UsageRecord>;
    type StatusStream = Messages<StatusResponse>;
    type SessionStream = Messages<BytesMessage>;
    type ListenBuildHistoryStream = Messages<BuildHistoryEvent>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>> {
        Ok(Response::new(InfoResponse { buildkit_version: Some(workers::version()) }))
    }

    async fn list_workers(
        &self,
        request: Request<ListWorkersRequest>,
    ) -> Result<Response<ListWorkersResponse>> {
        let record = workers::records(&self.0.host, &request.into_inner().filter)?;
        Ok(Response::new(ListWorkersResponse { record }))
    }

    async fn session(
        &self,
        request: Request<Streaming<BytesMessage>>,
    ) -> Result<Response<Self::SessionStream>> {
        let (metadata, _, incoming) = request.into_parts();
        let accepted = self.0.sessions.accept(&metadata, incoming).await;
        let outgoing = accepted.map_err(|error| of_error(&error))?;
        Ok(Response::new(outgoing.boxed()))
    }

    async fn solve(&self, request: Request<SolveRequest>) -> Result<Response<SolveResponse>> {
        if self.0.stopping.is_cancelled() {
            return Err(Status::unavailable("the server is shutting down"));
        }
        let cancel = CancellationToken::new();
        // The client may hang up.
        let _stop = cancel.clone().drop_guard();
        let (shared, request) = (Arc::clone(&self.0), request.into_inner());
        let solved = self.0.host.tasks.spawn(Box::pin(solve(shared, request, cancel))).await;
        let answer = solved.map_err(|error| Status::internal(error.to_string()))??;
        Ok(Response::new(SolveResponse { exporter_response: answer.into_iter().collect() }))
    }

    async fn status(
        &self,
        request: Request<StatusRequest>,
    ) -> Result<Response<Self::StatusStream>> {
        let reference = request.into_inner().r#ref;
        let stored_log = self.0.history.log(&reference).map_err(|error| of_error(&error))?;
        let messages = if let Some(file) = stored_log {
            stored(file).boxed()
        } else {
            let missing = || Status::not_found(format!("no such job {reference}"));
            let job = self.0.host.jobs.wait(&reference, PATIENCE).await.ok_or_else(missing)?;
            job.status.messages().boxed()
        };
        Ok(timed(messages))
    }

    async fn disk_usage(
        &self,
        request: Request<DiskUsageRequest>,
    ) -> Result<Response<DiskUsageResponse>> {
        let (store, request) = (self.0.host.engine.store().clone(), request.into_inner());
        let record = blocking(move || usage::records(&store, &request)).await?;
        Ok(Response::new(DiskUsageResponse { record }))
    }

    async fn prune(&self, request: Request<PruneRequest>) -> Result<Response<Self::PruneStream>> {
        let request = request.into_inner();
        let store = self.0.host.engine.store().clone();
        let removed = blocking(move || usage::prune(&store, &request)).await?;
        Ok(Response::new(iter(removed.into_iter().map(Ok)).boxed()))
    }

    async fn listen_build_history(
        &self,
        request: Request<BuildHistoryRequest>,
    ) -> Result<Response<Self::ListenBuildHistoryStream>> {
        let events = self.0.history.listen(&request.into_inner())?;
        Ok(timed(events.take_until(self.0.drained.clone().cancelled_owned()).boxed()))
    }

    async fn update_build_history(
        &self,
        request: Request<UpdateBuildHistoryRequest>,
    ) -> Result<Response<UpdateBuildHistoryResponse>> {
        let request = request.into_inner();
        let history = &self.0.history;
        if request.delete {
            history.remove(&request.r#ref)?;
        } else if !request.finalize {
            history.pin(&request.r#ref, request.pinned)?;
        }
        Ok(Response::new(UpdateBuildHistoryResponse {}))
    }
}

/// Returns a stream with the time of the server, which clients compare with theirs.
fn timed<T>(messages: Messages<T>) -> Response<Messages<T>> {
    use time::OffsetDateTime;
    use time::format_description::well_known::Rfc3339;
    let mut response = Response::new(messages);
    let now = OffsetDateTime::now_utc().format(&Rfc3339).ok().and_then(|now| now.parse().ok());
    if let Some(now) = now {
        response.metadata_mut().insert("buildkit-current-timestamp", now);
    }
    response
}

/// Runs a build from its begin to the answer for the client.
async fn solve(
    shared: Arc<Shared>,
    request: SolveRequest,
    cancel: CancellationToken,
) -> Result<Answer> {
    let _busy = shared.activity.begin();
    let session = match request.session.as_str() {
        "" => None,
        id => Some(shared.sessions.get(id, PATIENCE).await.map_err(|error| of_error(&error))?),
    };
    let exporters = exporters(&request);
    let outputs = exports::resolve(&exporters, &request.frontend_attrs)?;
    let options = request.cache.clone().unwrap_or_default();
    let caches = Caches::resolve(&options.exports, session.as_ref())?;
    let attestations =
        exports::attestation_options(&request.frontend_attrs, &shared.options().environment)?;
    let exporting = Exporting { outputs, caches, attestations };
    let engine = shared.open(session.as_ref()).map_err(|error| of_error(error.as_ref()))?;
    let store = engine.store().clone();
    let policy = policy(&shared, &request).await?;
    let listed = begin(&shared, &engine, &request, session.clone(), policy, cancel)?;
    if !request.internal {
        shared.history.begin(record(&request, &exporters));
    }
    let work = Box::pin(async {
        let _turn = listed.job.take_turn(&shared.queue).await?;
        run(&shared, &listed, &store, &request, exporting).await
    });
    let ended = match &session {
        None => work.await,
        Some(session) => tokio::select! {
            ended = work => ended,
            () = session.closed().cancelled() => Err(canceled()),
        },
    };
    listed.job.status.close();
    if !request.internal {
        Box::pin(complete(&shared, &listed.job, &request.frontend_attrs, &ended)).await;
    }
    shared.garbage.notify_one();
    ended.map(|(answer, _)| answer)
}

/// Adds a build to those that are going on.
fn begin(
    shared: &Shared,
    engine: &kiln::Engine,
    request: &SolveRequest,
    session: Option<Session>,
    policy: JobPolicy,
    cancel: CancellationToken,
) -> Result<Listed> {
    let sources =
        SessionSources::new(session.clone(), shared.sessions.clone(), engine.store().clone());
    let sources = Arc::new(sources);
    let inputs = GraphInputs {
        secrets: Arc::clone(&sources) as _,
        agents: Arc::clone(&sources) as _,
        allowed: allowed(shared, &request.entitlements)?,
        remote: RemoteOptions {
            user_agent: Some(workers::user_agent()),
            uploads: Some(Arc::clone(&sources) as _),
            ..RemoteOptions::default()
        },
        // A client with a frontend of its own may look into failed steps.
        keep_files: request.frontend.is_empty() && request.definition.is_none(),
        ..GraphInputs::new(Arc::clone(&sources) as _)
    };
    let build = engine.begin(inputs, cancel.clone());
    let build = build.map_err(|error| of_error(error.as_ref()))?;
    shared.host.jobs.add(Job::new(NewJob {
        reference: request.r#ref.clone(),
        session,
        cancel,
        layouts: Layouts::new(sources),
        is_own: false,
        inputs: request.frontend_inputs.clone(),
        root: ProvenInput {
            frontend: request.frontend.clone(),
            options: request.frontend_attrs.clone().into_iter().collect(),
            ..ProvenInput::default()
        },
        policy,
        status: StatusLog::new(engine.store()),
        build,
    }))
}

/// Returns the source policies of a build.
async fn policy(shared: &Shared, request: &SolveRequest) -> Result<JobPolicy> {
    let rules = policy::compile(&request.source_policy)?;
    let session = match request.source_policy_session.as_str() {
        "" => None,
        id => Some(shared.sessions.get(id, PATIENCE).await.map_err(|error| of_error(&error))?),
    };
    Ok(JobPolicy { rules, session })
}

/// Returns the entitlements of a build: those that the client asks for and the server grants.
fn allowed(shared: &Shared, wanted: &[String]) -> Result<Allowed> {
    let mut allowed = Allowed::default();
    for name in wanted {
        let options = shared.options();
        let (kind, devices) = name.split_once('=').unwrap_or((name, ""));
        if kind == DEVICE && !options.engine.cdi.directories.is_empty() {
            allowed.devices.grant(devices).map_err(|error| of_error(&error))?;
            continue;
        }
        if !options.entitlements.contains(name) {
            return Err(Status::unknown(format!(
                "granting entitlement {name} is not allowed by build daemon configuration"
            )));
        }
        match name.as_str() {
            NETWORK_HOST => allowed.host_network = true,
            SECURITY_INSECURE => allowed.insecure = true,
            other => return Err(Status::unknown(format!("unknown entitlement {other}"))),
        }
    }
    Ok(allowed)
}

/// Returns the exporters of a request, in the form of old clients, too.
fn exporters(request: &SolveRequest) -> Vec<Exporter> {
    if request.exporters.is_empty() && !request.exporter_deprecated.is_empty() {
        return vec![Exporter {
            r#type: request.exporter_deprecated.clone(),
            attrs: request.exporter_attrs_deprecated.clone(),
        }];
    }
    request.exporters.clone()
}

/// Solves what the request names, and exports it.
async fn run(
    shared: &Arc<Shared>,
    listed: &Listed,
    store: &Store,
    request: &SolveRequest,
    mut exporting: Exporting,
) -> Result<(Answer, FrontendResult)> {
    let job = &listed.job;
    let definition = request.definition.clone().filter(|graph| !graph.def.is_empty());
    let options = &request.frontend_attrs;
    let mut result = match (definition, request.frontend.as_str()) {
        (Some(definition), _) => {
            let imports = request.cache.iter().flat_map(|cache| &cache.imports);
            let imports = imports.map(|import| Import {
                kind: import.r#type.clone(),
                attributes: import.attrs.clone(),
            });
            caches::import(job, imports.collect()).await;
            FrontendResult::of(job.add(definition)?)
        }
        (None, "") if request.definition.is_none() => job.wait_for_return().await?,
        (None, "") => FrontendResult::default(),
        (None, name) => {
            let call = frontend::Call { name, options, inputs: &job.inputs };
            Box::pin(frontend::call(&shared.host, job, call)).await?
        }
    };
    for reference in result.references() {
        job.solve(reference).await?;
    }
    warn(job, exports::check_platforms(&result, options)?);
    scanner::scan(job, &mut result, options, &exporting.attestations)?;
    let caches = exporting.caches.clone();
    if request.enable_session_exporter {
        let first = exporting.outputs.len();
        exporting.outputs.extend(exports::find(job, &result, first, options).await?);
    }
    let mut answer = exports::export(job, store, &result, exporting).await?;
    answer.extend(caches.export(job, &result).await?);
    answer.extend(texts(&result.metadata).filter(|(name, _)| name.starts_with("frontend.")));
    if request.enable_session_exporter {
        exports::finalize(job, &answer).await?;
    }
    Ok((answer, result))
}

/// Sends warnings about the whole build.
fn warn(job: &Job, texts: Vec<String>) {
    let warning =
        |text: String| VertexWarning { short: text.into_bytes(), ..VertexWarning::default() };
    let warnings = texts.into_iter().map(warning).collect();
    job.status.send(StatusResponse { warnings, ..StatusResponse::default() });
}

fn record(request: &SolveRequest, exporters: &[Exporter]) -> BuildHistoryRecord {
    BuildHistoryRecord {
        r#ref: request.r#ref.clone(),
        frontend: request.frontend.clone(),
        frontend_attrs: request.frontend_attrs.clone(),
        exporters: exporters.to_vec(),
        created_at: Some(now()),
        ..BuildHistoryRecord::default()
    }
}

/// Stores the record of a build that has ended. The build's result doesn't depend on it.
async fn complete(
    shared: &Shared,
    job: &Arc<Job>,
    options: &HashMap<String, String>,
    ended: &Result<(Answer, FrontendResult)>,
) {
    let error = ended.as_ref().err().map(to_message);
    let mut outcome = Outcome { exports: job.take_exported(), ..Outcome::default() };
    if let Ok((_, result)) = ended {
        outcome.metadata = texts(&result.metadata).collect();
        match exports::of_history(job, result, options, &shared.options().environment).await {
            Ok(provenance) => outcome.provenance = provenance,
            Err(error) => tracing::warn!(%error, "a build's record is without provenance"),
        }
    }
    let (history, job) = (shared.history.clone(), Arc::clone(job));
    let work = move || {
        let ending = Ending { reference: &job.reference, log: &job.status, error, outcome };
        history.complete(&ending).map_err(|error| of_error(&error))
    };
    if let Err(error) = blocking(work).await {
        tracing::warn!(%error, "cannot store the record of a build");
    }
}

fn texts(metadata: &HashMap<String, Vec<u8>>) -> impl Iterator<Item = (String, String)> {
    metadata.iter().map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
}
