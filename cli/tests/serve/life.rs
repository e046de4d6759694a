//! Clients that disappear, many clients at once, and clients that build the same thing.

use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use bollard_buildkit_proto::moby::buildkit::v1::BuildHistoryRequest;
use bollard_buildkit_proto::pb::CacheSharingOpt;
use futures_util::future::join_all;
use kiln_testkit::damage::Random;
use tonic::Status;
use tonic::transport::Channel;

use crate::client::{Client, Offer, control, unique, unpack};
use crate::graph::Graph;
use crate::hostile::Held;
use crate::memory::memory;
use crate::target::{Served, World, connect, exporting};

/// The environment variable that makes this program a client: a socket, an image, a directory, and
/// the seconds after which it ends.
const CLIENT: &str = "KILN_TEST_SERVE_CLIENT";

/// The environment variable with the seconds of [`many_clients_at_once`].
const SECONDS: &str = "KILN_TEST_SERVE_SECONDS";

/// Builds until the time is over if the environment asks this process for it. Returns `true` then.
pub(crate) async fn be_a_client() -> bool {
    let Ok(order) = std::env::var(CLIENT) else { return false };
    let [socket, image, files, seconds] = order.split('|').collect::<Vec<_>>().try_into().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    while Instant::now() < end {
        let channel = connect(std::path::Path::new(socket), false).await;
        build(channel, image, files).await.unwrap();
    }
    true
}

/// Builds with a directory, a cache, a secret, a program that takes a while, and an archive.
async fn build(channel: Channel, image: &str, files: &str) -> Result<(), Status> {
    let offer = Offer::default().directory("context", files).secret("s", "secret");
    let client = Client::new(channel, offer).await;
    let base = Graph::source(&format!("docker-image://{image}"), &[]);
    let context = Graph::source("local://context", &[]);
    let script = format!("echo {}; cp -r /m /copied; sleep 0.1; echo x >> /c/x", unique("word"));
    let step = base.run(&script).bind(&context, "/m", |mount| mount.readonly = true);
    let step = step.cache("shared", CacheSharingOpt::Shared, "/c").secret("s", "/s", false);
    let graph = Graph::scratch().copy(&step.root(), "/copied", "/");
    client.solve(exporting(&graph, "oci", &[])).await.0.map(|_| ())
}

/// Returns the number of builds that are under way.
pub(crate) async fn active(channel: &Channel) -> usize {
    let request = BuildHistoryRequest { active_only: true, early_exit: true, ..Default::default() };
    let mut events = control(channel).listen_build_history(request).await.unwrap().into_inner();
    let mut count = 0;
    while events.message().await.unwrap().is_some() {
        count += 1;
    }
    count
}

fn process(served: &Served, world: &World, files: &str, seconds: u64) -> Child {
    let (socket, image) = (served.socket(), world.image("base:latest"));
    let order = format!("{}|{image}|{files}|{seconds}", socket.display());
    let mut command = Command::new("/proc/self/exe");
    command.arg0("client").env(CLIENT, order).spawn().unwrap()
}

