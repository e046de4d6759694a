//! The builds of clients that are going on.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bollard_buildkit_proto::pb;
use kiln::build::{GraphBuild, GraphRequest};
use kiln_oci::Digest;
use kiln_worker::Output;
use prost::Message as _;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::errors::{of_error, status_of};
use crate::layouts::Layouts;
use crate::references::{FrontendResult, Reference, Slot};
use crate::session::Session;
use crate::sources::SessionSources;
use crate::status::StatusLog;

/// The end of a build that a client drives: what it returns.
type Returned = Result<FrontendResult, Status>;

/// A build of a client.
#[derive(Debug)]
pub(crate) struct Job {
    /// The client's name for the build.
    pub(crate) reference: String,
    /// The session of the client.
    pub(crate) session: Option<Session>,
    /// The token that stops the build.
    pub(crate) cancel: CancellationToken,
    /// The progress.
    pub(crate) status: StatusLog,
    /// The local sources.
    pub(crate) sources: Arc<SessionSources>,
    /// The frontend's inputs.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    /// The OCI layouts that clients have sent.
    pub(crate) layouts: Layouts,
    /// The time at which the build began.
    pub(crate) begun: OffsetDateTime,
    build: GraphBuild,
    references: Mutex<References>,
    calls: Mutex<Vec<FrontendCall>>,
    /// The descriptors of the exported images as JSON, by the positions of the outputs.
    exported: Mutex<BTreeMap<u32, Value>>,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
    /// The receiving end of `returned`. A client may return before anything waits for it.
    returning: Mutex<Option<oneshot::Receiver<Returned>>>,
}

/// A call of a frontend, and the graphs that it has made.
#[derive(Debug)]
struct FrontendCall {
    request: GraphRequest,
    made: Vec<Arc<Reference>>,
}

/// The references of a build.
#[derive(Debug, Default)]
struct References {
    by_id: HashMap<String, Arc<Reference>>,
    by_definition: HashMap<Digest, Arc<Reference>>,
}

/// The parts of a new build.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(crate) reference: String,
    pub(crate) session: Option<Session>,
    pub(crate) cancel: CancellationToken,
    pub(crate) sources: Arc<SessionSources>,
    pub(crate) inputs: HashMap<String, pb::Definition>,
    pub(crate) status: StatusLog,
    pub(crate) build: GraphBuild,
}

impl Job {
    /// Creates a build.
    pub(crate) fn new(parts: NewJob) -> Self {
        let NewJob { reference, session, cancel, sources, inputs, status, build } = parts;
        let (returned, returning) = oneshot::channel();
        Self {
            reference,
            session,
            cancel,
            status,
            sources,
            inputs,
            layouts: Layouts::default(),
            begun: OffsetDateTime::now_utc(),
            build,
            references: Mutex::default(),
            calls: Mutex::default(),
            exported: Mutex::default(),
            returned: Mutex::new(Some(returned)),
            returning: Mutex::new(Some(returning)),
        }
    }

    /// Returns the build's machinery.
    pub(crate) fn build(&self) -> &GraphBuild {
        &self.build
    }

