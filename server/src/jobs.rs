//! The builds of clients that are going on.

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::Vertex;
use bollard_buildkit_proto::pb;
use kiln::build::{GraphBuild, GraphRequest, ProvenInput};
use kiln_oci::Digest;
use kiln_worker::{Output, SourcePolicies};
use prost::Message as _;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::containers::Containers;
use crate::errors::{of_error, status_of};
use crate::layouts::Layouts;
use crate::left::with_files;
use crate::origins::FrontendCall;
use crate::policy::JobPolicy;
use crate::queue::{Queue, Turn};
use crate::references::{FrontendResult, Reference, Slot};
use crate::session::Session;
use crate::status::{StatusLog, now};

/// The end of a build that a client drives: what it returns.
pub(crate) type Returned = Result<FrontendResult, Status>;

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
    /// The frontend's inputs.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    /// The client's own request.
    pub(crate) root: ProvenInput,
    /// The source policies.
    pub(crate) policy: JobPolicy,
    /// The list of builds that this one is in.
    list: Weak<Shared>,
    /// The OCI layouts that clients have sent.
    pub(crate) layouts: Layouts,
    /// `true` for a build of this process, without a client. What the user has named on the command
    /// line is loaded already: caches and layouts.
    pub(crate) is_own: bool,
    /// The time at which the build began.
    pub(crate) begun: OffsetDateTime,
    /// Cancelled when it is the build's turn to run.
    admitted: CancellationToken,
    /// The containers of the client. They end before the build.
    pub(crate) containers: Containers,
    build: GraphBuild,
    references: Mutex<References>,
    calls: Mutex<Vec<FrontendCall>>,
    exported: Mutex<Exports>,
    returned: Mutex<Option<oneshot::Sender<Returned>>>,
    /// The receiving end of `returned`. A client may return before anything waits for it.
    returning: Mutex<Option<oneshot::Receiver<Returned>>>,
}

/// The images that a build has exported.
#[derive(Debug, Default)]
pub(crate) struct Exports {
    /// The descriptors as JSON, by the positions of the outputs.
    pub(crate) images: BTreeMap<u32, Value>,
    /// The configs, manifests and other documents.
    pub(crate) documents: Vec<Vec<u8>>,
}

/// The references of a build.
#[derive(Debug, Default)]
struct References {
    by_id: HashMap<String, Arc<Reference>>,
    by_definition: HashMap<Digest, Arc<Reference>>,
    /// The files that failed steps have left behind.
    left: HashMap<String, Output>,
}

/// The parts of a new build.
#[derive(Debug)]
pub(crate) struct NewJob {
    pub(crate) reference: String,
    pub(crate) session: Option<Session>,
    pub(crate) cancel: CancellationToken,
    pub(crate) layouts: Layouts,
    pub(crate) is_own: bool,
    pub(crate) inputs: HashMap<String, pb::Definition>,
    pub(crate) root: ProvenInput,
    pub(crate) policy: JobPolicy,
    pub(crate) status: StatusLog,
    pub(crate) build: GraphBuild,
}

impl Job {
    /// Creates a build.
    pub(crate) fn new(parts: NewJob) -> Self {
        let NewJob {
            reference,
            session,
            cancel,
            layouts,
            is_own,
            inputs,
            root,
            policy,
            status,
            build,
        } = parts;
        let (returned, returning) = oneshot::channel();
        Self {
            reference,
            session,
            cancel,
            status,
            inputs,
            root,
            policy,
            list: Weak::new(),
            layouts,
            is_own,
            begun: OffsetDateTime::now_utc(),
            admitted: CancellationToken::new(),
            containers: Containers::default(),
            build,
            references: Mutex::default(),
            calls: Mutex::default(),
            exported: Mutex::default(),
            returned: Mutex::new(Some(returned)),
            returning: Mutex::new(Some(returning)),
        }
    }

    /// Waits for the build's turn, which ends when the result is dropped. The progress shows the wait.
    ///
    /// # Errors
    /// Fails if the build is canceled.
    pub(crate) async fn take_turn(&self, queue: &Queue) -> Result<Turn, Status> {
        let turn = match queue.join() {
            Ok(turn) => turn,
            Err(turn) => {
                let mut vertex = Vertex {
                    digest: Digest::of(format!("turn of {}", self.reference).as_bytes())
                        .to_string(),
                    name: "[internal] waiting for other builds to end".to_owned(),
                    started: Some(now()),
                    ..Vertex::default()
                };
                self.status.send_vertex(vertex.clone());
                let turn = tokio::select! {
                    turn = turn => turn.map_err(|_| canceled())?,
                    () = self.cancel.cancelled() => return Err(canceled()),
                };
                vertex.completed = Some(now());
                self.status.send_vertex(vertex);
                turn
            }
        };
        self.admitted.cancel();
        Ok(turn)
    }

