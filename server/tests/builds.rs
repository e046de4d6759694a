//! Builds of clients, through a socket as clients have it.

#![allow(clippy::disallowed_methods, reason = "tests open the files that they create")]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

use std::collections::HashMap;
use std::path::Path;

use bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::llb_bridge_client::LlbBridgeClient;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    self as bridge, PingRequest, ReadDirRequest, ReadFileRequest, ResolveSourceMetaRequest,
    ReturnRequest, StatFileRequest, result,
};
use bollard_buildkit_proto::moby::buildkit::v1::sourcepolicy::{
    Policy, PolicyAction, Rule, Selector, Update,
};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRequest, DiskUsageRequest, Exporter, InfoRequest, ListWorkersRequest, PruneRequest,
    SolveRequest, StatusRequest, UpdateBuildHistoryRequest,
};
use bollard_buildkit_proto::pb;
use hyper_util::rt::TokioIo;
use kiln_llb::op::{FileAction, FileActionKind, FileOp, MkFileAction, OpKind, SourceOp};
use kiln_llb::{Node, OpMetadata};
use kiln_server::{Options, Server};
use kiln_testkit::{Answer, FileServer};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request};

/// A server with a store of its own, and a connection to it. Dropping it ends both.
struct Served {
    channel: Channel,
    stop: CancellationToken,
    server: JoinSet<()>,
    _directory: tempfile::TempDir,
}

impl Served {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let server = Server::new(Options {
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Options::new(kiln::Options::new(directory.path().join("store")))
        });
        let (server, stop) = (server.unwrap(), CancellationToken::new());
        let socket = directory.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut tasks = JoinSet::new();
        let stopped = stop.clone();
        tasks.spawn(async move {
            server.serve(listener, async move { stopped.cancelled().await }).await.unwrap();
        });
        let channel = connect(&socket).await;
        Self { channel, stop, server: tasks, _directory: directory }
    }

    fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel.clone())
    }

    fn bridge(&self) -> LlbBridgeClient<Channel> {
        LlbBridgeClient::new(self.channel.clone())
    }

    /// Ends the server, which waits for what is going on.
    async fn end(mut self) {
        self.stop.cancel();
        drop(self.channel);
        self.server.join_next().await.unwrap().unwrap();
    }
}

async fn connect(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { Ok::<_, std::io::Error>(TokioIo::new(UnixStream::connect(socket).await?)) }
    });
    let endpoint = Endpoint::from_static("http://localhost");
    endpoint.connect_with_connector(connector).await.unwrap()
}

/// Returns a graph that makes a file.
fn file(path: &str, text: &str) -> pb::Definition {
    let action = MkFileAction {
        path: path.to_owned(),
        mode: 0o644,
        data: text.as_bytes().to_vec(),
        owner: None,
        timestamp: -1,
    };
    let action = FileAction {
        input: None,
        secondary_input: None,
        output: Some(0),
        kind: FileActionKind::MkFile(action),
    };
    let op = OpKind::File(FileOp { actions: vec![action] });
    Node::new(op, Vec::new(), None, OpMetadata::default()).output(0).marshal().to_pb()
}

