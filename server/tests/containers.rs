//! A client that runs programs in containers. It requires root and a static busybox at
//! `/bin/busybox`.
//!
//! The sandbox executes the test program itself as its helper, so this test has a `main` of its own.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test without the usual harness, which the lints don't recognise as one"
)]

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::exec_message::Input;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as bridge, ExecMessage, FdMessage, InitMessage, NewContainerRequest, ReadFileRequest,
    ReleaseContainerRequest, ResizeMessage, ReturnRequest, SignalMessage, result,
};
use bollard_buildkit_proto::pb;
use futures_util::stream::unfold;
use hyper_util::rt::TokioIo;
use kiln_llb::op::{FileAction, FileActionKind, FileOp, MkDirAction, MkFileAction, OpKind};
use kiln_llb::{Node, OpMetadata};
use kiln_server::{Options, Server};
use kiln_testkit::{Need, skip};
use libtest_mimic::{Arguments, Trial};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Streaming};

const NAME: &str = "clients_run_programs_in_containers";

fn main() {
    kiln::init();
    let trial = Trial::test(NAME, || {
        if !skip(NAME, &[Need::Root]) {
            tokio::runtime::Runtime::new()?.block_on(clients_run_programs_in_containers());
        }
        Ok(())
    });
    libtest_mimic::run(&Arguments::from_args(), vec![trial]).exit();
}

/// Returns a request that belongs to the build.
fn of_build<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let name = MetadataValue::from_static("own");
    request.metadata_mut().insert("buildkit-controlapi-buildid", name);
    request
}

/// Returns a graph with a shell and other programs.
fn root() -> pb::Definition {
    let action = |input, output, kind| FileAction { input, secondary_input: None, output, kind };
    let bin = MkDirAction {
        path: "/bin".to_owned(),
        mode: 0o755,
        make_parents: false,
        owner: None,
        timestamp: -1,
    };
    let file = |name: &str, mode, data| MkFileAction {
        path: name.to_owned(),
        mode,
        data,
        owner: None,
        timestamp: -1,
    };
    let busybox = std::fs::read("/bin/busybox").unwrap();
    let actions = vec![
        action(None, None, FileActionKind::MkDir(bin)),
        action(Some(0), None, FileActionKind::MkFile(file("/bin/sh", 0o755, busybox))),
        action(Some(1), Some(0), FileActionKind::MkFile(file("/in", 0o644, b"text".to_vec()))),
    ];
    let op = OpKind::File(FileOp { actions });
    Node::new(op, Vec::new(), None, OpMetadata::default()).output(0).marshal().to_pb()
}

async fn serve(directory: &std::path::Path, stop: CancellationToken) -> (Channel, JoinSet<()>) {
    let server = Server::new(Options::new(kiln::Options::new(directory.join("store"))));
    let (server, socket) = (server.unwrap(), directory.join("socket"));
    let listener = UnixListener::bind(&socket).unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        server.serve(listener, async move { stop.cancelled().await }).await.unwrap();
    });
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    (endpoint.connect_with_connector(connector).await.unwrap(), tasks)
}

/// A call for programs.
struct Programs {
    sender: mpsc::Sender<ExecMessage>,
    answers: Streaming<ExecMessage>,
}

impl Programs {
    async fn new(bridge: &mut LlbBridgeClient<Channel>) -> Self {
        let (sender, receiver) = mpsc::channel(10);
        let messages = unfold(receiver, |mut receiver: mpsc::Receiver<_>| async {
            Some((receiver.recv().await?, receiver))
        });
        let answers = bridge.exec_process(of_build(messages)).await.unwrap().into_inner();
        Self { sender, answers }
    }

    async fn send(&self, id: &str, input: Input) {
        let message = ExecMessage { process_id: id.to_owned(), input: Some(input) };
        self.sender.send(message).await.unwrap();
    }

    async fn start(&mut self, id: &str, script: &str, tty: bool) {
        let args = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        let init = InitMessage {
            container_id: "c".to_owned(),
            meta: Some(pb::Meta { args, ..pb::Meta::default() }),
            fds: vec![0, 1, 2],
            tty,
            ..InitMessage::default()
        };
        self.send(id, Input::Init(init)).await;
        let started = self.answers.message().await.unwrap().unwrap();
        assert!(matches!(started.input, Some(Input::Started(_))), "{started:?}");
    }