    /// Adds a graph. The same graph is one reference, so it is solved once.
    ///
    /// # Errors
    /// Fails if the graph is invalid.
    pub(crate) fn add(&self, definition: pb::Definition) -> Result<Slot, Status> {
        let digest = Digest::of(&definition.encode_to_vec());
        if let Some(known) = self.lock().by_definition.get(&digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(reference) = Reference::new(definition)? else { return Ok(None) };
        let reference = Arc::new(reference);
        self.lock().by_definition.insert(digest, Arc::clone(&reference));
        Ok(Some(reference))
    }

    /// Records which request has made the graphs of a result.
    pub(crate) fn note_call(&self, request: GraphRequest, result: &FrontendResult) {
        let made = result.references().cloned().collect();
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(FrontendCall { request, made });
    }

    /// Returns the request that has made a graph. A graph of the client's own has an empty one.
    pub(crate) fn request_of(&self, reference: &Arc<Reference>) -> GraphRequest {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let has_made = |call: &&FrontendCall| call.made.iter().any(|it| Arc::ptr_eq(it, reference));
        calls.iter().find(has_made).map(|call| call.request.clone()).unwrap_or_default()
    }

    /// Records an exported image.
    pub(crate) fn note_export(&self, number: u32, descriptor: Value) {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        exported.insert(number, descriptor);
    }

    /// Returns the descriptors of the exported images as JSON, by the positions of the outputs.
    pub(crate) fn exported(&self) -> BTreeMap<u32, Value> {
        self.exported.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns a new ID for a reference.
    pub(crate) fn register(&self, reference: &Arc<Reference>) -> String {
        let mut references = self.lock();
        let number = references.by_id.len();
        let id =
            Digest::of(format!("{} {number}", self.reference).as_bytes()).hex()[..25].to_owned();
        references.by_id.insert(id.clone(), Arc::clone(reference));
        id
    }

    /// Returns the reference of an ID.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) fn find(&self, id: &str) -> Result<Arc<Reference>, Status> {
        let references = self.lock();
        references.by_id.get(id).cloned().ok_or_else(|| {
            let all: Vec<&str> = references.by_id.keys().map(String::as_str).collect();
            Status::unknown(format!("no such ref: {id}, all {all:?}"))
        })
    }

    /// Returns the result of a reference. Solves its graph the first time.
    ///
    /// # Errors
    /// Fails if a step fails, or if the build is canceled.
    pub(crate) async fn solve(&self, reference: &Reference) -> Result<Output, Status> {
        let solve = || async {
            let graph = &reference.graph;
            self.fetch_layouts(graph).await?;
            let solve = |events| async move { self.build.solve(graph, &events).await };
            let solved = Box::pin(self.status.follow(Some(graph), solve)).await;
            let solved = solved.map_err(|failure| status_of(&failure, Some(reference)))?;
            // Set once, since this closure runs once.
            let _ = reference.keys.set(solved.vertices);
            solved.outputs.into_iter().next().ok_or_else(|| Status::internal("no result"))
        };
        reference.solved.get_or_init(solve).await.clone()
    }

    /// Opens the files of a reference's result.
    ///
    /// # Errors
    /// Fails in the same cases as [`Self::solve`], and if layers can't be fetched or mounted.
    pub(crate) async fn files(&self, reference: &Reference) -> Result<kiln_tree::Dir, Status> {
        let output = self.solve(reference).await?;
        self.build.files(&output).await.map_err(|error| of_error(error.as_ref()))
    }

    /// Waits until the client returns the result of its own frontend.
    ///
    /// # Errors
    /// Fails if the client returns an error, or if the build is canceled.
    pub(crate) fn wait_for_return(&self) -> impl Future<Output = Returned> + use<> {
        let receiver = self.returning.lock().unwrap_or_else(PoisonError::into_inner).take();
        let cancel = self.cancel.clone();
        async move {
            let Some(receiver) = receiver else { return Err(canceled()) };
            tokio::select! {
                returned = receiver => returned.unwrap_or_else(|_| Err(canceled())),
                () = cancel.cancelled() => Err(canceled()),
            }
        }
    }

    /// Ends a build that the client drives.
    ///
    /// # Errors
    /// Fails if it has ended already.
    pub(crate) fn end(&self, returned: Returned) -> Result<(), Status> {
        let sender = self.returned.lock().unwrap_or_else(PoisonError::into_inner).take();
        let sender = sender.ok_or_else(|| Status::unknown("gateway result is already set"))?;
        sender.send(returned).map_err(|_| canceled())
    }

    fn lock(&self) -> MutexGuard<'_, References> {
        self.references.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the status of a canceled build.
pub(crate) fn canceled() -> Status {
    Status::cancelled("context canceled")
}

/// The builds that are going on, by the clients' names for them. Cloning is cheap.
#[derive(Clone, Debug, Default)]
pub(crate) struct Jobs(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    jobs: Mutex<HashMap<String, Arc<Job>>>,
    /// Notified when a build begins.
    added: Notify,
}

/// A build in the list. Dropping it removes the build, stops it and ends its progress.
#[derive(Debug)]
pub(crate) struct Listed {
    jobs: Jobs,
    /// The build.
    pub(crate) job: Arc<Job>,
}

impl Jobs {
    /// Adds a build.
    ///
    /// # Errors
    /// Fails if there is one of the same name.
    pub(crate) fn add(&self, job: Job) -> Result<Listed, Status> {
        let job = Arc::new(job);
        let mut jobs = self.lock();
        if jobs.contains_key(&job.reference) {
            return Err(Status::already_exists(format!("job ID {} exists", job.reference)));
        }
        jobs.insert(job.reference.clone(), Arc::clone(&job));
        drop(jobs);
        self.0.added.notify_waiters();
        Ok(Listed { jobs: self.clone(), job })
    }

    /// Returns a build, which may begin within some time. `None` if it doesn't.
    pub(crate) async fn wait(&self, reference: &str, patience: Duration) -> Option<Arc<Job>> {
        let find = async {
            loop {
                let added = self.0.added.notified();
                tokio::pin!(added);
                added.as_mut().enable();
                if let Some(job) = self.lock().get(reference) {
                    return Arc::clone(job);
                }
                added.await;
            }
        };
        tokio::time::timeout(patience, find).await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Arc<Job>>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.job.cancel.cancel();
        self.job.status.close();
        self.jobs.lock().remove(&self.job.reference);
    }
}