    /// Lets the build run without a turn.
    pub(crate) fn admit(&self) {
        self.admitted.cancel();
    }

    /// Waits until it is the build's turn to run.
    ///
    /// # Errors
    /// Fails if the build is canceled.
    pub(crate) async fn admitted(&self) -> Result<(), Status> {
        tokio::select! {
            biased;
            () = self.admitted.cancelled() => Ok(()),
            () = self.cancel.cancelled() => Err(canceled()),
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
        self.add_with(definition, SourcePolicies::default())
    }

    /// Adds a graph with source policies of its own.
    ///
    /// # Errors
    /// Fails if the graph is invalid.
    pub(crate) fn add_with(
        &self,
        definition: pb::Definition,
        policies: SourcePolicies,
    ) -> Result<Slot, Status> {
        if !policies.is_empty() {
            return Ok(Reference::new(definition, policies)?.map(Arc::new));
        }
        let digest = Digest::of(&definition.encode_to_vec());
        if let Some(known) = self.lock().by_definition.get(&digest) {
            return Ok(Some(Arc::clone(known)));
        }
        let Some(reference) = Reference::new(definition, policies)? else { return Ok(None) };
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

    /// Returns the results of a function for all calls of frontends of all builds.
    pub(crate) fn each_call<T>(&self, of: impl Fn(&FrontendCall) -> Option<T>) -> Vec<T> {
        let list = self.list.upgrade().map(Jobs);
        list.map(|list| list.each_call(of)).unwrap_or_default()
    }

    /// Returns the request that has made a graph. A graph of the client's own has an empty one.
    pub(crate) fn request_of(&self, reference: &Arc<Reference>) -> GraphRequest {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let has_made = |call: &&FrontendCall| call.made.iter().any(|it| Arc::ptr_eq(it, reference));
        calls.iter().find(has_made).map(|call| call.request.clone()).unwrap_or_default()
    }

    /// Records an exported image, if the output is one, with its documents.
    pub(crate) fn note_export(
        &self,
        number: u32,
        descriptor: Option<Value>,
        documents: Vec<Vec<u8>>,
    ) {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        exported.images.extend(descriptor.map(|descriptor| (number, descriptor)));
        exported.documents.extend(documents);
    }

    /// Takes the exported images.
    pub(crate) fn take_exported(&self) -> Exports {
        std::mem::take(&mut self.exported.lock().unwrap_or_else(PoisonError::into_inner))
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

    /// Keeps files that a failed step has left behind, and returns a new ID for them.
    fn keep(&self, output: &Output) -> String {
        let mut references = self.lock();
        let number = references.left.len();
        let name = format!("{} left {number}", self.reference);
        let id = format!("kiln::{}", &Digest::of(name.as_bytes()).hex()[..25]);
        references.left.insert(id.clone(), output.clone());
        id
    }

    /// Returns the files of an ID that a failed step has left behind.
    pub(crate) fn left(&self, id: &str) -> Option<Output> {
        self.lock().left.get(id).cloned()
    }

    /// Returns the result of a reference. Solves its graph the first time.
    ///
    /// # Errors
    /// Fails if a step fails, or if the build is canceled.
    pub(crate) async fn solve(&self, reference: &Reference) -> Result<Output, Status> {
        let solve = || async {
            self.enforce(reference).await?;
            let graph = reference.graph();
            self.fetch_layouts(graph).await?;
            let solve = |events| async move { self.build.solve(graph, &events).await };
            let solved = Box::pin(self.status.follow(Some(graph), solve)).await;
            let solved = solved.map_err(|failure| {
                let status = status_of(&failure, Some(reference));
                with_files(status, &failure, reference, |output| self.keep(output))
            })?;
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
        let job = Arc::new(Job { list: Arc::downgrade(&self.0), ..job });
        let mut jobs = self.lock();
        if jobs.contains_key(&job.reference) {
            return Err(Status::already_exists(format!("job ID {} exists", job.reference)));
        }
        jobs.insert(job.reference.clone(), Arc::clone(&job));
        drop(jobs);
        self.0.added.notify_waiters();
        Ok(Listed { jobs: self.clone(), job })
    }

    /// Returns the results of a function for all calls of frontends of all builds.
    fn each_call<T>(&self, of: impl Fn(&FrontendCall) -> Option<T>) -> Vec<T> {
        let jobs: Vec<Arc<Job>> = self.lock().values().cloned().collect();
        let of_job = |job: Arc<Job>| {
            let calls = job.calls.lock().unwrap_or_else(PoisonError::into_inner);
            calls.iter().filter_map(&of).collect::<Vec<T>>()
        };
        jobs.into_iter().flat_map(of_job).collect()
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
        self.job.containers.end();
        self.job.status.close();
        self.jobs.lock().remove(&self.job.reference);
    }
}
