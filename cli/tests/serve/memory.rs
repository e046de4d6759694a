//! Clients that send much, or read nothing: they cost the server bounded memory.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::{SolveRequest, StatusRequest};
use bytes::Bytes;
use http_body::Frame;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::client::{Client, Offer, control, unique, unpack};
use crate::graph::Graph;
use crate::hostile::{Held, assert_alive};
use crate::target::{Served, World, exporting, solving};

fn status(pid: u32, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() / 1024
}

/// Returns the resident memory of a process in MiB.
pub(crate) fn memory(pid: u32) -> u64 {
    status(pid, "VmRSS:")
}

/// Returns the most memory that a process has had so far, in MiB.
fn most_memory(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

pub(crate) async fn messages_that_are_too_large(_: &World) {
    let served = Served::start(&[]);
    let channel = served.connect().await;
    let before = memory(served.pid());
    let graph = Graph::scratch().mkfile("/a", &"x".repeat(64 << 20));
    let request = SolveRequest { r#ref: unique("huge"), ..solving(&graph) };
    for _ in 0..3 {
        let client = bollard_buildkit_proto::moby::buildkit::v1::control_client::ControlClient::new(
            channel.clone(),
        );
        let sent = client.max_encoding_message_size(usize::MAX).solve(request.clone()).await;
        assert!(sent.is_err());
    }
    assert_alive(&served).await;
    assert!(memory(served.pid()) < before + 100, "{before} MiB and {} MiB", memory(served.pid()));
}

/// A call's body: the begin of a message, and then a pause without an end.
struct Unfinished {
    /// The bytes that are still sent.
    rest: usize,
    header: Option<Bytes>,
    piece: Bytes,
}

impl Unfinished {
    fn new(length: usize, sent: usize) -> Self {
        let mut header = vec![0];
        header.extend(u32::try_from(length).unwrap().to_be_bytes());
        Self { rest: sent, header: Some(header.into()), piece: vec![b'x'; 64 << 10].into() }
    }
}

impl http_body::Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(header) = self.header.take() {
            return Poll::Ready(Some(Ok(Frame::data(header))));
        }
        if self.rest == 0 {
            return Poll::Pending;
        }
        self.rest = self.rest.saturating_sub(self.piece.len());
        Poll::Ready(Some(Ok(Frame::data(self.piece.clone()))))
    }
}