    /// Returns the output of a program and its exit code.
    async fn finish(&mut self, id: &str) -> (String, u32) {
        let (mut output, mut code) = (String::new(), None);
        loop {
            let message = self.answers.message().await.unwrap().unwrap();
            if message.process_id != id {
                continue;
            }
            match message.input.unwrap() {
                Input::File(file) => output.push_str(&String::from_utf8_lossy(&file.data)),
                Input::Exit(exit) => code = Some(exit.code),
                Input::Done(_) => return (output, code.unwrap()),
                other => panic!("{other:?}"),
            }
        }
    }
}

#[expect(clippy::too_many_lines, reason = "one container from its begin to its end")]
async fn clients_run_programs_in_containers() {
    let (directory, stop) = (tempfile::tempdir().unwrap(), CancellationToken::new());
    let (channel, mut tasks) = serve(directory.path(), stop.clone()).await;
    let mut bridge = LlbBridgeClient::new(channel.clone());
    let mut build = JoinSet::new();
    let mut control = ControlClient::new(channel.clone());
    build.spawn(async move {
        let request = SolveRequest { r#ref: "own".to_owned(), ..SolveRequest::default() };
        control.solve(request).await
    });
    let request = bridge::SolveRequest {
        definition: Some(root()),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..bridge::SolveRequest::default()
    };
    let solved = bridge.solve(of_build(request)).await.unwrap().into_inner().result.unwrap();
    let Some(result::Result::Ref(reference)) = &solved.result else { unreachable!() };
    let container = NewContainerRequest {
        container_id: "c".to_owned(),
        hostname: "host1".to_owned(),
        mounts: vec![pb::Mount {
            dest: "/".to_owned(),
            result_id: reference.id.clone(),
            ..pb::Mount::default()
        }],
        ..NewContainerRequest::default()
    };
    bridge.new_container(of_build(container.clone())).await.unwrap();
    let again = bridge.new_container(of_build(container)).await.unwrap_err();
    assert_eq!(again.code(), Code::AlreadyExists);

    let mut programs = Programs::new(&mut bridge).await;
    programs
        .start("first", "trap 'exit 9' HUP; echo new > /made; while :; do sleep 0.1; done", false)
        .await;
    let script =
        "read word; echo $word; cat /in; until test -s /made; do sleep 0.1; done; hostname; exit 3";
    programs.start("second", script, false).await;
    let data = b"word\n".to_vec();
    programs.send("second", Input::File(FdMessage { fd: 0, eof: true, data })).await;
    assert_eq!(programs.finish("second").await, ("word\ntexthost1\n".to_owned(), 3));

    let read = ReadFileRequest {
        r#ref: "c".to_owned(),
        file_path: "/made".to_owned(),
        ..ReadFileRequest::default()
    };
    let read = bridge.read_file_container(of_build(read)).await.unwrap().into_inner();
    assert_eq!(read.data, b"new\n");

    programs.start("third", "read word; stty size", true).await;
    programs.send("third", Input::Resize(ResizeMessage { rows: 40, cols: 80 })).await;
    let data = b"\n".to_vec();
    programs.send("third", Input::File(FdMessage { fd: 0, eof: false, data })).await;
    let (output, code) = programs.finish("third").await;
    assert!(output.contains("40 80") && code == 0, "{output} {code}");

    programs.start("fourth", "sleep 1000", false).await;
    programs.send("first", Input::Signal(SignalMessage { name: "SIGHUP".to_owned() })).await;
    assert_eq!(programs.finish("first").await.1, 9);
    let release = || ReleaseContainerRequest { container_id: "c".to_owned() };
    let released = bridge.release_container(of_build(release())).await.unwrap_err();
    assert_eq!(released.message(), "exit code: 3");
    let unknown = bridge.release_container(of_build(release())).await.unwrap_err();
    assert!(unknown.message().contains("not found"), "{unknown}");
    programs.send("none", Input::Signal(SignalMessage { name: "SIGHUP".to_owned() })).await;
    let unknown = loop {
        match programs.answers.message().await {
            Ok(message) => assert!(message.is_some(), "the call has ended"),
            Err(status) => break status,
        }
    };
    assert_eq!(unknown.code(), Code::NotFound);

    let returned = ReturnRequest { result: Some(solved), error: None };
    bridge.r#return(of_build(returned)).await.unwrap();
    build.join_next().await.unwrap().unwrap().unwrap();
    stop.cancel();
    drop((bridge, channel, programs));
    tasks.join_next().await.unwrap().unwrap();
}
