//! Running programs, seen from kiln.

use std::fmt;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::pipe::{PipeFlags, pipe_with};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;
use tokio_util::sync::CancellationToken;

use super::error::SandboxError;
use super::seal::Seal;
use super::server::{Helper, Processes, Server};
use super::spec::{MountKind, Network, Spec};
use super::wire::{self, Report, Request, Run};
use super::{input, kernel, oci, stubs};
use crate::sys;

/// How much of a runtime's log is read.
const MAX_LOG: usize = 64 << 10;

/// How much output is read at once.
const CHUNK: usize = 64 << 10;

/// The most that a pipe can hold, as the kernel has it by default.
const MAX_PIPE: usize = 1 << 20;

/// How a program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    /// By itself, with a status.
    Code(i32),
    /// By a signal.
    Signal(i32),
}

impl Exit {
    /// Tells whether the program succeeded.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }

    /// Returns the status as shells have it: 128 and the signal's number for signals.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// A program's end, and what is left to be done.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub exit: Exit,
    /// Closes the trees that are kept.
    pub seal: Seal,
}

/// One of the two streams that a program writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Receives what a program writes, as it comes. It breaks where nothing more of the stream can be
/// taken: then the program finds that nobody reads it any more.
pub type OutputSink = Box<dyn FnMut(OutputStream, &[u8]) -> ControlFlow<()> + Send>;

/// Where a program reads from.
#[derive(Debug, Default)]
pub enum Input {
    /// Nothing to read.
    #[default]
    Null,
    /// What comes from this. The program itself doesn't get it, but a pipe.
    Fd(OwnedFd),
}

/// What a program is connected with. Input and output have no meaning where it has a terminal.
pub struct Io {
    /// Where it reads from.
    pub input: Input,
    /// Where its output goes.
    pub output: OutputSink,
    /// The namespace of [`Network::Namespace`].
    pub namespace: Option<OwnedFd>,
    /// The program's side of a [`Gate`], which it waits at.
    pub gate: Option<OwnedFd>,
}

/// Keeps a program from beginning when all else is set up. Dropped unopened, it never begins.
#[derive(Debug)]
pub struct Gate {
    opener: OwnedFd,
}

impl Gate {
    /// Returns a gate, and the program's side of it.
    ///
    /// # Errors
    /// Fails where the process can't have more descriptors.
    pub fn new() -> Result<(Self, OwnedFd), SandboxError> {
        let pipe = pipe_with(PipeFlags::CLOEXEC);
        let (read, opener) =
            pipe.map_err(|errno| SandboxError::host("create pipe")(errno.into()))?;
        Ok((Self { opener }, read))
    }

    /// Lets the program begin.
    pub fn open(self) {
        // A program that is gone already has said why.
        let _ = rustix::io::retry_on_intr(|| rustix::io::write(&self.opener, &[1]));
    }
}

impl Io {
    /// Returns an empty input and an output that goes to `output`.
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

/// Runs programs. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Sandbox {
    anchor: PathBuf,
    helper: Helper,
}

impl Sandbox {
    /// Returns a sandbox that uses `anchor`, an empty directory, to mount on where only the programs'
    /// namespaces see it. Any number of sandboxes may use the same.
    ///
    /// # Errors
    /// Fails where the directory can't be used, and where the process may not make namespaces.
    pub fn new(anchor: &Path) -> Result<Self, SandboxError> {
        Self::with_helper(anchor, Helper::new(anchor))
    }

    /// Returns a sandbox whose programs are started by a helper that may run already: see
    /// [`Sandbox::new`].
    ///
    /// # Errors
    /// As there.
    pub fn with_helper(anchor: &Path, helper: Helper) -> Result<Self, SandboxError> {
        if !rustix::process::geteuid().is_root() {
            return Err(SandboxError::Unsupported(
                "running programs without root privileges is not supported yet",
            ));
        }
        kernel::check()?;
        // Mount points are told by their real path.
        let anchor = anchor.canonicalize().map_err(SandboxError::host("resolve mount point"))?;
        Ok(Self { anchor, helper })
    }

    /// Starts the helper: see [`Helper::start`].
    ///
    /// # Errors
    /// As there.
    pub fn prepare(&self) -> Result<(), SandboxError> {
        self.helper.start()
    }

    /// Runs a program to its end.
    ///
    /// Returns when the program and everything that it started is gone and its output has been
    /// read to the end. On cancellation all of it is killed first.
    ///
    /// # Errors
    /// Fails where the program can't be run or is cancelled; a program that fails is no error.
    pub async fn run(
        &self,
        spec: &Spec,
        io: Io,
        cancel: &CancellationToken,
    ) -> Result<Exit, SandboxError> {
        self.spawn(spec, io)?.wait(cancel).await
    }

