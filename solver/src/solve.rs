//! The scheduler.

use std::sync::Arc;

use kiln_llb::Graph;
use kiln_llb::definition::SourceLocation;
use tokio_util::sync::CancellationToken;

use crate::cache::{Cache, CacheError};
use crate::event::EventSender;
use crate::executor::{Executor, StepError};
use crate::key::Key;

/// What a build asks of the solver.
#[derive(Clone, Debug)]
pub struct SolveOptions {
    /// How many vertices may run at once.
    pub jobs: usize,
    /// Where events go.
    pub events: EventSender,
    /// Cancelled to stop the build.
    pub cancel: CancellationToken,
}

/// The result of the graph's target.
#[derive(Clone, Debug)]
pub struct Solved<O> {
    /// What the target yields.
    pub output: O,
    /// The target's canonical key.
    pub key: Key,
    /// How many vertices of the graph are steps for people.
    pub steps: usize,
    /// How many of them were known.
    pub cached: usize,
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
        /// The end of the step's output.
        log_tail: Vec<u8>,
        /// Why.
        #[source]
        error: StepError,
    },
    /// The cache could not be read or written.
    #[error("failed to solve: cache")]
    Cache(#[from] CacheError),
    /// The build was cancelled.
    #[error("canceled")]
    Cancelled,
}

/// Solves `graph`: finds or makes the result of its target.
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
    let _ = (graph, executor, cache, options);
    todo!()
}
