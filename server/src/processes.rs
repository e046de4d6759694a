//! `ExecProcess`: the streams, signals and ends of programs in containers.
//!
//! One stream of messages serves any number of programs, each by an ID that the client chooses. The
//! server answers each with Started, then sends the output of the streams that the client has asked
//! for, an end for each of them, Exit and at last Done.
//!
//! A program's output is read only as fast as the client takes it. All programs of a stream are
//! killed when the client drops it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::google::rpc;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    DoneMessage, ExecMessage, ExitMessage, FdMessage, InitMessage, ResizeMessage, StartedMessage,
};
use futures_util::stream::{BoxStream, StreamExt as _, unfold};
use kiln_worker::{
    Error as WorkerError, ExecProcess, Exit, ProcessInput, SandboxError, Signaller, signal_number,
};
use rustix::termios::{Winsize, tcsetwinsize};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::unix::pipe::{self, Receiver, Sender};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Code, Status, Streaming};

use crate::containers::Program;
use crate::errors::{detail, of_error, to_message, with_details};
use crate::jobs::{Job, canceled};

/// The answers of a call.
pub(crate) type Answers = BoxStream<'static, Result<ExecMessage, Status>>;

/// The code of a program whose exit status is unknown.
const UNKNOWN: u32 = 255;

/// The number of messages that wait for a slow client, or for a program that doesn't read.
const WAITING: usize = 16;

/// The number of bytes of one message.
const CHUNK: usize = 32 << 10;

/// The time in which the last output of a terminal arrives after its program has ended, if other
/// programs hold it open.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// The standard streams by their numbers.
const STDIN: u32 = 0;
const STDOUT: u32 = 1;
const STDERR: u32 = 2;

/// Serves a stream of messages.
pub(crate) fn serve(
    job: Arc<Job>,
    incoming: Streaming<ExecMessage>,
    tasks: &TaskTracker,
) -> Answers {
    let (sender, receiver) = mpsc::channel(WAITING);
    let call = Call { job, answers: sender, programs: HashMap::new(), running: JoinSet::new() };
    tasks.spawn(call.run(incoming));
    let next = |mut receiver: mpsc::Receiver<_>| async { Some((receiver.recv().await?, receiver)) };
    unfold(receiver, next).boxed()
}

/// A call with its programs.
struct Call {
    job: Arc<Job>,
    answers: mpsc::Sender<Result<ExecMessage, Status>>,
    programs: HashMap<String, Handle>,
    /// The tasks of the programs, which are killed with the set.
    running: JoinSet<()>,
}

/// The inputs of a program.
struct Handle {
    fds: Vec<u32>,
    /// The receiver of standard input; `None` after its end.
    input: Option<mpsc::Sender<Vec<u8>>>,
    /// The terminal, if the program has one.
    terminal: Option<OwnedFd>,
    /// `None` for a program that couldn't be started.
    signaller: Option<Signaller>,
}

impl Call {
    /// Runs the call until the client has ended its messages and all programs have ended, or until
    /// the client is gone.
    async fn run(mut self, mut incoming: Streaming<ExecMessage>) {
        let answers = self.answers.clone();
        let cancel = self.job.cancel.clone();
        let work = async {
            loop {
                let message = match incoming.message().await {
                    Ok(Some(message)) => message,
                    Ok(None) => break,
                    // The client is gone.
                    Err(_) => return Ok(()),
                };
                self.take(message).await?;
            }
            // Programs see the end of their input.
            self.programs.clear();
            while self.running.join_next().await.is_some() {}
            Ok(())
        };
        let ended = tokio::select! {
            ended = work => ended,
            () = answers.closed() => Ok(()),
            () = cancel.cancelled() => Err(canceled()),
        };
        if let Err(status) = ended {
            let _ = answers.send(Err(status)).await;
        }
    }