/// Sends a part of a message of 16 MiB, and waits for the answer. Returns its status.
async fn send_part(channel: Channel, method: &str, sent: usize) -> String {
    let request = http::Request::post(format!("http://localhost/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(Body::new(Unfinished::new(16 << 20, sent)))
        .unwrap();
    let mut channel = channel;
    let Ok(ready) = channel.ready().await else { return "closed".to_owned() };
    let Ok(answer) = ready.call(request).await else { return "closed".to_owned() };
    let status = answer.headers().get("grpc-status");
    status.map_or_else(String::new, |status| status.to_str().unwrap().to_owned())
}

/// A thousand messages of 16 MiB, all but their ends: the server refuses most of them, and goes on with
/// the small ones of others.
pub(crate) async fn large_messages_cost_bounded_memory(_: &World) {
    const METHODS: [&str; 3] = [
        "moby.buildkit.v1.Control/Solve",
        "moby.buildkit.v1.frontend.LLBBridge/Solve",
        "moby.buildkit.v1.Control/Prune",
    ];
    let served = Served::start(&[]);
    assert_alive(&served).await;
    let before = Held::of(&served);
    let (finished, mut answers) = tokio::sync::mpsc::unbounded_channel();
    let mut calls = tokio::task::JoinSet::new();
    let mut channels = Vec::new();
    for _ in 0..10 {
        channels.push(served.connect().await);
    }
    for number in 0..1000 {
        let (channel, finished) = (channels[number % 10].clone(), finished.clone());
        calls.spawn(async move {
            let method = METHODS[number % METHODS.len()];
            let _ = finished.send(send_part(channel, method, (16 << 20) - 1).await);
            std::future::pending::<()>().await;
        });
        if number == 500 {
            assert_alive(&served).await;
        }
    }
    // Those that the server waits for get no answer: 128 MiB are 8 messages, and parts of others.
    let mut refused = 0;
    while refused < 900 {
        let answer = tokio::time::timeout(Duration::from_secs(30), answers.recv());
        let answer = answer.await.expect("most calls are refused").unwrap();
        refused += usize::from(answer == "8");
    }
    assert_alive(&served).await;
    let most = most_memory(served.pid());
    println!("1000 messages of 16 MiB: {most} MiB");
    assert!(most < 600, "{most} MiB");
    calls.shutdown().await;
    drop(channels);
    before.assert_regained(&served).await;
    // The budget is there again.
    let text = "x".repeat(12 << 20);
    let client = Client::new(served.connect().await, Offer::default()).await;
    client.solve(solving(&Graph::scratch().mkfile("/a", &text))).await.0.unwrap();
}

/// Returns the size in bytes of the largest file that a process has open.
fn largest_open_file(pid: u32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let sizes = files.filter_map(|file| std::fs::metadata(file.path()).ok());
    sizes.filter(std::fs::Metadata::is_file).map(|file| file.len()).max().unwrap_or_default()
}

/// An archive for a client that doesn't read it waits on the disk.
pub(crate) async fn a_slow_reader_costs_disk(world: &World) {
    const SIZE: u64 = 150;
    let served = Served::start(&[]);
    assert_alive(&served).await;
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    // The first step starts what later steps share.
    let client = Client::new(served.connect().await, Offer::default()).await;
    client.solve(solving(&base.run("true").root())).await.0.unwrap();
    drop(client);
    let step = base.run(&format!("dd if=/dev/urandom of=/big bs=1M count={SIZE} 2>/dev/null"));
    let graph = Graph::scratch().copy(&step.root(), "/big", "/");
    let (held, before) = (Held::of(&served), memory(served.pid()));
    let offer = Offer { is_stalled: true, ..Offer::default() };
    let client = Client::new(served.connect().await, offer).await;
    let mut build = Box::pin(client.solve(exporting(&graph, "tar", &[])));
    let start = Instant::now();
    while largest_open_file(served.pid()) < SIZE << 20 {
        assert!(start.elapsed() < Duration::from_secs(50), "there is no archive");
        let pause = tokio::time::timeout(Duration::from_millis(200), &mut build);
        assert!(pause.await.is_err(), "the client hasn't read the archive");
    }
    let pause = tokio::time::timeout(Duration::from_secs(2), &mut build);
    assert!(pause.await.is_err(), "the client hasn't read the archive");
    let most = most_memory(served.pid());
    println!("a slow reader: {before} MiB before, {most} MiB");
    assert!(most < before + 64, "{before} MiB before, {most} MiB");
    drop(build);
    drop(client);
    held.assert_regained(&served).await;
}

/// A large file of a client's directory, and many small ones, pass through the server's memory in parts.
pub(crate) async fn directories_pass_in_parts(world: &World) {
    let size = 128 << 20;
    let served = Served::start(&[]);
    assert_alive(&served).await;
    let files = world.directory("large", &[("big/file", &"0123456789abcdef".repeat(size / 16))]);
    for number in 0..5000 {
        let path = files.join(format!("small/{}/{number}", number % 50));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, number.to_string()).unwrap();
    }
    let before = memory(served.pid());
    let offer = Offer::default().directory("context", &files);
    let client = Client::new(served.connect().await, offer).await;
    let context = Graph::source("local://context", &[]);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let script = "wc -c < /m/big/file > /out; find /m/small -type f | wc -l >> /out";
    let step = base.run(script).bind(&context, "/m", |mount| mount.readonly = true);
    let start = Instant::now();
    client
        .solve(exporting(&Graph::scratch().copy(&step.root(), "/out", "/"), "tar", &[]))
        .await
        .0
        .unwrap();
    let most = most_memory(served.pid());
    println!("128 MiB and 5000 files: {:?}, {before} MiB before, {most} MiB", start.elapsed());
    let received = unpack(&client.received(0).archive);
    assert_eq!(received["out"], format!("file 644 0:0 {size}\n5000\n"));
    assert!(most < before + 100, "{before} MiB before, {most} MiB");
}

/// A client that never reads the progress or the archive costs disk, and no memory.
pub(crate) async fn readers_that_never_read(world: &World) {
    let served = Served::start(&[]);
    assert_alive(&served).await;
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let before = memory(served.pid());
    let script = "dd if=/dev/zero bs=1M count=48 2>/dev/null | tr '\\0' 'x' | fold -w 100";
    let channel = served.connect().await;
    let request = SolveRequest { r#ref: unique("loud"), ..solving(&base.run(script).root()) };
    let status = StatusRequest { r#ref: request.r#ref.clone() };
    let (mut solver, mut watcher) = (control(&channel), control(&channel));
    let (solved, unread) = tokio::join!(solver.solve(request), watcher.status(status));
    solved.unwrap();
    let after = memory(served.pid());
    assert!(after < before + 64, "{before} MiB and {after} MiB");
    drop(unread);
    assert_alive(&served).await;
}
