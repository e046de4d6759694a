//! The operations that wait for the outside world. A task works on one vertex and returns one
//! report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_event::{Event, EventSender, Key, LogTail, VertexId};
use kiln_llb::Graph;
use kiln_oci::Digest;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheError, KeyRecord};
use crate::executor::{Executor, StepContext, StepError};

/// The shared outputs of a vertex.
pub(crate) type Outputs<O> = Arc<[O]>;

/// The result of a successful task.
#[derive(Debug)]
pub(crate) enum Report<O, G> {
    /// The cache's answer to a lookup.
    Loaded(Option<Vec<O>>),
    /// The digests of a vertex's content inputs.
    Digested(Vec<Digest>),
    /// The lock on a vertex's key, and the cache's answer to the second lookup.
    Locked(G, Option<Vec<O>>),
    /// The saved outputs of a vertex, and its run time.
    Ran(Vec<O>, Duration),
}

/// The reason why a task ended without a report.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The build was cancelled or has ended.
    Cancelled,
    /// The step failed. Includes the end of its output if it ran.
    Step(StepError, Option<LogTail>),
    /// The cache could not be read or written.
    Cache(CacheError),
}

impl From<CacheError> for Stop {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

/// A wait that the display shows if it is long.
struct Wait {
    /// The time before the display shows the wait.
    patience: Duration,
    /// The status that the display shows.
    name: &'static str,
}

/// The wait for the lock on a key.
const LOCK: Wait = Wait {
    patience: Duration::from_millis(200),
    name: "waiting for another build that runs this step",
};
/// The wait for the digests of contents.
const CONTENTS: Wait =
    Wait { patience: Duration::from_secs(1), name: "reading the files that this step takes" };

/// Waits for `work`. Shows the wait as a status of the vertex `told` if it is long.
async fn telling<T>(
    wait: &Wait,
    work: impl Future<Output = T>,
    told: Option<&(VertexId, EventSender)>,
) -> T {
    let mut work = std::pin::pin!(work);
    let Some((id, events)) = told else { return work.await };
    if let Ok(value) = tokio::time::timeout(wait.patience, &mut work).await {
        return value;
    }
    let tell = |done| {
        let name = wait.name.to_owned();
        events.send(Event::Status { id: *id, name, current: 0, total: None, done });
    };
    tell(false);
    let value = work.await;
    tell(true);
    value
}

/// The values that all tasks of a build share.
#[derive(Debug)]
pub(crate) struct TaskContext<E, C> {
    pub(crate) graph: Arc<Graph>,
    pub(crate) executor: Arc<E>,
    pub(crate) cache: Arc<C>,
    pub(crate) cancel: CancellationToken,
}

impl<E, C> Clone for TaskContext<E, C> {
    fn clone(&self) -> Self {
        Self {
            graph: Arc::clone(&self.graph),
            executor: Arc::clone(&self.executor),
            cache: Arc::clone(&self.cache),
            cancel: self.cancel.clone(),
        }
    }
}

/// The arguments of [`TaskContext::run`].
pub(crate) struct Run<O, G> {
    pub(crate) number: usize,
    pub(crate) inputs: Vec<O>,
    pub(crate) context: StepContext,
    pub(crate) tail: LogTail,
    /// The key and record to save the result under. `None` if the result isn't saved.
    pub(crate) save: Option<(Key, KeyRecord)>,
    /// The lock on the key. It is released after the result is saved.
    pub(crate) guard: Option<G>,
    /// The minimum number of outputs that the users need.
    pub(crate) outputs: usize,
}

impl<E, C> TaskContext<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    /// Looks a result up in the cache. Ignores a result with fewer than `outputs` outputs.
    pub(crate) async fn load(
        self,
        key: Key,
        outputs: usize,
    ) -> Result<Report<E::Output, C::Guard>, Stop> {
        let found = self.unless_cancelled(self.cache.load(&key)).await??;
        Ok(Report::Loaded(found.filter(|found| found.len() >= outputs)))
    }

    /// Digests the given content inputs of a vertex. Sends a status event for the vertex `told` if that
    /// takes more than a second.
    pub(crate) async fn digest(
        self,
        number: usize,
        inputs: Vec<(usize, E::Output)>,
        told: Option<(VertexId, EventSender)>,
    ) -> Result<Report<E::Output, C::Guard>, Stop> {
        let vertex = &self.graph.vertices()[number];
        let digests = inputs
            .iter()
            .map(|(input, output)| self.executor.content_digest(vertex, *input, output));
        let digests = futures_util::future::try_join_all(digests);
        let digests = self.unless_cancelled(telling(&CONTENTS, digests, told.as_ref())).await?;
        digests.map(Report::Digested).map_err(|error| Stop::Step(error, None))
    }

    /// Locks a key, then looks the result up again unless `fresh`. Shows a long wait as a status.
    pub(crate) async fn lock(
        self,
        key: Key,
        outputs: usize,
        fresh: bool,
        told: Option<(VertexId, EventSender)>,
    ) -> Result<Report<E::Output, C::Guard>, Stop> {
        let locking = telling(&LOCK, self.cache.lock(&key), told.as_ref());
        let guard = self.unless_cancelled(locking).await??;
        let found =
            if fresh { None } else { self.unless_cancelled(self.cache.load(&key)).await?? };
        Ok(Report::Locked(guard, found.filter(|found| found.len() >= outputs)))
    }

    /// Runs a vertex to its end. On cancellation, the executor must stop and return.
    pub(crate) async fn run(
        self,
        run: Run<E::Output, C::Guard>,
    ) -> Result<Report<E::Output, C::Guard>, Stop> {
        let vertex = &self.graph.vertices()[run.number];
        let started = Instant::now();
        let outcome = self.executor.execute(vertex, run.inputs, run.context).await;
        let duration = started.elapsed();
        let outputs = match outcome {
            Ok(outputs) => outputs,
            Err(StepError::Cancelled) if self.cancel.is_cancelled() => return Err(Stop::Cancelled),
            Err(error) => return Err(Stop::Step(error, Some(run.tail))),
        };
        if outputs.len() < run.outputs {
            let problem =
                format!("output {} is missing: there are {}", run.outputs - 1, outputs.len());
            return Err(Stop::Step(StepError::other(problem), Some(run.tail)));
        }
        if let Some((key, mut record)) = run.save {
            record.duration_ms = duration.as_millis() as u64;
            self.cache.save(&key, &outputs, &record).await?;
        }
        drop(run.guard);
        Ok(Report::Ran(outputs, duration))
    }

    /// Waits for `future` until the build is cancelled.
    async fn unless_cancelled<F: Future>(&self, future: F) -> Result<F::Output, Stop> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
            value = future => Ok(value),
        }
    }
}