fn solve(reference: &str) -> SolveRequest {
    SolveRequest { r#ref: reference.to_owned(), ..SolveRequest::default() }
}

/// Returns a request that belongs to a build.
fn of_build<T>(reference: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let name: MetadataValue<_> = reference.parse().unwrap();
    request.metadata_mut().insert("buildkit-controlapi-buildid", name);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_says_what_it_is() {
    let served = Served::new().await;
    let info = served.control().info(InfoRequest {}).await.unwrap().into_inner();
    let version = info.buildkit_version.unwrap();
    assert!(version.version.starts_with("v0.") && version.revision.contains("kiln"), "{version:?}");
    let workers = served.control().list_workers(ListWorkersRequest::default()).await.unwrap();
    let [worker] = workers.into_inner().record.try_into().unwrap();
    assert_eq!(worker.labels["a"], "b");
    assert_eq!(worker.platforms[0].os, "linux");
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graph_is_solved_recorded_and_forgotten() {
    let served = Served::new().await;
    let mut control = served.control();
    let request = SolveRequest { definition: Some(file("/a", "text")), ..solve("one") };
    control.solve(request.clone()).await.unwrap();
    let mut status = control.status(StatusRequest { r#ref: "one".to_owned() }).await.unwrap();
    let mut completed = 0;
    while let Some(message) = status.get_mut().message().await.unwrap() {
        completed += message.vertexes.iter().filter(|vertex| vertex.completed.is_some()).count();
    }
    assert_eq!(completed, 1);
    // The second time, the result is in the cache.
    control.solve(SolveRequest { r#ref: "two".to_owned(), ..request }).await.unwrap();
    let listen = BuildHistoryRequest { early_exit: true, ..BuildHistoryRequest::default() };
    let mut listed = control.listen_build_history(listen).await.unwrap();
    let mut cached = HashMap::new();
    while let Some(event) = listed.get_mut().message().await.unwrap() {
        let record = event.record.unwrap();
        cached.insert(record.r#ref, record.num_cached_steps);
    }
    assert_eq!(cached, [("one".to_owned(), 0), ("two".to_owned(), 1)].into());
    for reference in ["one", "two"] {
        let delete = UpdateBuildHistoryRequest {
            r#ref: reference.to_owned(),
            delete: true,
            ..UpdateBuildHistoryRequest::default()
        };
        control.update_build_history(delete).await.unwrap();
    }
    let used = control.disk_usage(DiskUsageRequest::default()).await.unwrap().into_inner();
    assert!(!used.record.is_empty() && used.record.iter().all(|part| !part.in_use));
    let prune = PruneRequest { all: true, ..PruneRequest::default() };
    let mut pruned = control.prune(prune).await.unwrap();
    while pruned.get_mut().message().await.unwrap().is_some() {}
    let used = control.disk_usage(DiskUsageRequest::default()).await.unwrap().into_inner();
    assert_eq!(used.record, []);
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_brings_its_own_frontend() {
    let served = Served::new().await;
    let mut bridge = served.bridge();
    let mut control = served.control();
    let mut build = JoinSet::new();
    build.spawn(async move { control.solve(solve("own")).await });
    // The call may come before the build has begun.
    let pong = bridge.ping(of_build("own", PingRequest {})).await.unwrap().into_inner();
    assert!(pong.llb_caps.iter().any(|cap| cap.id == "file.base" && cap.enabled));
    let request = bridge::SolveRequest {
        definition: Some(file("/d", "text")),
        allow_result_return: true,
        allow_result_array_ref: true,
        ..bridge::SolveRequest::default()
    };
    let solved = bridge.solve(of_build("own", request)).await.unwrap().into_inner();
    let solved = solved.result.unwrap();
    let Some(result::Result::Ref(reference)) = &solved.result else { unreachable!() };
    let id = reference.id.clone();
    let request =
        ReadFileRequest { r#ref: id.clone(), file_path: "/d".to_owned(), ..Default::default() };
    let read = bridge.read_file(of_build("own", request)).await.unwrap().into_inner();
    assert_eq!(read.data, b"text");
    let request =
        StatFileRequest { r#ref: id.clone(), path: "/d".to_owned(), ..Default::default() };
    let stat = bridge.stat_file(of_build("own", request)).await.unwrap().into_inner().stat.unwrap();
    assert_eq!((stat.mode, stat.size), (0o644, 4));
    let request =
        ReadDirRequest { r#ref: id.clone(), dir_path: "/".to_owned(), ..Default::default() };
    let list = bridge.read_dir(of_build("own", request)).await.unwrap().into_inner().entries;
    assert_eq!(list.iter().map(|entry| entry.path.as_str()).collect::<Vec<_>>(), ["d"]);
    let request =
        ReadFileRequest { r#ref: id, file_path: "/missing".to_owned(), ..Default::default() };
    let missing = bridge.read_file(of_build("own", request)).await.unwrap_err();
    assert!(missing.message().contains("no such file or directory"), "{missing}");
    let returned = ReturnRequest { result: Some(solved), error: None };
    bridge.r#return(of_build("own", returned.clone())).await.unwrap();
    build.join_next().await.unwrap().unwrap().unwrap();
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_refused() {
    let served = Served::new().await;
    let (mut bridge, mut control) = (served.bridge(), served.control());
    let unnamed = bridge.ping(PingRequest {}).await.unwrap_err();
    assert!(unnamed.message().contains("no buildid"), "{unnamed}");
    let unknown = bridge.ping(of_build("none", PingRequest {})).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let unknown = control.status(StatusRequest { r#ref: "none".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let graph = pb::Definition { def: vec![b"no op".to_vec()], ..pb::Definition::default() };
    let request = SolveRequest { definition: Some(graph), ..solve("broken") };
    assert!(control.solve(request).await.is_err());
    let exporter = Exporter { r#type: "teleport".to_owned(), attrs: HashMap::new() };
    let request = SolveRequest {
        definition: Some(file("/a", "")),
        exporters: vec![exporter],
        ..solve("elsewhere")
    };
    let refused = control.solve(request).await.unwrap_err();
    assert!(refused.message().contains("teleport"), "{refused}");
    let request = SolveRequest {
        definition: Some(file("/a", "")),
        entitlements: vec!["security.insecure".to_owned()],
        ..solve("insecure")
    };
    let refused = control.solve(request).await.unwrap_err();
    assert!(refused.message().contains("security.insecure"), "{refused}");
    // None of it has harmed the server.
    let request = SolveRequest { definition: Some(file("/a", "")), ..solve("right") };
    control.solve(request).await.unwrap();
    served.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_stops_its_build() {
    let served = Served::new().await;
    let (mut bridge, mut control) = (served.bridge(), served.control());
    let mut build = JoinSet::new();
    build.spawn(async move { control.solve(solve("gone")).await });
    bridge.ping(of_build("gone", PingRequest {})).await.unwrap();
    build.shutdown().await;
    let listen = BuildHistoryRequest { active_only: true, ..BuildHistoryRequest::default() };
    let listen = BuildHistoryRequest { early_exit: true, ..listen };
    for attempt in 0.. {
        let mut active = served.control().listen_build_history(listen.clone()).await.unwrap();
        if active.get_mut().message().await.unwrap().is_none() {
            break;
        }
        assert!(attempt < 100, "the build goes on");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    served.end().await;
}

/// Returns a graph that copies a file from a URL, with a name of its own.
fn download(url: &str) -> pb::Definition {
    let attrs = [("http.filename".to_owned(), "f".to_owned())].into();
    let source = OpKind::Source(SourceOp { identifier: url.to_owned(), attrs });
    Node::new(source, Vec::new(), None, OpMetadata::default()).output(0).marshal().to_pb()
}

fn rule(action: PolicyAction, from: &str, to: &str) -> Rule {
    let selector = Selector { identifier: from.to_owned(), ..Selector::default() };
    let updates =
        (!to.is_empty()).then(|| Update { identifier: to.to_owned(), ..Update::default() });
    Rule { action: action.into(), selector: Some(selector), updates }
}

#[tokio::test(flavor = "multi_thread")]
async fn source_policies_refuse_and_replace_sources() {
    let (served, files) = (Served::new().await, FileServer::start());
    files.put("/a", Answer::of("a"));
    files.put("/b", Answer::of("b"));
    let (a, b) = (files.url("/a"), files.url("/b"));
    let convert = rule(PolicyAction::Convert, &a, &b);
    let policy = |rules: &[Rule]| Policy { version: 1, rules: rules.to_vec() };
    let mut control = served.control();
    let mut build = JoinSet::new();
    let request = SolveRequest { source_policy: Some(policy(&[convert])), ..solve("own") };
    build.spawn(async move { control.solve(request).await });
    let mut bridge = served.bridge();
    let request = |rules: &[Rule]| bridge::SolveRequest {
        definition: Some(download(&a)),
        allow_result_return: true,
        allow_result_array_ref: true,
        evaluate: true,
        source_policies: vec![policy(rules)],
        ..bridge::SolveRequest::default()
    };
    // The client's rule comes first: the frontend's rule is for the source that it leaves.
    let solve_with = |rule: Rule| of_build("own", request(&[rule]));
    let solved = bridge.solve(solve_with(rule(PolicyAction::Deny, &a, ""))).await.unwrap();
    let Some(result::Result::Ref(reference)) = solved.into_inner().result.unwrap().result else {
        unreachable!()
    };
    let file_path = "/f".to_owned();
    let read = ReadFileRequest { r#ref: reference.id, file_path, ..ReadFileRequest::default() };
    let read = bridge.read_file(of_build("own", read)).await.unwrap();
    assert_eq!(read.into_inner().data, b"b");
    let refused = bridge.solve(solve_with(rule(PolicyAction::Deny, &b, ""))).await.unwrap_err();
    assert!(refused.message().contains("denied by policy"), "{refused}");
    let source = pb::SourceOp { identifier: a.clone(), ..pb::SourceOp::default() };
    let request = ResolveSourceMetaRequest { source: Some(source), ..Default::default() };
    let found = bridge.resolve_source_meta(of_build("own", request.clone())).await.unwrap();
    let found = found.into_inner();
    assert_eq!(found.source.unwrap().identifier, b);
    assert_eq!(found.http.unwrap().checksum, kiln_oci::Digest::of(b"b").to_string());
    let refusing = policy(&[rule(PolicyAction::Deny, "*", "")]);
    let request = ResolveSourceMetaRequest { source_policies: vec![refusing], ..request };
    let refused = bridge.resolve_source_meta(of_build("own", request)).await.unwrap_err();
    assert!(refused.message().contains("could not resolve image due to policy"), "{refused}");
    assert!(files.take_requests().iter().all(|request| request.path != "/a"));
    build.shutdown().await;
    let loops = policy(&[rule(PolicyAction::Convert, "*", "${1}x")]);
    let request = SolveRequest {
        definition: Some(download(&a)),
        source_policy: Some(loops),
        ..solve("loop")
    };
    let refused = served.control().solve(request).await.unwrap_err();
    assert!(refused.message().contains("too many mutations"), "{refused}");
    served.end().await;
}
