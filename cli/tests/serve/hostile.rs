//! Clients that send garbage, or the wrong thing, and that disappear.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use bollard_buildkit_proto::fsutil::types::packet::PacketType;
use bollard_buildkit_proto::fsutil::types::{Packet, Stat};
use bollard_buildkit_proto::moby::buildkit::v1::{
    BuildHistoryRequest, BytesMessage, InfoRequest, SolveRequest,
};
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream;
use kiln_testkit::damage::Random;
use prost::Message as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use tonic::Request;
use tonic::transport::Channel;

use crate::client::{Client, Offer, RawCodec, control, unique, unpack};
use crate::graph::Graph;
use crate::target::{Served, World, exporting, solving};

/// The methods of the server.
const METHODS: [&str; 34] = [
    "moby.buildkit.v1.Control/DiskUsage",
    "moby.buildkit.v1.Control/Prune",
    "moby.buildkit.v1.Control/Solve",
    "moby.buildkit.v1.Control/Status",
    "moby.buildkit.v1.Control/Session",
    "moby.buildkit.v1.Control/ListWorkers",
    "moby.buildkit.v1.Control/Info",
    "moby.buildkit.v1.Control/ListenBuildHistory",
    "moby.buildkit.v1.Control/UpdateBuildHistory",
    "moby.buildkit.v1.frontend.LLBBridge/ResolveImageConfig",
    "moby.buildkit.v1.frontend.LLBBridge/ResolveSourceMeta",
    "moby.buildkit.v1.frontend.LLBBridge/Solve",
    "moby.buildkit.v1.frontend.LLBBridge/ReadFile",
    "moby.buildkit.v1.frontend.LLBBridge/ReadDir",
    "moby.buildkit.v1.frontend.LLBBridge/StatFile",
    "moby.buildkit.v1.frontend.LLBBridge/Evaluate",
    "moby.buildkit.v1.frontend.LLBBridge/Ping",
    "moby.buildkit.v1.frontend.LLBBridge/Return",
    "moby.buildkit.v1.frontend.LLBBridge/Inputs",
    "moby.buildkit.v1.frontend.LLBBridge/NewContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ReleaseContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ExecProcess",
    "moby.buildkit.v1.frontend.LLBBridge/ReadFileContainer",
    "moby.buildkit.v1.frontend.LLBBridge/ReadDirContainer",
    "moby.buildkit.v1.frontend.LLBBridge/StatFileContainer",
    "moby.buildkit.v1.frontend.LLBBridge/Warn",
    "containerd.services.content.v1.Content/Info",
    "containerd.services.content.v1.Content/List",
    "containerd.services.content.v1.Content/Read",
    "containerd.services.content.v1.Content/Write",
    "grpc.health.v1.Health/Check",
    "grpc.health.v1.Health/Watch",
    "grpc.health.v1.Health/List",
    "opentelemetry.proto.collector.trace.v1.TraceService/Export",
];

/// Checks that a server still answers and builds.
pub(crate) async fn assert_alive(served: &Served) {
    let client = Client::new(served.connect().await, Offer::default()).await;
    client.control().info(InfoRequest {}).await.unwrap();
    let graph = Graph::scratch().mkfile("/a", &unique("alive"));
    let alive = tokio::time::timeout(Duration::from_secs(10), client.solve(solving(&graph)));
    alive.await.expect("the server builds in time").0.unwrap();
}

/// Calls a method with the bytes of a message, and waits for a part of the answer.
async fn call(channel: Channel, method: &str, message: Vec<u8>) {
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let mut request = Request::new(stream::iter([Bytes::from(message)]));
    request.metadata_mut().insert("buildkit-controlapi-buildid", "none".parse().unwrap());
    let path = format!("/{method}").parse().unwrap();
    let answered = async {
        let Ok(answers) = grpc.streaming(request, path, RawCodec).await else { return };
        let mut answers = answers.into_inner();
        while let Ok(Some(_)) = answers.message().await {}
    };
    // Streams of events have no end, and an unknown build is waited for.
    let _ = tokio::time::timeout(Duration::from_millis(300), answered).await;
}

/// Returns a message of random fields. It has the form of a protobuf message, so that its fields reach
/// the code behind the decoder.
fn message(random: &mut Random, depth: usize) -> Vec<u8> {
    const TEXTS: [&str; 7] =
        ["", "a", "/", "../x", "local://context", "type==regular", "sha256:00"];
    let mut message = Vec::new();
    for _ in 0..random.bytes(1)[0] % 6 {
        let [number, kind, choice] = random.bytes(3).try_into().unwrap();
        let tag = |wire: u8| (1 + number % 15) << 3 | wire;
        let bytes = match kind % 6 {
            0 => {
                message.extend([tag(0), choice | 0x80, number & 0x7f]);
                continue;
            }
            1 => {
                message.push(tag(1));
                message.extend(random.bytes(8));
                continue;
            }
            2 | 3 if depth > 0 => self::message(random, depth - 1),
            4 => random.bytes(usize::from(choice) % 20),
            _ => TEXTS[usize::from(choice) % TEXTS.len()].as_bytes().to_vec(),
        };
        message.push(tag(2));
        prost::encode_length_delimiter(bytes.len(), &mut message).unwrap();
        message.extend(bytes);
    }
    message
}

