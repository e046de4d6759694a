//! The end of a server: by a signal, by a second one, and by idleness.

use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRequest;
use bollard_buildkit_proto::moby::buildkit::v1::frontend::{PingRequest, SolveRequest as Bridged};
use rustix::process::Signal;
use tokio::net::UnixStream;
use tonic::Code;

use crate::client::{Client, Offer, control, of_build, unpack};
use crate::graph::Graph;
use crate::life::active;
use crate::scenarios::own_frontend;
use crate::target::{Served, World, exporting, solving};

/// Waits until the server has a number of builds.
async fn wait_for_builds(served: &Served, count: usize) {
    let channel = served.connect().await;
    while active(&channel).await < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Checks that the server accepts no connections within two seconds.
async fn assert_closed(served: &Served) {
    let start = Instant::now();
    while UnixStream::connect(served.socket()).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(2), "the server accepts connections");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A signal lets builds end, those of clients' own frontends too. New builds are refused, and clients
/// that only listen keep nothing up.
pub(crate) async fn a_signal_lets_builds_end(world: &World) {
    let served = Served::start(&[]);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let slow = Graph::scratch().copy(&base.run("sleep 3; echo done > /out").root(), "/out", "/");
    let listening = served.connect().await;
    let _events = control(&listening).listen_build_history(BuildHistoryRequest::default()).await;
    let idle = Client::new(served.connect().await, Offer::default()).await;
    let build = async {
        let client = Client::new(served.connect().await, Offer::default()).await;
        client.solve(exporting(&slow, "tar", &[])).await.0.unwrap();
        unpack(&client.received(0).archive)["out"].clone()
    };
    let frontend = async {
        let client = Client::new(served.connect().await, Offer::default()).await;
        let driven = own_frontend(&client, async |build, mut bridge| {
            for _ in 0..6 {
                bridge.ping(of_build(build, PingRequest {})).await?;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            let graph = Graph::scratch().mkfile("/late", "file");
            let definition = Some(graph.definition());
            let request = Bridged { definition, evaluate: true, ..Bridged::default() };
            bridge.solve(of_build(build, request)).await
        });
        driven.await.unwrap();
    };
    let ending = async {
        wait_for_builds(&served, 2).await;
        served.signal(Signal::TERM);
        assert_closed(&served).await;
        let refused = idle.solve(solving(&Graph::scratch().mkfile("/a", "b"))).await.0.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    };
    let (out, (), ()) = tokio::join!(build, frontend, ending);
    assert_eq!(out, "file 644 0:0 done\n");
    let start = Instant::now();
    assert_eq!(served.wait(), Some(0));
    assert!(start.elapsed() < Duration::from_secs(8), "clients that listen keep the server up");
}

/// A second signal doesn't wait for builds. Their programs end with the server, and the store is whole.
pub(crate) async fn a_second_signal_ends_builds(world: &World) {
    let served = Served::start(&[]);
    let kiln = std::sync::Arc::clone(&served.kiln);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let client = Client::new(served.connect().await, Offer::default()).await;
    let endless = solving(&base.run("sleep 4711").root());
    let build = client.solve(endless);
    let ending = async {
        wait_for_builds(&served, 1).await;
        kiln_testkit::peers::wait_until("the program runs", || is_running("4711"));
        served.signal(Signal::TERM);
        assert_closed(&served).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(is_running("4711"), "the first signal waits");
        let start = Instant::now();
        served.signal(Signal::TERM);
        assert_eq!(served.wait(), Some(0));
        assert!(start.elapsed() < Duration::from_secs(5), "the second signal waits");
    };
    let ((solved, _), ()) = tokio::join!(build, ending);
    assert!(solved.is_err());
    kiln_testkit::peers::wait_until("the program ends", || !is_running("4711"));
    kiln.run(&["system", "check"]).success();
}

/// Returns `true` if a process has an argument.
fn is_running(argument: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let commands = processes.map(|it| std::fs::read(it.path().join("cmdline")).unwrap_or_default());
    let has =
        |command: Vec<u8>| command.split(|byte| *byte == 0).any(|it| it == argument.as_bytes());
    commands.into_iter().any(has)
}

/// A server ends when it has had nothing to do for a while: neither a connection nor a build.
pub(crate) async fn an_idle_server_ends(_: &World) {
    let served = Served::start(&["--idle-exit", "1500ms"]);
    let client = Client::new(served.connect().await, Offer::default()).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    client.solve(solving(&Graph::scratch().mkfile("/a", "b"))).await.0.unwrap();
    drop(client);
    served.wait_for_message("nothing to do: kiln ends");
    let socket = served.socket();
    assert_eq!(served.wait(), Some(0));
    assert!(!socket.exists());
}
