//! Limits of a server: builds and steps at once, and the size of its cache.

use std::sync::Arc;
use std::time::Duration;

use bollard_buildkit_proto::moby::buildkit::v1::DiskUsageRequest;
use bollard_buildkit_proto::pb::CacheSharingOpt;

use crate::client::{Client, Offer, Watched, control, unique, unpack};
use crate::graph::Graph;
use crate::target::{Served, World, environment, exporting, solving};

fn base(world: &World) -> Graph {
    Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[])
}

/// Builds wait in their order, and their progress says so.
pub(crate) async fn builds_wait_for_their_turn(world: &World) {
    let served = Served::start(&["--max-builds", "1"]);
    let base = base(world);
    let build = async |delay: u64| -> Watched {
        tokio::time::sleep(Duration::from_millis(delay)).await;
        let client = Client::new(served.connect().await, Offer::default()).await;
        let script = format!("sleep 2; echo {}", unique("word"));
        let (solved, watched) = client.solve(solving(&base.run(&script).root())).await;
        solved.unwrap();
        watched
    };
    let (first, second, third) = tokio::join!(build(0), build(500), build(1000));
    let turn = "waiting for other builds to end";
    assert!(first.vertexes.values().all(|vertex| !vertex.name.contains(turn)), "{first:?}");
    let waited = |watched: &Watched| {
        let (begun, ended) = (watched.vertex(turn).started, watched.vertex(turn).completed);
        let seconds = |at: Option<bollard_buildkit_proto::google::protobuf::Timestamp>| {
            at.map(|at| at.seconds as f64 + f64::from(at.nanos) / 1e9).unwrap()
        };
        (seconds(ended) - seconds(begun), seconds(ended))
    };
    let ((short, middle), (long, last)) = (waited(&second), waited(&third));
    assert!(short > 0.5 && long > short && last > middle, "{short} s and {long} s");
}

/// Returns `true` if two builds have run their programs at the same time.
async fn overlaps(world: &World, more: &[&str]) -> bool {
    let served = Served::start(more);
    let base = base(world);
    let script =
        "(mkdir /c/lock 2>/dev/null && sleep 2 && rmdir /c/lock && echo alone || echo both) > /out";
    let build = async || {
        let client = Client::new(served.connect().await, Offer::default()).await;
        let step = base.run(&format!("{script}; : {}", unique("word")));
        let step = step.cache("lock", CacheSharingOpt::Shared, "/c").root();
        client
            .solve(exporting(&Graph::scratch().copy(&step, "/out", "/"), "tar", &[]))
            .await
            .0
            .unwrap();
        unpack(&client.received(0).archive)["out"].clone()
    };
    let (one, two) = tokio::join!(build(), build());
    [one, two].iter().any(|out| out.ends_with("both\n"))
}

/// All builds together run at most so many programs.
pub(crate) async fn steps_wait_for_each_other(world: &World) {
    let (limited, free) =
        tokio::join!(overlaps(world, &["--max-parallelism", "1"]), overlaps(world, &[]));
    assert!(!limited, "the limit is ignored");
    assert!(free, "without a limit, programs run at once");
}

async fn parts(served: &Served, filter: &str) -> usize {
    let channel = served.connect().await;
    let request = DiskUsageRequest { filter: vec![filter.to_owned()], age_limit: 0 };
    control(&channel).disk_usage(request).await.unwrap().into_inner().record.len()
}

/// A rule removes what it is about, in the background, and nothing else.
pub(crate) async fn garbage_is_collected_by_rules(world: &World) {
    let kiln = environment();
    let served = Served::start_in(Arc::clone(&kiln), &["--no-gc"]);
    let client = Client::new(served.connect().await, Offer::default()).await;
    let step = base(world).run("dd if=/dev/zero of=/c/x bs=1M count=3 2>/dev/null; echo x > /out");
    let step = step.cache("gone", CacheSharingOpt::Shared, "/c");
    client.solve(solving(&step.root())).await.0.unwrap();
    drop(client);
    let (cache, regular) = ("type==exec.cachemount", "type==regular");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let kept = parts(&served, regular).await;
    assert!(kept > 0 && parts(&served, cache).await == 1);
    assert_eq!(served.end(), Some(0));

    kiln.write(
        "buildkitd.toml",
        "[[worker.oci.gcpolicy]]\nfilters = [\"type==exec.cachemount\"]\nmaxUsedSpace = 1\n",
    );
    let served = Served::start_in(kiln, &["--config", "buildkitd.toml"]);
    let start = std::time::Instant::now();
    while parts(&served, cache).await > 0 {
        assert!(start.elapsed() < Duration::from_secs(30), "the cache mount stays");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(parts(&served, regular).await, kept);
}
