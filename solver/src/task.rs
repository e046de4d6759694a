//! What waits for the world outside. A task knows one vertex and gives one report.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kiln_llb::Graph;
use kiln_oci::Digest;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheError, KeyRecord};
use crate::event::{Event, EventSender, LogTail, VertexId};
use crate::executor::{Executor, StepContext, StepError};
use crate::key::Key;

/// The outputs of a vertex.
pub(crate) type Outputs<O> = Arc<[O]>;

/// What a task has to say in the end.
#[derive(Debug)]
pub(crate) enum Report<O, G> {
    /// The cache was asked for a vertex's result.
    Loaded(Option<Vec<O>>),
    /// The contents of a vertex's inputs were digested.
    Digested(Vec<Digest>),
    /// A vertex's key was locked, and the cache was asked once more.
    Locked(G, Option<Vec<O>>),
    /// A vertex ran, and its result was saved.
    Ran(Vec<O>, Duration),
}

/// Why a task ended without a report.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The build ends, so the task did.
    Cancelled,
    /// The step failed; with the end of its output.
    Step(StepError, Option<LogTail>),
    /// The cache failed.
    Cache(CacheError),
}

impl From<CacheError> for Stop {
    fn from(error: CacheError) -> Self {
        Self::Cache(error)
    }
}

/// Something that mostly takes a moment, and that is shown where it takes longer.
struct Wait {
    /// How long it may take before it is shown.
    patience: Duration,
    /// What is shown.
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

/// Waits for something, and shows on whose behalf, where that is more than a moment.
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

/// What every task of a build is given.
#[derive(Debug)]
pub(crate) struct World<E, C> {
    pub(crate) graph: Arc<Graph>,
    pub(crate) executor: Arc<E>,
    pub(crate) cache: Arc<C>,
    pub(crate) cancel: CancellationToken,
}

impl<E, C> Clone for World<E, C> {
    fn clone(&self) -> Self {
        Self {
            graph: Arc::clone(&self.graph),
            executor: Arc::clone(&self.executor),
            cache: Arc::clone(&self.cache),
            cancel: self.cancel.clone(),
        }
    }
}

/// A run of a vertex.
pub(crate) struct Run<O, G> {
    pub(crate) number: usize,
    pub(crate) inputs: Vec<O>,
    pub(crate) context: StepContext,
    pub(crate) tail: LogTail,
    /// Where the result is saved; `None` where it isn't.
    pub(crate) save: Option<(Key, KeyRecord)>,
    /// Freed after the result is saved.
    pub(crate) guard: Option<G>,
    /// How many outputs somebody reads.
    pub(crate) outputs: usize,
}

impl<E, C> World<E, C>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    /// Asks the cache for a result; one with fewer than `outputs` outputs is none.
    pub(crate) async fn load(
        self,
        key: Key,
        outputs: usize,
    ) -> Result<Report<E::Output, C::Guard>, Stop> {
        let found = self.unless_cancelled(self.cache.load(&key)).await??;
        Ok(Report::Loaded(found.filter(|found| found.len() >= outputs)))
    }

    /// Digests the contents of the inputs `inputs` of a vertex. A status event is sent for the vertex of
    /// `told` where that takes more than a second.
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

    /// Waits for the lock on a key, then asks the cache unless `fresh`. Somebody is told where that
    /// takes a while.
    pub(crate) async fn lock(
        self,
        key: Key,
        outputs: usize,
        (fresh, told): (bool, Option<(VertexId, EventSender)>),
    ) -> Result<Report<E::Output, C::Guard>, Stop> {
        let locking = telling(&LOCK, self.cache.lock(&key), told.as_ref());
        let guard = self.unless_cancelled(locking).await??;
        let found =
            if fresh { None } else { self.unless_cancelled(self.cache.load(&key)).await?? };
        Ok(Report::Locked(guard, found.filter(|found| found.len() >= outputs)))
    }

    /// Runs a vertex to its end, even when the build is cancelled: it is told, and has to obey.
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

    /// Waits for `future`, but no longer than until the build is cancelled.
    async fn unless_cancelled<F: Future>(&self, future: F) -> Result<F::Output, Stop> {
        tokio::select! {
            biased;
            () = self.cancel.cancelled() => Err(Stop::Cancelled),
            value = future => Ok(value),
        }
    }
}
