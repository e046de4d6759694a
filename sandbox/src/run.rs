//! Running programs from kiln's side.

#![expect(clippy::disallowed_methods, reason = "the directory is kiln's own")]

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::chroot::placed::Placed;
use super::error::SandboxError;
use super::isolation::Isolation;
use super::seal::Seal;
use super::server::{Helper, Processes, Server};
use super::spec::{MountKind, Network, Spec};
use super::wire::{self, Report, Request, Run};
use super::{input, kernel, oci, stubs};
use crate::sys;

/// The maximum number of bytes that are read from a runtime's log.
const MAX_LOG: usize = 64 << 10;

/// The number of bytes of one read from the output.
const CHUNK: usize = 64 << 10;

/// The default maximum capacity of a pipe in bytes.
const MAX_PIPE: usize = 1 << 20;

/// The way in which a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// The program exited with this status.
    Code(i32),
    /// The program was killed by this signal.
    Signal(i32),
}

impl Exit {
    /// Returns `true` if the exit status is zero.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// Returns the exit code as shells report it: 128 plus the signal's number for signals.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// The end of a program, with the mounts that remain to be closed.
#[derive(Debug)]
pub struct Ended {
    /// The exit status or signal.
    pub exit: Exit,
    /// The kept trees, ready to be closed.
    pub seal: Seal,
}

/// An output stream of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// The program's standard output.
    Stdout,
    /// The program's standard error.
    Stderr,
}

/// A function that receives a program's output in the chunks in which it arrives. After
/// [`ControlFlow::Break`], the stream's pipe is closed, and the program can't write to it any more.
pub type OutputSink = Box<dyn FnMut(OutputStream, &[u8]) -> ControlFlow<()> + Send>;

/// The source of a program's standard input.
#[derive(Debug, Default)]
pub enum Input {
    /// An empty input: `/dev/null`.
    #[default]
    Null,
    /// A descriptor. The program gets a pipe with its content, not the descriptor itself.
    Fd(OwnedFd),
}

/// The connections of a program. A program with a terminal ignores `input` and `output`.
pub struct Io {
    /// The source of standard input.
    pub input: Input,
    /// The receiver of standard output and standard error.
    pub output: OutputSink,
    /// The namespace for [`Network::Namespace`].
    pub namespace: Option<OwnedFd>,
    /// The program's end of a [`Gate`], which it waits at.
    pub gate: Option<OwnedFd>,
}

/// A gate that holds a program back after its setup. If the gate is dropped before it is opened,
/// the program never starts.
#[derive(Debug)]
pub struct Gate {
    opener: OwnedFd,
}

impl Gate {
    /// Returns a gate and the program's end of it.
    ///
    /// # Errors
    /// Fails if the process can't open more descriptors.
    pub fn new() -> Result<(Self, OwnedFd), SandboxError> {
        let pipe = pipe_with(PipeFlags::CLOEXEC);
        let (read, opener) =
            pipe.map_err(|errno| SandboxError::host("create pipe")(errno.into()))?;
        Ok((Self { opener }, read))
    }

    /// Lets the program start.
    pub fn open(self) {
        // A program that has failed already reports its own error.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.opener, &[1]));
    }
}

impl Io {
    /// Returns connections with an empty input and the receiver `output`.
    pub fn to(mut output: impl FnMut(OutputStream, &[u8]) + Send + 'static) -> Self {
        let output = Box::new(move |stream, bytes: &[u8]| {
            output(stream, bytes);
            ControlFlow::Continue(())
        });
        Self { input: Input::Null, output, namespace: None, gate: None }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Io").field("input", &self.input).finish_non_exhaustive()
    }
}

/// A sandbox that runs programs. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Sandbox {
    anchor: PathBuf,
    helper: Helper,
    isolation: Isolation,
}

impl Sandbox {
    /// Creates a sandbox. `anchor` is an empty directory for mounts that only the programs'
    /// namespaces see. Any number of sandboxes may share it.
    ///
    /// # Errors
    /// Fails if the directory can't be used or if the process may not create namespaces.
    pub fn new(anchor: &Path, isolation: Isolation) -> Result<Self, SandboxError> {
        Self::with_helper(anchor, Helper::new(anchor, isolation), isolation)
    }