pub(crate) async fn garbage_in_every_call(_: &World) {
    let served = Served::start(&[]);
    let channel = served.connect().await;
    let request = exporting(&Graph::scratch().mkdir("/a", true).mkfile("/a/b", "c"), "tar", &[]);
    let seeds = [request.encode_to_vec(), request.definition.unwrap().encode_to_vec()];
    for round in 0..6 {
        let mut random = Random::new(round);
        join_all(METHODS.iter().flat_map(|method| {
            let messages = [
                random.damage(&seeds[0]),
                random.damage(&seeds[1]),
                random.bytes(100),
                message(&mut random, 3),
                message(&mut random, 4),
            ];
            messages.map(|message| call(channel.clone(), method, message))
        }))
        .await;
    }
    let mut random = Random::new(1);
    for _ in 0..20 {
        let mut raw = UnixStream::connect(served.socket()).await.unwrap();
        let _ = raw.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let _ = raw.write_all(&random.bytes(1000)).await;
    }
    assert_alive(&served).await;
    assert!(!served.log().contains("panicked"), "{}", served.log());
}

pub(crate) async fn thousands_of_streams(_: &World) {
    let served = Served::start(&[]);
    assert_alive(&served).await;
    let before = Held::of(&served);
    let mut streams = Vec::new();
    for _ in 0..10 {
        let channel = served.connect().await;
        for _ in 0..200 {
            let mut control = control(&channel);
            streams.push(tokio::spawn(async move {
                let listen = control.listen_build_history(BuildHistoryRequest::default());
                let _events = listen.await;
                std::future::pending::<()>().await;
            }));
        }
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_alive(&served).await;
    streams.iter().for_each(tokio::task::JoinHandle::abort);
    drop(streams);
    before.assert_regained(&served).await;
}

fn stat(path: &str, mode: u32, linkname: &str) -> Packet {
    let (path, linkname) = (path.to_owned(), linkname.to_owned());
    let stat = Stat { path, mode, linkname, ..Stat::default() };
    Packet { stat: Some(stat), ..Packet::default() }
}

/// Returns lists of packets that no honest client sends.
fn scripts() -> Vec<(&'static str, Vec<Packet>)> {
    let data = Packet {
        r#type: PacketType::PacketData.into(),
        id: 77,
        data: b"x".to_vec(),
        ..Packet::default()
    };
    let (directory, link) = (1 << 31 | 0o755, 1 << 27 | 0o777);
    vec![
        ("above the root", vec![stat("../escaped", 0o644, "")]),
        ("absolute", vec![stat("/tmp/escaped", 0o644, "")]),
        ("above through a directory", vec![stat("a", directory, ""), stat("a/../../x", 0o644, "")]),
        ("below a link", vec![stat("l", link, "/tmp"), stat("l/escaped", 0o644, "")]),
        ("hard link to nothing", vec![stat("h", 0o644, "../../../etc/passwd")]),
        ("wrong order", vec![stat("b", 0o644, ""), stat("a", 0o644, "")]),
        ("twice", vec![stat("a", 0o644, ""), stat("a", 0o644, "")]),
        ("without a parent", vec![stat("a/b", 0o644, "")]),
        ("empty", vec![stat("", 0o644, "")]),
        ("unrequested data", vec![data]),
    ]
}

/// Checks that a build with a client's packets fails.
async fn assert_refused(served: &Served, name: &str, mut script: Vec<Packet>) {
    script.push(Packet::default());
    let scripts = [("context".to_owned(), script)].into();
    let offer = Offer { scripts, ..Offer::default() };
    let client = Client::new(served.connect().await, offer).await;
    let graph = Graph::source("local://context", &[("local.unique", name)]);
    let solved = tokio::time::timeout(Duration::from_secs(10), client.solve(solving(&graph)));
    let status = solved.await.expect(name).0.unwrap_err();
    assert!(!status.message().is_empty(), "{name}");
}

pub(crate) async fn packets_that_leave_the_directory(_: &World) {
    let served = Served::start(&[]);
    // These clients never end their streams, and the server waits a second for each.
    join_all(scripts().into_iter().map(|(name, script)| assert_refused(&served, name, script)))
        .await;
    assert!(!Path::new("/tmp/escaped").exists());
    let find = std::process::Command::new("find")
        .arg(served.kiln.path(""))
        .args(["-name", "escaped"])
        .output();
    assert_eq!(find.unwrap().stdout, b"");
    assert_alive(&served).await;
}

/// Secrets come from the session of the build, and a session's ID is the right to use it.
pub(crate) async fn secrets_of_others(world: &World) {
    let served = Served::start(&[]);
    let offer = Offer::default().secret("id", "of the first");
    let first = Client::new(served.connect().await, offer).await;
    let second = Client::new(served.connect().await, Offer::default()).await;
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let step = base.run("cat /s > /out").secret("id", "/s", false).root().uncached();
    let graph = Graph::scratch().copy(&step, "/out", "/");
    let status = second.solve(exporting(&graph, "tar", &[])).await.0.unwrap_err();
    assert!(status.message().contains("not found"), "{status:?}");
    first.solve(exporting(&graph, "tar", &[])).await.0.unwrap();
    assert_eq!(unpack(&first.received(0).archive)["out"], "file 644 0:0 of the first");
}

/// Checks that a build fails whose session sends bytes of no protocol, and ends if there are none.
async fn assert_unusable(channel: &Channel, garbage: Vec<Vec<u8>>) {
    let id = unique("half");
    let messages = stream::iter(garbage.into_iter().map(|data| BytesMessage { data }));
    let mut request = Request::new(messages);
    let metadata = request.metadata_mut();
    metadata.insert("x-docker-expose-session-uuid", id.parse().unwrap());
    metadata.insert(
        "x-docker-expose-session-grpc-method",
        "/moby.filesync.v1.FileSync/DiffCopy".parse().unwrap(),
    );
    let _session = control(channel).session(request).await;
    let graph = Graph::source("local://context", &[]);
    let request = SolveRequest { r#ref: unique("build"), session: id, ..solving(&graph) };
    let mut control = control(channel);
    let solved = tokio::time::timeout(Duration::from_secs(10), control.solve(request));
    assert!(solved.await.expect("an error comes soon").is_err());
}

pub(crate) async fn sessions_that_are_half_open(_: &World) {
    let served = Served::start(&[]);
    let channel = served.connect().await;
    // The server waits some seconds for the return of a session.
    let garbage = [vec![], vec![b"not HTTP/2 at all".to_vec()], vec![vec![0; 100_000]]];
    join_all(garbage.map(|garbage| assert_unusable(&channel, garbage))).await;
    assert_alive(&served).await;
}

/// Counts the open files of a process by name, with sockets and the like under one name each.
fn open_files(pid: u32) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for file in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten() {
        let Ok(name) = std::fs::read_link(file.path()) else { continue };
        let name = name.to_string_lossy();
        let kind = name.split_once(":[").map_or(&*name, |(kind, _)| kind);
        *counts.entry(kind.to_owned()).or_default() += 1;
    }
    counts
}

/// Returns the paths of what is in a directory of directories.
fn names(root: &Path) -> Vec<std::path::PathBuf> {
    let entries = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten();
    entries(root).flat_map(|entry| entries(&entry.path())).map(|entry| entry.path()).collect()
}

/// The system's resources that a server holds.
#[derive(Debug)]
pub(crate) struct Held {
    descriptors: usize,
    threads: usize,
    mounts: usize,
    children: usize,
    leftovers: usize,
}

impl Held {
    pub(crate) fn of(served: &Served) -> Self {
        let process = std::path::PathBuf::from(format!("/proc/{}", served.pid()));
        let count = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
        let root = served.kiln.root();
        let mounts = std::fs::read_to_string(process.join("mountinfo")).unwrap();
        let children = std::fs::read_dir(process.join("task")).unwrap().flatten();
        let children = children.map(|task| {
            let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
            list.split_whitespace().count()
        });
        Self {
            descriptors: count(&process.join("fd")),
            threads: count(&process.join("task")),
            mounts: mounts.lines().filter(|line| line.contains(root.to_str().unwrap())).count(),
            children: children.sum(),
            leftovers: count(&root.join("tmp")),
        }
    }

    /// Waits until the server holds no more than before.
    pub(crate) async fn assert_regained(&self, served: &Served) {
        let start = Instant::now();
        loop {
            let now = Self::of(served);
            // The runtime keeps idle threads for a while.
            let is_regained = now.descriptors <= self.descriptors + 4
                && now.threads <= self.threads + 64
                && now.mounts <= self.mounts
                && now.children <= self.children
                && now.leftovers <= self.leftovers;
            if is_regained {
                return;
            }
            assert!(
                start.elapsed() < Duration::from_secs(15),
                "{self:?} has become {now:?} with {:?} and {:?}",
                open_files(served.pid()),
                names(&served.kiln.root().join("tmp"))
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}
