//! Frontends that are programs of images (`gateway.v0`).
//!
//! The program runs in a container of the build. It speaks the same `LLBBridge` as a client with a
//! frontend of its own, but over its standard input and output, as HTTP/2 without TLS. Its calls
//! belong to its build by the connection. The build goes on with the program's result once the
//! program has ended. Lines on its standard error go to the progress.
//!
//! The containers that the program makes end with it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bollard_buildkit_proto::health::health_server::HealthServer;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_server::LlbBridgeServer;
use bollard_buildkit_proto::pb;
use futures_util::stream::{StreamExt as _, once, pending};
use kiln::build::{GraphRequest, Step};
use kiln_event::{EventSender, LogStream};
use kiln_llb::op::{Mount, MountKind, NetMode, OpKind, SourceOp};
use kiln_oci::error::chain;
use kiln_oci::text::parse_bool;
use kiln_worker::{
    Error as WorkerError, ExecContainer, ExecContainerRequest, ExecProcess, ExecProcessRequest,
    Exit, ProcessInput, ProvidedFile, SandboxError,
};
use prost::Message as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::net::unix::pipe::{self, Receiver, Sender};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;
use tonic::transport::Server as Transport;
use tonic::transport::server::Connected;

use crate::bridge::Bridge;
use crate::errors::of_error;
use crate::frontend::{self, Call, ProgramImage};
use crate::health::Healthy;
use crate::jobs::{Job, Returned, canceled};
use crate::origins;
use crate::references::{FrontendResult, Reference};
use crate::server::{Host, LARGEST};
use crate::workers;

/// The labels of images: the capabilities of the frontend, and whether it has no network.
const CAPABILITIES: &str = "moby.buildkit.frontend.caps";
const NO_NETWORK: &str = "moby.buildkit.frontend.network.none";

/// The capability that a call with inputs requires.
const INPUTS: &str = "moby.buildkit.frontend.inputs";

/// The file with the graph that the frontend comes from.
const METADATA: &str = "/run/config/buildkit/metadata/frontend.bin";

/// The program of an image that names none.
const PROGRAM: &str = "/run";

/// The time in which a program ends after it has closed its standard output.
const END: Duration = Duration::from_secs(10);

/// The time in which the last lines arrive after the program has ended.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The number of bytes that are read from standard error at a time.
const CHUNK: usize = 32 << 10;

/// The number of bytes of standard error that an error may quote.
const QUOTED: usize = 2048;

/// A running frontend, as its calls know it.
#[derive(Debug)]
pub(crate) struct Caller {
    /// The build.
    pub(crate) job: Arc<Job>,
    /// The graphs that stand for contexts.
    pub(crate) inputs: HashMap<String, pb::Definition>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    returned: Option<Returned>,
    /// The graphs that the frontend has asked for.
    asked: Vec<Arc<Reference>>,
    /// The IDs of its containers.
    containers: Vec<String>,
}

impl Caller {
    fn new(job: &Arc<Job>, call: Call<'_>) -> Self {
        let state = Mutex::default();
        Self { job: Arc::clone(job), inputs: call.inputs.clone(), state }
    }

    /// Sets the frontend's result.
    ///
    /// # Errors
    /// Fails if it is set already.
    pub(crate) fn end(&self, returned: Returned) -> Result<(), Status> {
        let mut state = self.lock();
        if state.returned.is_some() {
            return Err(Status::unknown("gateway result is already set"));
        }
        state.returned = Some(returned);
        Ok(())
    }

    /// Notes that the frontend has asked for graphs.
    pub(crate) fn note_graphs(&self, result: &FrontendResult) {
        self.lock().asked.extend(result.references().cloned());
    }