    /// Creates a sandbox with a helper that may be running already: see [`Sandbox::new`].
    ///
    /// # Errors
    /// The same as for [`Sandbox::new`].
    pub fn with_helper(
        anchor: &Path,
        helper: Helper,
        isolation: Isolation,
    ) -> Result<Self, SandboxError> {
        if isolation != Isolation::None && !rustix::process::geteuid().is_root() {
            return Err(SandboxError::Unsupported(
                "running programs without root privileges is not supported yet",
            ));
        }
        if isolation.has_namespaces() {
            kernel::check()?;
        }
        // The kernel reports mount points by their canonical path.
        let anchor = anchor.canonicalize().map_err(SandboxError::host("resolve mount point"))?;
        Ok(Self { anchor, helper, isolation })
    }

    /// Starts the helper: see [`Helper::start`].
    ///
    /// # Errors
    /// The same as for [`Helper::start`].
    pub fn prepare(&self) -> Result<(), SandboxError> {
        self.helper.start()
    }

    /// Runs a program to its end.
    ///
    /// Returns after the program and all processes that it started have ended and their output has
    /// been read. On cancellation, the sandbox kills them first.
    ///
    /// # Errors
    /// Fails if the program can't be run or is cancelled. A program that exits with an error is no
    /// failure.
    pub async fn run(
        &self,
        spec: &Spec,
        io: Io,
        cancel: &CancellationToken,
    ) -> Result<Exit, SandboxError> {
        self.spawn(spec, io).await?.wait(cancel).await
    }

    /// Runs a program with [kept](Spec::kept) trees to its end: see [`Sandbox::run`].
    ///
    /// # Errors
    /// The same as for [`Sandbox::run`].
    pub async fn run_to_keep(
        &self,
        spec: &Spec,
        io: Io,
        cancel: &CancellationToken,
    ) -> Result<Ended, SandboxError> {
        let mut running = self.spawn(spec, io).await?;
        let exit = running.end(cancel).await?;
        Ok(Ended { exit, seal: running.seal })
    }

    /// Starts a program. Returns when it is about to be executed.
    ///
    /// # Errors
    /// Fails if the sandbox can't be set up or the program can't be found.
    pub async fn start(&self, spec: &Spec, io: Io) -> Result<Running, SandboxError> {
        self.spawn(spec, io).await?.begun().await
    }

    /// Returns a way to start further programs in the namespaces of `first`.
    ///
    /// # Errors
    /// Fails if programs have no namespaces of their own.
    pub fn joiner(&self, first: &Running) -> Result<Joiner, SandboxError> {
        if !self.isolation.has_namespaces() || first.log.is_some() {
            let message = "several programs in one container require kiln's own namespaces";
            return Err(SandboxError::Unsupported(message));
        }
        let control = Arc::downgrade(&first.control);
        Ok(Joiner { sandbox: self.clone(), control, server: Arc::clone(&first.server) })
    }

    async fn spawn(&self, spec: &Spec, io: Io) -> Result<Running, SandboxError> {
        let placed = match self.isolation {
            Isolation::Chroot => Some(place(spec.clone()).await?),
            _ => None,
        };
        self.spawn_in(spec, io, placed)
    }

    fn spawn_in(
        &self,
        spec: &Spec,
        io: Io,
        placed: Option<Placed>,
    ) -> Result<Running, SandboxError> {
        let is_host = spec.shared.pid || !self.isolation.has_namespaces();
        let processes = if is_host { Processes::Host } else { Processes::Own };
        let running = self.request(spec, io, |run, fds| self.helper.ask(processes, run, fds))?;
        Ok(Running {
            cleanup: stubs::Cleanup::of(&spec.rootfs),
            seal: Seal::of(spec, self.isolation),
            placed,
            ..running
        })
    }