/// A client that is killed at any time: its build ends within a second, and leaves nothing.
pub(crate) async fn clients_that_are_killed(world: &World) {
    let served = Served::start(&[]);
    let channel = served.connect().await;
    let files = world.directory("killed", &[("a", "1"), ("b/c", "2")]);
    let files = files.to_str().unwrap();
    build(channel.clone(), &world.image("base:latest"), files).await.unwrap();
    let before = Held::of(&served);
    let mut random = Random::new(7);
    for _ in 0..8 {
        let mut client = process(&served, world, files, 60);
        let wait = u64::from(random.bytes(1)[0]) * 3;
        tokio::time::sleep(Duration::from_millis(wait)).await;
        client.kill().unwrap();
        client.wait().unwrap();
        let start = Instant::now();
        while active(&channel).await > 0 {
            assert!(start.elapsed() < Duration::from_secs(1), "the build goes on");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    before.assert_regained(&served).await;
    build(channel.clone(), &world.image("base:latest"), files).await.unwrap();
}

/// 50 clients, half of which are killed in the middle of a build, again and again. The server keeps
/// nothing of them.
pub(crate) async fn many_clients_at_once(world: &World) {
    let seconds = std::env::var(SECONDS).map_or(8, |seconds| seconds.parse().unwrap());
    let served = Served::start(&[]);
    let files = world.directory("many", &[("a", "1"), ("b/c", "2")]);
    let files = files.to_str().unwrap();
    let channel = served.connect().await;
    build(channel.clone(), &world.image("base:latest"), files).await.unwrap();
    let before = Held::of(&served);
    let honest: Vec<_> = (0..25).map(|_| process(&served, world, files, seconds)).collect();
    let end = Instant::now() + Duration::from_secs(seconds);
    let vanish = async |number: u64| {
        let mut random = Random::new(number);
        while Instant::now() < end {
            let mut client = process(&served, world, files, 3600);
            tokio::time::sleep(Duration::from_millis(u64::from(random.bytes(1)[0]) * 20)).await;
            client.kill().unwrap();
            client.wait().unwrap();
        }
    };
    let early = async {
        tokio::time::sleep(Duration::from_secs((seconds / 3).min(60))).await;
        memory(served.pid())
    };
    let (early, _) = tokio::join!(early, join_all((0..25).map(vanish)));
    for mut client in honest {
        assert!(client.wait().unwrap().success(), "an honest client's build fails");
    }
    let late = memory(served.pid());
    println!("{early} MiB early, {late} MiB after {seconds} s");
    before.assert_regained(&served).await;
    println!("{before:?} before, {:?} after", Held::of(&served));
    assert_eq!(active(&channel).await, 0);
    if seconds >= 300 {
        assert!(late * 10 <= early * 11, "{early} MiB have become {late} MiB");
    }
    drop(channel);
    let kiln = std::sync::Arc::clone(&served.kiln);
    assert_eq!(served.end(), Some(0));
    kiln.run(&["system", "check"]).success();
}

/// Two clients that build the same thing at the same time run each step once.
pub(crate) async fn equal_steps_run_once(world: &World) {
    let served = Served::start(&[]);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let script = "sleep 1; cat /proc/sys/kernel/random/uuid > /out";
    let graph = Graph::scratch().copy(&base.run(script).root(), "/out", "/");
    let result = async || {
        let client = Client::new(served.connect().await, Offer::default()).await;
        client.solve(exporting(&graph, "tar", &[])).await.0.unwrap();
        unpack(&client.received(0).archive)["out"].clone()
    };
    let (one, two, three) = tokio::join!(result(), result(), result());
    assert_eq!((&one, &one), (&two, &three));
}

/// A running step with a client's secret serves no other client.
pub(crate) async fn secrets_serve_their_client_alone(world: &World) {
    let served = Served::start(&[]);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let script = "sleep 1; cat /s > /out";
    let step = base.run(script).secret("id", "/s", false).root();
    let graph = Graph::scratch().copy(&step, "/out", "/");
    let result = async |secret: &str| {
        let offer = Offer::default().secret("id", secret);
        let client = Client::new(served.connect().await, offer).await;
        client.solve(exporting(&graph, "tar", &[])).await.0.unwrap();
        unpack(&client.received(0).archive)["out"].clone()
    };
    let (one, two) = tokio::join!(result("first"), result("second"));
    assert_eq!((one.as_str(), two.as_str()), ("file 644 0:0 first", "file 644 0:0 second"));
}

/// A client whose build another client shares may leave; the other's build goes on.
pub(crate) async fn a_shared_step_outlives_a_client(world: &World) {
    let served = Served::start(&[]);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let graph = base.run("sleep 1; echo done > /out").root();
    let graph = Graph::scratch().copy(&graph, "/out", "/");
    let result = async || {
        let client = Client::new(served.connect().await, Offer::default()).await;
        client.solve(exporting(&graph, "tar", &[])).await.0
    };
    let leaving = tokio::time::timeout(Duration::from_millis(500), result());
    let (left, solved) = tokio::join!(leaving, result());
    assert!(left.is_err());
    solved.unwrap();
}
