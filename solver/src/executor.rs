//! The port to what the ops mean.

use std::any::Any;
use std::fmt;
use std::future::Future;

use kiln_llb::graph::Vertex;
use kiln_oci::Digest;
use tokio_util::sync::CancellationToken;

use crate::event::{Event, EventSender, LogStream, VertexId};
use crate::made_of::Ingredients;

/// Gives meaning to ops. Implemented by the worker.
pub trait Executor: Send + Sync + 'static {
    /// What an op yields per output: cheap to clone, alive as long as it is held.
    type Output: Clone + Send + Sync + 'static;

    /// Says how the vertex is keyed. Does no I/O.
    ///
    /// # Errors
    /// Fails where the op can't be run at all, so that a build ends before it begins.
    fn rule(&self, vertex: &Vertex) -> Result<CacheRule, StepError>;

    /// Digests what the vertex selects of its input `input`, whose result is `output`. Equal
    /// digests mean that the vertex can't tell the contents apart.
    fn content_digest(
        &self,
        vertex: &Vertex,
        input: usize,
        output: &Self::Output,
    ) -> impl Future<Output = Result<Digest, StepError>> + Send;

    /// Runs the op on the results of its inputs, in their order, and returns its outputs.
    ///
    /// Nothing of a failed or cancelled run may be visible afterwards.
    fn execute(
        &self,
        vertex: &Vertex,
        inputs: Vec<Self::Output>,
        context: StepContext,
    ) -> impl Future<Output = Result<Vec<Self::Output>, StepError>> + Send;
}

/// How a vertex is keyed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRule {
    /// What stands for the op in its keys: its bytes without what is bound to a session or has no
    /// influence on the result, and without the digests of its inputs, for these change with
    /// everything that came before. `None` stands for all of the op but its inputs.
    pub salt: Option<Vec<u8>>,
    /// Inputs of which only selected content matters.
    pub content_inputs: Vec<usize>,
    /// Inputs that the result is built on: what a target's result is made of, theirs are part of.
    pub bases: Vec<usize>,
    /// Those of its bases that the result only adds to: no file of theirs is read for it.
    pub added_to: Vec<usize>,
    /// Of each of them, the paths that are selected, for people.
    pub selected: Vec<Vec<String>>,
    /// Whether the result lives for this build only: its key is made unique to the build, and
    /// nothing is stored (local sources).
    pub ephemeral: bool,
    /// Whether the vertex is no step of its own for people (the head of a definition).
    pub hidden: bool,
    /// What the salt is made of, for people. Where salts differ some of it should, or nobody can be
    /// told why.
    pub ingredients: Ingredients,
}

/// What a running step is given.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// Which vertex runs.
    pub vertex: VertexId,
    /// Where it reports to.
    pub events: EventSender,
    /// Cancelled when the step has to stop.
    pub cancel: CancellationToken,
    /// Whether no other step reads the files of the result: it is what the graph is solved for, or
    /// what others only add to.
    pub is_last: bool,
    /// Which outputs are part of what the graph is solved for, as they are: a target's own, and
    /// those that it is built on.
    pub kept: Vec<u32>,
}

impl StepContext {
    /// Reports output of the step's process, as it came.
    pub fn log(&self, stream: LogStream, bytes: Vec<u8>) {
        self.events.send(Event::Log { id: self.vertex, stream, bytes });
    }

    /// Reports how far the part `name` of the step is: bytes done, and all where that is known.
    pub fn status(&self, name: &str, current: u64, total: Option<u64>, done: bool) {
        let name = name.to_owned();
        self.events.send(Event::Status { id: self.vertex, name, current, total, done });
    }

    /// Reports something that people should know, though the step goes on.
    pub fn warn(&self, message: impl Into<String>) {
        self.events.send(Event::Warning { id: Some(self.vertex), message: message.into() });
    }
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The program of a `RUN` ended with a code that isn't success, or by a signal.
    #[error("process \"{command}\" did not complete successfully: {status}")]
    Exit {
        /// The command line, as people wrote it.
        command: String,
        /// As `exit code: 1` or `killed by signal 9 (SIGKILL)`.
        status: String,
        /// The exit code, 128 and the signal's number for signals.
        code: i32,
        /// What the step worked in, where the executor kept it to be looked into.
        remains: Option<Remains>,
    },
    /// The step was cancelled.
    #[error("canceled")]
    Cancelled,
    /// Anything else, with its causes.
    #[error(transparent)]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// What a failed step has left behind. The solver hands it on to whoever started the build; what it
/// is, is between that one and the executor. It goes when it is dropped.
pub struct Remains(Box<dyn Any + Send + Sync>);

impl Remains {
    /// Wraps what is left.
    pub fn new(remains: impl Any + Send + Sync) -> Self {
        Self(Box::new(remains))
    }

    /// Returns what is left, where it is a `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        self.0.downcast_ref()
    }
}

impl fmt::Debug for Remains {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Remains(…)")
    }
}

impl StepError {
    /// Wraps any error.
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