    /// Makes the sockets and pipes of a program and passes them on with `ask`.
    fn request(
        &self,
        spec: &Spec,
        io: Io,
        ask: impl FnOnce(&Run, &[BorrowedFd<'_>]) -> Result<Arc<Server>, SandboxError>,
    ) -> Result<Running, SandboxError> {
        if (spec.network == Network::Namespace) != io.namespace.is_some() {
            return Err(SandboxError::Setup("no network namespace was given".to_owned()));
        }
        log(spec);
        let (control, theirs) = wire::pair().map_err(SandboxError::host("create socket"))?;
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let spec_file = memory_file(&serde_json::to_vec(spec).map_err(|error| {
            SandboxError::Setup(format!("the specification can't be passed on: {error}"))
        })?)
        .map_err(SandboxError::host("pass on the specification"))?;
        let log = spec.runtime.as_ref().map(|_| memory_file(&[])).transpose();
        let log = log.map_err(SandboxError::host("make a log for the runtime"))?;
        let input = match io.input {
            Input::Null => None,
            Input::Fd(source) => {
                Some(input::isolate(source).map_err(SandboxError::host("pass input on"))?)
            }
        };
        let mut fds = vec![theirs.as_fd(), stdout_end.as_fd(), stderr_end.as_fd()];
        fds.push(spec_file.as_fd());
        fds.extend(io.namespace.as_ref().map(AsFd::as_fd));
        fds.extend(log.as_ref().map(AsFd::as_fd));
        fds.extend(io.gate.as_ref().map(AsFd::as_fd));
        fds.extend(input.as_ref().map(AsFd::as_fd));
        let run = Run {
            anchor: self.anchor.clone(),
            is_gated: io.gate.is_some(),
            isolation: self.isolation,
        };
        let server = ask(&run, &fds)?;
        let control = sys::watch(control).map_err(SandboxError::host("watch socket"))?;
        Ok(Running {
            server,
            control: Arc::new(control),
            connected: true,
            stdout: Some(stdout),
            stderr: Some(stderr),
            sink: io.output,
            terminal: None,
            state: State::SettingUp,
            made: stubs::CreatedStubs::default(),
            cleanup: None,
            log: log.map(File::from),
            seal: Seal::default(),
            placed: None,
        })
    }
}

/// A starter of programs in the namespaces of a running one. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Joiner {
    sandbox: Sandbox,
    /// The control socket of the first program. The joiner doesn't keep that program alive.
    control: Weak<AsyncFd<OwnedFd>>,
    server: Arc<Server>,
}

impl Joiner {
    /// Starts a program. Returns when it is about to be executed. Of the specification, only the
    /// process, the confinement and the control groups matter.
    ///
    /// The kernel kills the program when the first one ends.
    ///
    /// # Errors
    /// Fails if the first program has ended, or if the program can't be found.
    pub async fn start(&self, spec: &Spec, io: Io) -> Result<Running, SandboxError> {
        let ended = || SandboxError::Setup("the container's first program has ended".to_owned());
        let control = self.control.upgrade().ok_or_else(ended)?;
        let spec = Spec {
            network: Network::Host,
            mounts: Vec::new(),
            kept: Vec::new(),
            sysctls: Vec::new(),
            ..spec.clone()
        };
        let io = Io { namespace: None, ..io };
        let running = self.sandbox.request(&spec, io, |run, fds| {
            wire::send(control.get_ref(), &Request::Join(run.clone()), fds).map_err(|_| ended())?;
            Ok(Arc::clone(&self.server))
        })?;
        running.begun().await
    }
}

/// Places the mounts of a program in its tree.
async fn place(spec: Spec) -> Result<Placed, SandboxError> {
    blocking(move || Placed::place(&spec)).await
}

/// Runs `work` on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SandboxError> + Send + 'static,
) -> Result<T, SandboxError> {
    let result = tokio::task::spawn_blocking(work).await;
    result.map_err(|error| SandboxError::host("work on a tree")(io::Error::other(error)))?
}

/// Logs the program and its mounts, but no file contents.
fn log(spec: &Spec) {
    let process = &spec.process;
    tracing::debug!(args = ?process.args, user = ?process.user, cwd = ?process.cwd, network = ?spec.network, "running a program");
    for mount in &spec.mounts {
        let kind = match &mount.kind {
            MountKind::Bind { readonly: true, .. } => "bind, read-only",
            MountKind::Bind { .. } => "bind",
            MountKind::Tmpfs { .. } => "tmpfs",
            MountKind::Device(_) => "device",
            MountKind::File { .. } => "file",
        };
        tracing::debug!(target_path = %mount.target.display(), kind, "mount");
    }
}