    /// Runs a program to its end, whose files are [kept](Spec::kept): see [`Sandbox::run`].
    ///
    /// # Errors
    /// As there.
    pub async fn run_to_keep(
        &self,
        spec: &Spec,
        io: Io,
        cancel: &CancellationToken,
    ) -> Result<Ended, SandboxError> {
        let mut running = self.spawn(spec, io)?;
        let exit = running.end(cancel).await?;
        Ok(Ended { exit, seal: running.seal })
    }

    /// Starts a program and returns when it is about to be executed.
    ///
    /// # Errors
    /// Fails where the sandbox can't be set up, or the program can't be found.
    pub async fn start(&self, spec: &Spec, io: Io) -> Result<Running, SandboxError> {
        let mut running = self.spawn(spec, io)?;
        while running.state == State::SettingUp {
            running.next_report().await?;
        }
        if let State::Failed(_) = running.state {
            return Err(running
                .wait(&CancellationToken::new())
                .await
                .err()
                .unwrap_or(SandboxError::Setup("the sandbox could not be set up".to_owned())));
        }
        Ok(running)
    }

    fn spawn(&self, spec: &Spec, io: Io) -> Result<Running, SandboxError> {
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
        let run = Run { anchor: self.anchor.clone(), is_gated: io.gate.is_some() };
        let processes = if spec.shared.pid { Processes::Host } else { Processes::Own };
        let server = self.helper.ask(processes, &run, &fds)?;
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
            made: stubs::Made::default(),
            cleanup: stubs::Cleanup::of(&spec.rootfs),
            log: log.map(File::from),
            seal: Seal::of(spec),
        })
    }
}

/// Logs what is run, and what is mounted where. What files hold stays untold.
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

fn memory_file(bytes: &[u8]) -> io::Result<OwnedFd> {
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

/// How far a run has come.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    SettingUp,
    Running,
    Failed(wire::Failure),
    Exited(Exit),
}

/// A program in its sandbox. Dropped, it is killed, and not waited for.
pub struct Running {
    /// Ends when nobody needs it any more.
    server: Arc<Server>,
    control: Arc<AsyncFd<OwnedFd>>,
    connected: bool,
    stdout: Option<Receiver>,
    stderr: Option<Receiver>,
    sink: OutputSink,
    terminal: Option<OwnedFd>,
    state: State,
    made: stubs::Made,
    cleanup: Option<stubs::Cleanup>,
    /// What a runtime says of its failures.
    log: Option<File>,
    seal: Seal,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("state", &self.state).finish_non_exhaustive()
    }
}

/// Sends signals to a running program.
#[derive(Clone, Debug)]
pub struct Signaller {
    control: Arc<AsyncFd<OwnedFd>>,
}

impl Signaller {
    /// Sends a signal. As the first process of its namespace, the program gets only those that it
    /// has a handler for, and SIGKILL and SIGSTOP.
    pub fn send(&self, signal: i32) {
        // A program that has ended needs no signal any more.
        let _ = wire::send(self.control.get_ref(), &Request::Signal(signal), &[]);
    }
}

impl Running {
    /// Returns the terminal's other side, where the specification asks for a terminal; once.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.terminal.take()
    }

    /// Returns what sends signals to the program.
    pub fn signaller(&self) -> Signaller {
        Signaller { control: Arc::clone(&self.control) }
    }

    /// Passes on what the program writes until it has ended; see [`Sandbox::run`].
    ///
    /// # Errors
    /// Fails where the program could not be executed, was cancelled, or its helper died.
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
        if let Some(cleanup) = &self.cleanup {
            cleanup.remove(&self.made)?;
        }
        if cancelled { Err(SandboxError::Cancelled) } else { outcome }
    }

    /// Sees to it that nothing of the program is left, and takes what it has written last. A pipe that
    /// something outside of the sandbox has, too, is left to that.
    async fn take_rest(&mut self, buffer: &mut Vec<u8>) {
        if matches!(self.state, State::SettingUp | State::Running) {
            // Without a last word the helper has died.
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
            // The last word. What failed exits as well.
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

/// Returns the error of a program whose helper hasn't seen its end.
fn killed() -> SandboxError {
    let message = "the sandbox's helper was killed, by hand or for want of memory, and all that it ran with it";
    SandboxError::Setup(message.to_owned())
}

/// Reads what a runtime has written into its log.
fn read_log(log: &File) -> String {
    use std::os::unix::fs::FileExt;
    let mut bytes = vec![0; MAX_LOG];
    let length = log.read_at(&mut bytes, 0).unwrap_or(0);
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}

/// Reads from a pipe, for ever where there is none, and takes it away at its end.
async fn read<R: AsyncRead + Unpin>(pipe: &mut Option<R>, buffer: &mut Vec<u8>) {
    let Some(reader) = pipe else { return std::future::pending().await };
    buffer.clear();
    // Into what the buffer has room for: that much was never written, and need not be.
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