    /// Notes that the frontend has made a container.
    pub(crate) fn note_container(&self, id: String) {
        self.lock().containers.push(id);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the frontend of an image.
///
/// # Errors
/// Fails if the image can't be had, if it lacks a required capability, or if the program fails.
pub(crate) async fn call(
    host: &Arc<Host>,
    job: &Arc<Job>,
    image: &str,
    call: Call<'_>,
) -> Result<FrontendResult, Status> {
    let program = ProgramImage::find(job, image, call)?;
    let announced = program.config.labels.get(CAPABILITIES).map_or("", String::as_str);
    let inputs = if call.inputs.is_empty() { "" } else { INPUTS };
    let required = format!("{},{inputs}", call.option("frontend.caps").unwrap_or_default());
    if let Some(missing) = frontend::missing(&required, announced) {
        return Err(missing);
    }
    let caller = Arc::new(Caller::new(job, call));
    let bridge = Bridge { host: Arc::clone(host), caller: Some(Arc::clone(&caller)) };
    let process = process(host, job, &program, call);
    let run = |events| run(bridge, job, &program, process, events);
    let ended = Box::pin(job.status.follow(None, run)).await;
    let (returned, containers) = {
        let mut state = caller.lock();
        (state.returned.take(), std::mem::take(&mut state.containers))
    };
    for id in containers {
        // The frontend may have released it, and the failures of its programs are its own.
        let _ = job.containers.release(&id).await;
    }
    let explain = |problem: String| Status::unknown(format!("frontend {image} {problem}"));
    let result = match (returned, ended) {
        (Some(Err(status)), _) | (_, Err(End::Status(status))) => return Err(status),
        (_, Err(End::Failed(problem))) => return Err(explain(problem)),
        (None, Ok(())) => return Err(explain("returned no result".to_owned())),
        (Some(Ok(result)), Ok(())) => result,
    };
    job.note_call(request(job, call, &program, &caller)?, &result);
    Ok(result)
}

/// The end of a program that has failed.
enum End {
    /// The program's own failure.
    Failed(String),
    /// Another failure.
    Status(Status),
}

/// Returns the request for the provenance of the images, with the frontend's image, and the sources
/// that the frontend has asked for.
fn request(
    job: &Job,
    call: Call<'_>,
    program: &ProgramImage,
    caller: &Caller,
) -> Result<GraphRequest, Status> {
    let (mut locals, mut sources) = (BTreeSet::new(), Vec::<SourceOp>::new());
    let own = job.add(program.definition.clone())?;
    for reference in own.iter().chain(&caller.lock().asked) {
        for vertex in reference.graph().vertices() {
            let Some(OpKind::Source(op)) = &vertex.op.kind else { continue };
            match op.identifier.strip_prefix("local://") {
                Some(name) => drop(locals.insert(name.to_owned())),
                None if sources.contains(op) => {}
                None => sources.push(op.clone()),
            }
        }
    }
    let options: BTreeMap<String, String> = call.options.clone().into_iter().collect();
    Ok(GraphRequest {
        frontend: call.name.to_owned(),
        options,
        locals: locals.into_iter().collect(),
        sources,
        inputs: origins::of_inputs(job, call.inputs),
        root: origins::of_client(job),
    })
}

/// Returns the program of an image, without its standard input.
fn process(host: &Host, job: &Job, program: &ProgramImage, call: Call<'_>) -> ExecProcessRequest {
    let config = &program.config;
    let mut env = config.env.clone();
    let options = call.options.iter().enumerate();
    env.extend(options.map(|(n, (name, it))| format!("BUILDKIT_FRONTEND_OPT_{n}={name}={it}")));
    let session = job.session.as_ref().map_or("", |session| session.id());
    env.push(format!("BUILDKIT_SESSION_ID={session}"));
    env.push(format!("BUILDKIT_WORKERS={}", workers::to_json(host, &workers::record(host))));
    env.push("BUILDKIT_EXPORTEDPRODUCT=".to_owned());
    ExecProcessRequest {
        args: config.entrypoint.clone().unwrap_or_else(|| vec![PROGRAM.to_owned()]),
        env,
        cwd: config.working_dir.clone(),
        ..ExecProcessRequest::default()
    }
}

/// Makes the container of a frontend.
async fn container(job: &Job, program: &ProgramImage) -> Result<ExecContainer, Status> {
    let slot = job.add(program.definition.clone())?;
    let files = slot.ok_or_else(|| Status::internal("the frontend has no files"))?;
    let root = Mount { input: Some(0), ..Mount::new("/", MountKind::Bind) };
    let label = program.config.labels.get(NO_NETWORK);
    let has_none = label.and_then(|text| parse_bool(text)).unwrap_or_default();
    let request = ExecContainerRequest {
        files: vec![ProvidedFile {
            path: METADATA.to_owned(),
            contents: program.definition.encode_to_vec(),
        }],
        network: if has_none { NetMode::None } else { NetMode::Unset },
        ..ExecContainerRequest::new(vec![root], vec![job.solve(&files).await?])
    };
    let made = Box::pin(job.build().container(request)).await;
    made.map_err(|error| of_error(error.as_ref()))
}

/// Runs a program until it ends.
async fn run(
    bridge: Bridge,
    job: &Job,
    program: &ProgramImage,
    mut request: ExecProcessRequest,
    events: EventSender,
) -> Result<(), End> {
    let failed = |error: io::Error| End::Status(of_error(&error));
    let container = container(job, program).await.map_err(End::Status)?;
    let (writer, reader) = pipe::pipe().map_err(failed)?;
    request.input = ProcessInput::Fd(reader.into_blocking_fd().map_err(failed)?);
    let name = request.args.join(" ");
    let started = container.start(request).await;
    let mut process = started.map_err(|error| match error {
        WorkerError::Sandbox(SandboxError::Cancelled) => End::Status(canceled()),
        error => End::Failed(format!("cannot be started: {}", chain(&error))),
    })?;
    let (Some(reader), Some(errors)) = (process.take_stdout(), process.take_stderr()) else {
        return Err(End::Status(Status::internal("the frontend has no output")));
    };
    let cancel = job.cancel.clone();
    let mut log = Log { name, events: &events, cancel, step: None, last: Vec::new() };
    let exit = attend(process, serve(bridge, reader, writer), log.forward(errors)).await;
    let exit = exit.map_err(|problem| match problem {
        None => End::Failed("has closed its connection unexpectedly".to_owned()),
        Some(SandboxError::Cancelled) => End::Status(canceled()),
        Some(error) => End::Status(of_error(&error)),
    })?;
    log.end(exit)
}

/// Waits for the end of a program while its calls are served and its lines are forwarded. The error
/// `None` stands for a program that has closed its connection and goes on.
async fn attend(
    process: ExecProcess,
    serving: impl Future<Output = ()>,
    forward: impl Future<Output = ()>,
) -> Result<Exit, Option<SandboxError>> {
    let served = async {
        serving.await;
        tokio::time::sleep(END).await;
    };
    let ended = async {
        tokio::select! {
            exit = process.wait() => exit.map_err(Some),
            () = served => Err(None),
        }
    };
    tokio::pin!(forward, ended);
    tokio::select! {
        exit = &mut ended => {
            // Other processes may hold the pipe.
            let _ = tokio::time::timeout(LAST_LINES, forward).await;
            exit
        }
        () = &mut forward => ended.await,
    }
}

/// Serves the calls of a frontend until it closes its connection.
async fn serve(bridge: Bridge, reader: Receiver, writer: Sender) {
    let closed = CancellationToken::new();
    let stream = Stdio { reader, writer, _closed: closed.clone().drop_guard() };
    let incoming = once(async { Ok::<_, io::Error>(stream) }).chain(pending());
    let bridge = LlbBridgeServer::new(bridge);
    let serving = Transport::builder()
        .add_service(bridge.max_decoding_message_size(LARGEST).max_encoding_message_size(LARGEST))
        .add_service(HealthServer::new(Healthy))
        .serve_with_incoming(incoming);
    tokio::select! {
        served = serving => {
            if let Err(error) = served {
                tracing::warn!(%error, "cannot serve a frontend");
            }
        }
        () = closed.cancelled() => {}
    }
}

/// The output of a program as input, and its input as output.
struct Stdio {
    reader: Receiver,
    writer: Sender,
    _closed: DropGuard,
}

impl Connected for Stdio {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Stdio {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(context, buffer)
    }
}

impl AsyncWrite for Stdio {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(context)
    }
}

/// The standard error of a program as output of a step, which begins with the first line.
struct Log<'a> {
    name: String,
    events: &'a EventSender,
    cancel: CancellationToken,
    step: Option<Step<'a>>,
    /// The last bytes.
    last: Vec<u8>,
}