/// Returns a file in memory with this content, at its beginning.
pub(super) fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = rustix::fs::memfd_create("kiln", rustix::fs::MemfdFlags::CLOEXEC)?;
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file.into())
}

fn output_pipe() -> Result<(Receiver, OwnedFd), SandboxError> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)
        .map_err(|errno| SandboxError::host("create pipe")(errno.into()))?;
    let receiver = Receiver::from_owned_fd(read).map_err(SandboxError::host("watch pipe"))?;
    Ok((receiver, write))
}

/// The progress of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    SettingUp,
    Running,
    Failed(wire::Failure),
    Exited(Exit),
}

/// A program in its sandbox. Dropping the value kills the program without waiting for it.
pub struct Running {
    /// The helper, which lives as long as a program holds a reference.
    server: Arc<Server>,
    control: Arc<AsyncFd<OwnedFd>>,
    connected: bool,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    sink: OutputSink,
    terminal: Option<OwnedFd>,
    state: State,
    made: stubs::CreatedStubs,
    cleanup: Option<stubs::Cleanup>,
    /// The error log of a runtime.
    log: Option<File>,
    seal: Seal,
    /// The mounts in the tree, if the program can't have its own.
    placed: Option<Placed>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("state", &self.state).finish_non_exhaustive()
    }
}

/// A sender of signals to a running program.
#[derive(Clone, Debug)]
pub struct Signaller {
    control: Arc<AsyncFd<OwnedFd>>,
}

impl Signaller {
    /// Sends a signal. As process 1 of its namespace, the program receives only signals that it has
    /// a handler for, and SIGKILL and SIGSTOP.
    pub fn send(&self, signal: i32) {
        // The program may have ended already.
        let _ = wire::send(self.control.get_ref(), &Request::Signal(signal), &[]);
    }
}

impl Running {
    /// Returns kiln's end of the terminal, if the specification has one, on the first call.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Returns a sender of signals to the program.
    pub fn signaller(&self) -> Signaller {
        Signaller { control: Arc::clone(&self.control) }
    }

    /// Takes the reading end of the program's standard output. The sink then receives nothing of
    /// it. Returns `None` if the stream has been taken or closed.
    pub fn take_stdout(&mut self) -> Option<Receiver> {
        self.stdout.take()
    }

    /// Takes the reading end of the program's standard error: see [`Self::take_stdout`].
    pub fn take_stderr(&mut self) -> Option<Receiver> {
        self.stderr.take()
    }

    /// Waits until the program is about to be executed.
    async fn begun(mut self) -> Result<Self, SandboxError> {
        while self.state == State::SettingUp {
            self.next_report().await?;
        }
        if let State::Failed(_) = self.state {
            let failed = self.wait(&CancellationToken::new()).await.err();
            let unknown = || SandboxError::Setup("the sandbox could not be set up".to_owned());
            return Err(failed.unwrap_or_else(unknown));
        }
        Ok(self)
    }

    /// Forwards the program's output until it has ended; see [`Sandbox::run`].
    ///
    /// # Errors
    /// Fails if the program could not be executed, was cancelled, or if its helper died.
    pub async fn wait(mut self, cancel: &CancellationToken) -> Result<Exit, SandboxError> {
        self.end(cancel).await
    }