    /// Executes a message.
    async fn take(&mut self, message: ExecMessage) -> Result<(), Status> {
        let id = message.process_id;
        if id.is_empty() {
            return Err(Status::invalid_argument("ProcessID required"));
        }
        if let Some(Input::Init(init)) = message.input {
            return self.start(id, init).await;
        }
        let unknown = || Status::not_found(format!("IO for process {id:?} not found"));
        let handle = self.programs.get_mut(&id).ok_or_else(unknown)?;
        match message.input {
            Some(Input::File(file)) => handle.write(file).await,
            Some(Input::Resize(size)) => {
                handle.resize(size);
                Ok(())
            }
            Some(Input::Signal(signal)) => {
                let number = signal_number(&signal.name).ok_or_else(|| {
                    Status::invalid_argument(format!("Unknown signal {}", signal.name))
                })?;
                if let Some(signaller) = &handle.signaller {
                    signaller.send(number);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn start(&mut self, id: String, message: InitMessage) -> Result<(), Status> {
        if self.programs.contains_key(&id) {
            return Err(Status::already_exists(format!("Process {id} already exists")));
        }
        let container = self.job.containers.find(&message.container_id).ok_or_else(|| {
            let name = &message.container_id;
            Status::not_found(format!("container {name:?} previously released or not created"))
        })?;
        let program = container.program();
        let (fds, has_terminal) = (message.fds.clone(), message.tty);
        let (mut input, mut source) = (None, ProcessInput::Null);
        if fds.contains(&STDIN) && !has_terminal {
            let (writer, reader) = pipe::pipe().map_err(|error| of_error(&error))?;
            let reader = reader.into_blocking_fd().map_err(|error| of_error(&error))?;
            source = ProcessInput::Fd(reader);
            input = Some(writer);
        }
        let started = program.start(message, source).await;
        let (writing, written) = mpsc::channel(WAITING);
        let mut handle =
            Handle { fds: fds.clone(), input: Some(writing), terminal: None, signaller: None };
        let output = Output { id: id.clone(), fds, answers: self.answers.clone() };
        let task = match started {
            Err(error) => Task { output, program, end: Err(error), ends: Vec::new() },
            Ok(mut process) => {
                handle.signaller = Some(process.signaller());
                let mut ends = Vec::new();
                if let Some(writer) = input {
                    self.running.spawn(feed(written, writer));
                } else if let Some(terminal) = process.take_terminal() {
                    let duplicate = || terminal.try_clone().map_err(|error| of_error(&error));
                    handle.terminal = Some(duplicate()?);
                    type_into(written, duplicate()?);
                    ends.push(End::Terminal(terminal));
                }
                ends.extend(process.take_stdout().map(|pipe| End::Pipe(STDOUT, pipe)));
                ends.extend(process.take_stderr().map(|pipe| End::Pipe(STDERR, pipe)));
                Task { output, program, end: Ok(process), ends }
            }
        };
        self.programs.insert(id.clone(), handle);
        self.answers
            .send(Ok(task.output.message(Input::Started(StartedMessage {}))))
            .await
            .map_err(|_| canceled())?;
        self.running.spawn(task.run());
        Ok(())
    }
}

impl Handle {
    /// Passes input on. Input after the end of the program is dropped.
    async fn write(&mut self, file: FdMessage) -> Result<(), Status> {
        if file.fd != STDIN || !self.fds.contains(&STDIN) {
            return Err(Status::out_of_range(format!("fd {} unavailable to write", file.fd)));
        }
        if let Some(input) = &self.input {
            // The number of pieces that wait is limited, and so their size has to be.
            for piece in file.data.chunks(CHUNK) {
                let _ = input.send(piece.to_vec()).await;
            }
        }
        if file.eof {
            self.input = None;
        }
        Ok(())
    }

    fn resize(&self, size: ResizeMessage) {
        let Some(terminal) = &self.terminal else { return };
        let limit = |number: u32| u16::try_from(number).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: limit(size.rows),
            ws_col: limit(size.cols),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // The program may have ended.
        let _ = tcsetwinsize(terminal, size);
    }
}

/// Writes a client's input to a program's pipe. The pipe closes at the end.
async fn feed(mut from: mpsc::Receiver<Vec<u8>>, mut to: Sender) {
    while let Some(bytes) = from.recv().await {
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// Writes a client's input to a terminal, on a thread of its own.
fn type_into(mut from: mpsc::Receiver<Vec<u8>>, terminal: OwnedFd) {
    tokio::task::spawn_blocking(move || {
        let mut terminal = File::from(terminal);
        while let Some(bytes) = from.blocking_recv() {
            if terminal.write_all(&bytes).is_err() {
                return;
            }
        }
    });
}

/// The reading end of a program's output.
enum End {
    Pipe(u32, Receiver),
    Terminal(OwnedFd),
}

/// The sender of a program's messages.
#[derive(Clone)]
struct Output {
    id: String,
    /// The streams that the client wants.
    fds: Vec<u32>,
    answers: mpsc::Sender<Result<ExecMessage, Status>>,
}

impl Output {
    fn message(&self, input: Input) -> ExecMessage {
        ExecMessage { process_id: self.id.clone(), input: Some(input) }
    }

    /// Sends a message. Fails if the client is gone.
    async fn send(&self, input: Input) -> Result<(), ()> {
        self.answers.send(Ok(self.message(input))).await.map_err(drop)
    }

    /// Sends output, if the client wants it.
    async fn bytes(&self, fd: u32, data: &[u8]) -> Result<(), ()> {
        if data.is_empty() || !self.fds.contains(&fd) {
            return Ok(());
        }
        self.send(Input::File(FdMessage { fd, eof: false, data: data.to_vec() })).await
    }

    /// Forwards a stream until its end. After the end of the program, only what is there already.
    async fn forward(self, end: End, is_over: CancellationToken) {
        match end {
            End::Pipe(fd, pipe) => drop(self.forward_pipe(fd, &pipe, &is_over).await),
            End::Terminal(terminal) => {
                let this = self.clone();
                let done = tokio::task::spawn_blocking(move || this.forward_terminal(terminal));
                tokio::select! {
                    _ = done => {}
                    () = async { is_over.cancelled().await; tokio::time::sleep(LAST_OUTPUT).await } => {}
                }
            }
        }
    }

    async fn forward_pipe(
        &self,
        fd: u32,
        pipe: &Receiver,
        is_over: &CancellationToken,
    ) -> Result<(), ()> {
        let mut buffer = vec![0; CHUNK];
        loop {
            match pipe.try_read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => self.bytes(fd, &buffer[..length]).await?,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                    tokio::select! {
                        biased;
                        ready = pipe.readable() => ready.map_err(drop)?,
                        // Other processes may hold the pipe.
                        () = is_over.cancelled() => return Ok(()),
                    }
                }
                Err(_) => return Ok(()),
            }
        }
    }

    fn forward_terminal(&self, terminal: OwnedFd) {
        let mut terminal = File::from(terminal);
        let mut buffer = vec![0; CHUNK];
        // The kernel reports an error when the last process has closed the terminal.
        while let Ok(length @ 1..) = terminal.read(&mut buffer) {
            if !self.fds.contains(&STDOUT) {
                continue;
            }
            let file = FdMessage { fd: STDOUT, eof: false, data: buffer[..length].to_vec() };
            if self.answers.blocking_send(Ok(self.message(Input::File(file)))).is_err() {
                return;
            }
        }
    }
}

/// A program from its start to its end.
struct Task {
    output: Output,
    program: Program,
    /// The running program, or the reason why it couldn't be started.
    end: Result<ExecProcess, WorkerError>,
    ends: Vec<End>,
}

impl Task {
    async fn run(self) {
        let Self { output, program, end, ends } = self;
        let is_over = CancellationToken::new();
        let forward = |end| output.clone().forward(end, is_over.clone());
        let mut forwarding: JoinSet<()> = ends.into_iter().map(forward).collect();
        let exit = match end {
            Ok(process) => outcome(process.wait().await),
            Err(WorkerError::Sandbox(error)) => outcome(Err(error)),
            Err(error) => exit_message(UNKNOWN, Some(&of_error(&error))),
        };
        is_over.cancel();
        while forwarding.join_next().await.is_some() {}
        if let Some(error) = &exit.error {
            let (code, message) = (Code::from(error.code), error.message.clone());
            program.fail(with_details(code, message, error.details.clone()));
        }
        drop(program);
        // The client may be gone.
        let _ = output.finish(exit).await;
    }
}

impl Output {
    /// Sends the end of a program.
    async fn finish(&self, exit: ExitMessage) -> Result<(), ()> {
        for fd in self.fds.iter().copied().filter(|fd| *fd != STDIN) {
            self.send(Input::File(FdMessage { fd, eof: true, data: Vec::new() })).await?;
        }
        self.send(Input::Exit(exit)).await?;
        self.send(Input::Done(DoneMessage {})).await
    }
}

/// Returns the message about the end of a program.
fn outcome(ended: Result<Exit, SandboxError>) -> ExitMessage {
    match ended {
        Ok(Exit::Code(0)) => exit_message(0, None),
        Ok(exit) => failed(exit.code(), format!("exit code: {}", exit.code())),
        Err(SandboxError::Exec { message, code }) => {
            failed(code, format!("exit code: {code}: {message}"))
        }
        Err(SandboxError::Cancelled) => exit_message(UNKNOWN, Some(&canceled())),
        Err(error) => exit_message(UNKNOWN, Some(&of_error(&error))),
    }
}

fn failed(code: i32, text: String) -> ExitMessage {
    let details = vec![detail("gatewayapi.ExitMessage", &json!({"Code": code}))];
    let status = with_details(Code::Unknown, text, details);
    exit_message(u32::try_from(code).unwrap_or(UNKNOWN), Some(&status))
}

fn exit_message(code: u32, error: Option<&Status>) -> ExitMessage {
    let error: Option<rpc::Status> = error.map(to_message);
    ExitMessage { code, error }
}
