//! The port to the implementation of ops.

use std::any::Any;
use std::fmt;
use std::future::Future;

use kiln_event::{Ingredients, Reporter};
use kiln_llb::Vertex;
use kiln_oci::Digest;

/// The implementation of ops. The worker provides it.
pub trait Executor: Send + Sync + 'static {
    /// One output of an op. Cloning is cheap. The output stays valid while the caller holds it.
    type Output: Clone + Send + Sync + 'static;

    /// Returns the rule for computing the vertex's key. Does no I/O.
    ///
    /// # Errors
    /// Fails if the op can't be run at all, so that the build fails before it starts.
    fn rule(&self, vertex: &Vertex) -> Result<CacheRule, StepError>;

    /// Digests the part of `output`, the result of the vertex's input `input`, that the vertex
    /// selects. Equal digests mean that the op's result doesn't depend on the difference between
    /// the contents.
    fn content_digest(
        &self,
        vertex: &Vertex,
        input: usize,
        output: &Self::Output,
    ) -> impl Future<Output = Result<Digest, StepError>> + Send;

    /// Runs the op on the results of its inputs, in the op's order, and returns its outputs.
    ///
    /// A failed or cancelled run must leave no visible effects.
    fn execute(
        &self,
        vertex: &Vertex,
        inputs: Vec<Self::Output>,
        context: StepContext,
    ) -> impl Future<Output = Result<Vec<Self::Output>, StepError>> + Send;
}

/// The rule for computing the key of a vertex.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRule {
    /// The bytes that represent the op in its keys. They leave out session-bound fields, fields
    /// that don't affect the result, and the digests of the inputs, which change with everything
    /// that came before. `None` means the whole op except its inputs.
    pub salt: Option<Vec<u8>>,
    /// The inputs of which only selected content counts.
    pub content_inputs: Vec<usize>,
    /// The inputs that the result is built on. A target's result includes theirs.
    pub bases: Vec<usize>,
    /// The bases that the result only adds to: the op reads none of their files.
    pub added_to: Vec<usize>,
    /// The selected paths of each content input, for display.
    pub selected: Vec<Vec<String>>,
    /// `true` if the result is valid for this build only, as that of a local source. The key is
    /// unique to the build, and the cache stores nothing.
    pub ephemeral: bool,
    /// `true` if a run that is under way in another build doesn't serve this one, as that of a step
    /// with secrets. Results of earlier builds do.
    pub private: bool,
    /// `true` if displays don't show the vertex as a step (the head of a definition).
    pub hidden: bool,
    /// The readable parts of the salt. If two salts differ, at least one part should differ;
    /// otherwise kiln can't explain the cache miss.
    pub ingredients: Ingredients,
}

/// The inputs of a running step apart from its files.
#[derive(Clone, Debug)]
pub struct StepContext {
    /// The vertex that runs, the channel for its output, progress and warnings, and the token that
    /// stops it.
    pub reporter: Reporter,
    /// `true` if no other step reads the files of the result. The result is then a target, or the
    /// base of steps that only add to it.
    pub is_last: bool,
    /// The outputs that are part of a target as they are: the target's own output, and the outputs
    /// that it is built on.
    pub kept: Vec<u32>,
}

/// The reason why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The program of a `RUN` ended with an exit code that isn't a success, or by a signal.
    #[error("process \"{command}\" did not complete successfully: {status}")]
    Exit {
        /// The command line as the user wrote it.
        command: String,
        /// The status, such as `exit code: 1` or `killed by signal 9 (SIGKILL)`.
        status: String,
        /// The exit code; for a signal, 128 plus the signal's number.
        code: i32,
        /// The step's working state, if the executor kept it for inspection.
        remains: Option<Remains>,
    },
    /// The step was cancelled by the user or after another step's failure.
    #[error("canceled")]
    Cancelled,
    /// Any other failure, with its sources.
    #[error("{0}")]
    Other(#[from] Box<dyn std::error::Error + Send + Sync>),
}

/// The working state of a failed step. The solver passes it to the build's caller without knowing
/// its type; the caller and the executor agree on it. Dropping it removes the state.
pub struct Remains(Box<dyn Any + Send + Sync>);

impl Remains {
    /// Wraps the executor's own type.
    pub fn new(remains: impl Any + Send + Sync) -> Self {
        Self(Box::new(remains))
    }

    /// Returns the state if it is a `T`.
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
    /// Wraps any error as [`StepError::Other`].
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Other(error.into())
    }
}