    async fn end(&mut self, cancel: &CancellationToken) -> Result<Exit, SandboxError> {
        let mut cancelled = false;
        let (mut out, mut err) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
        while self.connected {
            tokio::select! {
                biased;
                () = cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    self.signaller().send(libc::SIGKILL);
                }
                () = read(&mut self.stdout, &mut out) => self.output(OutputStream::Stdout, &out),
                () = read(&mut self.stderr, &mut err) => self.output(OutputStream::Stderr, &err),
                report = receive(&self.control), if self.connected => self.note(report?),
            }
        }
        self.take_rest(&mut out).await;
        let outcome = match std::mem::replace(&mut self.state, State::SettingUp) {
            State::Exited(exit) => match &self.log {
                Some(log) if !exit.success() => oci::failure(&read_log(log)).map_or(Ok(exit), Err),
                _ => Ok(exit),
            },
            State::Failed(failure) => match failure.code {
                Some(code) => Err(SandboxError::Exec { message: failure.message, code }),
                None => Err(SandboxError::Setup(failure.message)),
            },
            State::SettingUp | State::Running => Err(killed()),
        };
        if let Some(placed) = self.placed.take() {
            blocking(|| placed.undo()).await?;
        }
        if let Some(cleanup) = &self.cleanup {
            cleanup.remove(&self.made)?;
        }
        if cancelled { Err(SandboxError::Cancelled) } else { outcome }
    }

    /// Waits until the program's processes are gone, then reads the last output. Doesn't wait for
    /// processes outside of the sandbox that also hold a pipe.
    async fn take_rest(&mut self, buffer: &mut Vec<u8>) {
        if matches!(self.state, State::SettingUp | State::Running) {
            // Without a final report, the helper has died.
            self.server.end().await;
        }
        for stream in [OutputStream::Stdout, OutputStream::Stderr] {
            let pipe = match stream {
                OutputStream::Stdout => self.stdout.take(),
                OutputStream::Stderr => self.stderr.take(),
            };
            let mut left = MAX_PIPE;
            while let Some(pipe) = &pipe
                && left > 0
            {
                buffer.resize(CHUNK, 0);
                let read = rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut buffer[..]));
                let Ok(length @ 1..) = read else { break };
                left = left.saturating_sub(length);
                if (self.sink)(stream, &buffer[..length]).is_break() {
                    break;
                }
            }
        }
    }

    async fn next_report(&mut self) -> Result<(), SandboxError> {
        let report = receive(&self.control).await?;
        self.note(report);
        if !self.connected && self.state == State::SettingUp {
            self.server.end().await;
            return Err(killed());
        }
        Ok(())
    }

    fn note(&mut self, report: Option<(Report, Vec<OwnedFd>)>) {
        match report {
            None => self.connected = false,
            Some((Report::Terminal, fds)) => self.terminal = fds.into_iter().next(),
            Some((Report::Ready(made), fds)) => {
                self.made = made;
                self.seal.receive(fds);
                self.state = State::Running;
            }
            Some((Report::Failed(failure), _)) => self.state = State::Failed(failure),
            // This is the final report. A failed child exits as well.
            Some((Report::Exited(exit), _)) => {
                self.connected = false;
                if !matches!(self.state, State::Failed(_)) {
                    self.state = State::Exited(exit);
                }
            }
        }
    }

    fn output(&mut self, stream: OutputStream, bytes: &[u8]) {
        if bytes.is_empty() || (self.sink)(stream, bytes).is_continue() {
            return;
        }
        match stream {
            OutputStream::Stdout => self.stdout = None,
            OutputStream::Stderr => self.stderr = None,
        }
    }
}

/// Returns the error of a program whose helper died before it.
fn killed() -> SandboxError {
    let message = "the sandbox's helper was killed, by hand or for want of memory, and all that it ran with it";
    SandboxError::Setup(message.to_owned())
}

/// Returns the content of a runtime's log.
fn read_log(log: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; MAX_LOG];
    let length = log.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Reads from a pipe and drops it at its end. Never returns without a pipe.
async fn read<R: AsyncRead + Unpin>(pipe: &mut Option<R>, buffer: &mut Vec<u8>) {
    let Some(reader) = pipe else { return std::future::pending().await };
    buffer.clear();
    // The read fills the buffer's spare capacity, which needs no initialisation.
    let length = reader.read_buf(buffer).await.unwrap_or(0);
    if length == 0 {
        *pipe = None;
    }
}

async fn receive(
    control: &AsyncFd<OwnedFd>,
) -> Result<Option<(Report, Vec<OwnedFd>)>, SandboxError> {
    control
        .async_io(tokio::io::Interest::READABLE, |socket| wire::receive(socket))
        .await
        .map_err(SandboxError::host("hear from the sandbox"))
}
