//! The ways to run the programs of steps.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures_util::future::BoxFuture;
use kiln_sandbox::{Ended, Io, Isolation, Joiner, Obstacle, Running, Sandbox, SandboxError, Spec};
use kiln_store::Store;
use tokio_util::sync::CancellationToken;

/// A way to run the programs of steps.
pub trait Runner: fmt::Debug + Send + Sync {
    /// Starts, in the background, what doesn't depend on a program. A failure is reported when a
    /// program is started. Must be called within a Tokio runtime.
    fn prepare(&self);

    /// Runs a program to its end, and leaves the mounts of its kept trees to be closed.
    fn run<'a>(
        &'a self,
        spec: Spec,
        io: Io,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Ended, SandboxError>>;

    /// Starts a program. Returns when it is about to be executed.
    fn start(&self, spec: Spec, io: Io) -> BoxFuture<'_, Result<Running, SandboxError>>;

    /// Returns a way to start further programs beside a running one, in its namespaces.
    ///
    /// # Errors
    /// Fails if programs have no namespaces of kiln's own.
    fn joiner(&self, first: &Running) -> Result<Joiner, SandboxError>;

    /// Returns `true` if other software than kiln runs the program. Such software requires a
    /// control group in every controller, and seals no trees.
    fn is_foreign(&self) -> bool {
        false
    }

    /// Returns a line about the isolation of programs that the user should know.
    fn notice(&self) -> Option<String> {
        None
    }
}

/// A runner by kiln's own sandbox. It is created on first use, because a build with copies only
/// needs none. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct SandboxRunner {
    /// The directory for the sandboxes' mounts.
    anchor: PathBuf,
    isolation: Isolation,
    obstacles: Vec<Obstacle>,
    sandbox: Arc<OnceLock<Sandbox>>,
}

impl SandboxRunner {
    /// Creates a runner whose sandboxes have their mounts in a directory of the store.
    pub fn new(store: &Store, isolation: Isolation) -> Self {
        let anchor = store.anchor();
        Self { anchor, isolation, obstacles: Vec::new(), sandbox: Arc::default() }
    }

    /// Adds the reasons why stronger ways to isolate programs, or this one, can't be used.
    #[must_use]
    pub fn with_obstacles(self, obstacles: Vec<Obstacle>) -> Self {
        Self { obstacles, ..self }
    }

    fn sandbox(&self) -> Result<&Sandbox, SandboxError> {
        if let Some(sandbox) = self.sandbox.get() {
            return Ok(sandbox);
        }
        Obstacle::check(self.isolation, &self.obstacles)?;
        let sandbox = Sandbox::new(&self.anchor, self.isolation)?;
        Ok(self.sandbox.get_or_init(|| sandbox))
    }
}

impl Runner for SandboxRunner {
    fn prepare(&self) {
        if self.sandbox.get().is_some() {
            return;
        }
        let this = self.clone();
        drop(tokio::task::spawn_blocking(move || this.sandbox().and_then(Sandbox::prepare)));
    }

    fn run<'a>(
        &'a self,
        spec: Spec,
        io: Io,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Ended, SandboxError>> {
        Box::pin(async move { self.sandbox()?.run_to_keep(&spec, io, stop).await })
    }

    fn start(&self, spec: Spec, io: Io) -> BoxFuture<'_, Result<Running, SandboxError>> {
        Box::pin(async move { self.sandbox()?.start(&spec, io).await })
    }

    fn joiner(&self, first: &Running) -> Result<Joiner, SandboxError> {
        self.sandbox()?.joiner(first)
    }

    fn notice(&self) -> Option<String> {
        Obstacle::describe(self.isolation, &self.obstacles)
    }
}

/// A runner by an OCI runtime such as runc.
#[derive(Debug)]
pub struct RuntimeRunner {
    program: PathBuf,
    sandbox: SandboxRunner,
}

impl RuntimeRunner {
    /// Creates a runner by the runtime at `program`.
    pub fn new(program: PathBuf, store: &Store, isolation: Isolation) -> Self {
        Self { program, sandbox: SandboxRunner::new(store, isolation) }
    }

    fn by_runtime(&self, spec: Spec) -> Spec {
        Spec { runtime: Some(self.program.clone()), ..spec }
    }
}

impl Runner for RuntimeRunner {
    fn prepare(&self) {
        self.sandbox.prepare();
    }

    fn run<'a>(
        &'a self,
        spec: Spec,
        io: Io,
        stop: &'a CancellationToken,
    ) -> BoxFuture<'a, Result<Ended, SandboxError>> {
        self.sandbox.run(self.by_runtime(spec), io, stop)
    }

    fn start(&self, spec: Spec, io: Io) -> BoxFuture<'_, Result<Running, SandboxError>> {
        self.sandbox.start(self.by_runtime(spec), io)
    }

    fn joiner(&self, first: &Running) -> Result<Joiner, SandboxError> {
        self.sandbox.joiner(first)
    }

    fn is_foreign(&self) -> bool {
        true
    }
}
