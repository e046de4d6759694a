//! What is asked of the solver, and what it answers.

use std::sync::Arc;

use kiln_llb::Graph;
use kiln_llb::definition::SourceLocation;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheError};
use crate::drive::Driver;
use crate::event::{Event, EventSender, VertexId};
use crate::executor::{Executor, StepError};
use crate::key::Key;
use crate::plan::Plan;
use crate::task::World;

/// What a build asks of the solver.
#[derive(Clone, Debug)]
pub struct SolveOptions {
    /// How many vertices may run at once; zero counts as one.
    pub jobs: usize,
    /// Where events go.
    pub events: EventSender,
    /// Cancelled to stop the build.
    pub cancel: CancellationToken,
}

/// The results of the graph's targets.
#[derive(Clone, Debug)]
pub struct Solved<O> {
    /// What each target yields.
    pub outputs: Vec<O>,
    /// The canonical key of each target.
    pub keys: Vec<Key>,
    /// The keys of each vertex, in the graph's order, whether its result was asked for or not.
    /// `None` where they live for this build only, or weren't needed.
    pub vertices: Vec<Option<VertexKeys>>,
    /// How many vertices of the graph are steps for people that can be cached: neither hidden nor
    /// ephemeral.
    pub steps: usize,
    /// How many of them were known.
    pub cached: usize,
}

/// The keys of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VertexKeys {
    /// What its result is stored under.
    pub canonical: Key,
    /// The definition key that is linked to it; `None` where there is no other key, or one of this
    /// build alone.
    pub definition: Option<Key>,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum SolveError {
    /// A step failed; everything else was stopped.
    #[error("failed to solve: {error}")]
    Step {
        /// The step's name.
        name: String,
        /// Where the instruction stands.
        locations: Vec<SourceLocation>,
        /// The step's number.
        id: VertexId,
        /// The end of the step's output.
        log_tail: Vec<u8>,
        /// How many bytes of output there were in all.
        log_length: u64,
        /// Why.
        #[source]
        error: Box<StepError>,
    },
    /// The cache could not be read or written.
    #[error("failed to solve: cache")]
    Cache(#[from] CacheError),
    /// The build was cancelled.
    #[error("canceled")]
    Cancelled,
}

/// Solves `graph`: finds or makes the results of its targets.
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
    let world = World { graph, executor, cache, cancel };
    Driver::new(plan, world, options).run().await
}
