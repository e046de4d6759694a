//! The entry point of the solver, with its options and results.

use std::sync::Arc;

use kiln_event::{Event, EventSender, Key, VertexId};
use kiln_llb::Graph;
use kiln_llb::SourceLocation;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheError};
use crate::drive::Driver;
use crate::executor::{Executor, StepError};
use crate::plan::Plan;
use crate::task::TaskContext;

/// The options of a solve.
#[derive(Clone, Debug)]
pub struct SolveOptions {
    /// The maximum number of vertices that run at once. Zero means one.
    pub jobs: usize,
    /// The channel for the build's events.
    pub events: EventSender,
    /// The token that stops the build when the caller cancels it.
    pub cancel: CancellationToken,
}

/// The results of the graph's targets.
#[derive(Clone, Debug)]
pub struct Solved<O> {
    /// The outputs of the targets, in the graph's order.
    pub outputs: Vec<O>,
    /// The canonical keys of the targets, in the graph's order.
    pub keys: Vec<Key>,
    /// The keys of each vertex, in the graph's order, for demanded and other results alike. `None`
    /// if a key is ephemeral or wasn't needed.
    pub vertices: Vec<Option<VertexKeys>>,
    /// The number of vertices that can be cached and that displays show: those neither hidden nor
    /// ephemeral.
    pub steps: usize,
    /// The number of those steps whose results were cached.
    pub cached: usize,
}

/// The keys of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VertexKeys {
    /// The key that the result is stored under.
    pub canonical: Key,
    /// The definition key that is linked to the canonical key. `None` if the canonical key is
    /// itself the definition key, or if the definition key is ephemeral.
    pub definition: Option<Key>,
}

/// The reason why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// A step failed, and the solver cancelled all others.
    #[error("failed to solve: {error}")]
    Step {
        /// The step's display name.
        name: String,
        /// The source locations of the instruction.
        locations: Vec<SourceLocation>,
        /// The number of the step's vertex.
        id: VertexId,
        /// The end of the step's output, at most 64 KiB.
        log_tail: Vec<u8>,
        /// The total length of the step's output in bytes.
        log_length: u64,
        /// The reason why the step failed.
        #[source]
        error: Box<StepError>,
    },
    /// The cache could not be read or written.
    #[error("failed to solve: cache")]
    Cache(#[from] CacheError),
    /// The caller cancelled the build.
    #[error("canceled")]
    Cancelled,
}

/// Solves `graph`: loads or produces the results of its targets.
///
/// # Errors
/// Returns the first failure, after every running step has ended.
pub async fn solve<E, C>(
    graph: Arc<Graph>,
    executor: Arc<E>,
    cache: Arc<C>,
    options: SolveOptions,
) -> Result<Solved<E::Output>, SolveError>
where
    E: Executor,
    C: Cache<Output = E::Output>,
{
    let plan = Plan::new(&graph, executor.as_ref()).map_err(|(number, name, error)| {
        let id = number as VertexId;
        let vertex = &graph.vertices()[number];
        let (digest, inputs) = (Some(vertex.digest), vertex.input_digests());
        options.events.send(Event::Vertex { id, name: name.clone(), digest, inputs });
        options.events.send(Event::Started { id });
        options.events.send(Event::Failed { id, error: error.to_string() });
        let locations = graph.locations(number).to_vec();
        let error = Box::new(error);
        SolveError::Step { name, locations, id, log_tail: Vec::new(), log_length: 0, error }
    })?;
    let cancel = options.cancel.child_token();
    let world = TaskContext { graph, executor, cache, cancel };
    Driver::new(plan, world, options).run().await
}