impl Log<'_> {
    async fn forward(&mut self, mut errors: Receiver) {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = errors.read(&mut buffer).await {
            let bytes = &buffer[..length];
            let begin = || Step::begin(self.events, format!("[frontend] {}", self.name));
            let step = self.step.get_or_insert_with(begin);
            step.reporter(&self.cancel).log(LogStream::Stderr, bytes.to_vec());
            self.last.extend_from_slice(bytes);
            let start = self.last.len().saturating_sub(QUOTED);
            self.last.drain(..start);
        }
    }

    /// Ends the step.
    ///
    /// # Errors
    /// Fails if the program has failed.
    fn end(self, exit: Exit) -> Result<(), End> {
        let problem = (!exit.success()).then(|| failure(exit, &self.last));
        let result = problem.map_or(Ok(()), Err);
        let result = match self.step {
            Some(step) => step.end(result),
            None => result,
        };
        result.map_err(End::Failed)
    }
}

/// Returns the description of a failed program, with the last line of its standard error.
fn failure(exit: Exit, last: &[u8]) -> String {
    let text = String::from_utf8_lossy(last);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty());
    let code = format!("did not complete successfully: exit code: {}", exit.code());
    line.map_or_else(|| code.clone(), |line| format!("{code}: {line}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_quote_the_last_line() {
        let code = "did not complete successfully: exit code: 3";
        assert_eq!(failure(Exit::Code(3), b""), code);
        assert_eq!(failure(Exit::Code(3), b"one\ntwo\n\n"), format!("{code}: two"));
    }
}
