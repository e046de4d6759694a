//! Keys of a `buildkitd.toml`, and what they change.

use std::collections::BTreeMap;
use std::path::Path;

use bollard_buildkit_proto::moby::buildkit::v1::{ListWorkersRequest, SolveRequest};
use bollard_buildkit_proto::pb::NetMode;
use serde_json::Value;

use crate::client::{Client, Offer, unpack};
use crate::graph::Graph;
use crate::target::{Served, World, environment, exporting, texts};

/// Starts a server with a configuration.
fn start(text: &str) -> Served {
    let kiln = environment();
    kiln.write("buildkitd.toml", text);
    Served::start_in(kiln, &["--config", "buildkitd.toml"])
}

/// Builds, and returns the entries of the result.
async fn build(served: &Served, request: SolveRequest) -> BTreeMap<String, String> {
    let client = Client::new(served.connect().await, Offer::default()).await;
    client.solve(request).await.0.unwrap();
    unpack(&client.received(0).archive)
}

/// Everything that the server prints may be a JSON object, at the level of the configuration.
pub(crate) async fn the_log_is_configured(_: &World) {
    let served =
        start("[log]\nlevel = \"debug\"\nformat = \"json\"\n[otel]\nsocketPath = \"/s\"\n");
    build(&served, exporting(&Graph::scratch().mkfile("/a", "b"), "tar", &[])).await;
    let log = served.log();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().all(|line| line["time"].is_string() && line["msg"].is_string()), "{log}");
    let has = |level: &str, text: &str| {
        lines
            .iter()
            .any(|line| line["level"] == level && line["msg"].as_str().unwrap().contains(text))
    };
    assert!(has("info", "listening on unix://") && has("warning", "otel.socketPath"), "{log}");
    assert!(has("debug", ""), "{log}");
    let served = start("[log]\nlevel = \"info\"\n");
    build(&served, exporting(&Graph::scratch().mkfile("/a", "b"), "tar", &[])).await;
    assert!(!served.log().contains("DEBUG"), "{}", served.log());
}

/// Returns the network namespace of a step whose graph names no network, and its devices.
async fn network(world: &World, text: &str) -> (String, usize) {
    let served = start(text);
    let base = Graph::source(&format!("docker-image://{}", world.image("base:latest")), &[]);
    let step = base.run("readlink /proc/self/ns/net > /out; ls /sys/class/net | wc -l >> /out");
    let step = step.with(|op| op.network = NetMode::Unset.into()).root();
    let tree =
        build(&served, exporting(&Graph::scratch().copy(&step, "/out", "/"), "tar", &[])).await;
    let mut lines = tree["out"].trim_start_matches("file 644 0:0 ").lines();
    (lines.next().unwrap().to_owned(), lines.next().unwrap().parse().unwrap())
}

pub(crate) async fn the_network_of_steps_is_configured(world: &World) {
    let host = std::fs::read_link(Path::new("/proc/self/ns/net")).unwrap();
    let host = host.to_str().unwrap();
    let (namespace, _) = network(world, "[worker.oci]\nnetworkMode = \"host\"\n").await;
    assert_eq!(namespace, host);
    let (namespace, devices) = network(world, "[worker.oci]\nnetworkMode = \"none\"\n").await;
    assert!(namespace != host && devices == 1, "{namespace} with {devices}");
}

pub(crate) async fn the_platforms_are_configured(_: &World) {
    let served = start("[worker.oci]\nplatforms = [\"linux/s390x\", \"linux/arm/v7\"]\n");
    let client = Client::new(served.connect().await, Offer::default()).await;
    let workers = client.control().list_workers(ListWorkersRequest::default()).await.unwrap();
    let worker = workers.into_inner().record.remove(0);
    let platform = |at: usize| {
        let platform = &worker.platforms[at];
        (platform.architecture.as_str(), platform.variant.as_str())
    };
    assert_eq!(
        (worker.platforms.len(), platform(0), platform(1)),
        (2, ("s390x", ""), ("arm", "v7"))
    );
}

/// The owner of a builder adds members to the provenance of its images.
pub(crate) async fn the_provenance_is_configured(_: &World) {
    let kiln = environment();
    kiln.write("provenance/team.json", r#"{"team": {"name": "builders"}}"#);
    let directory = kiln.path("provenance");
    kiln.write("buildkitd.toml", format!("provenanceEnvDir = \"{}\"\n", directory.display()));
    let served = Served::start_in(kiln, &["--config", "buildkitd.toml"]);
    for (version, path) in [
        ("v1", "/predicate/buildDefinition/internalParameters/team/name"),
        ("v0.2", "/predicate/invocation/environment/team/name"),
    ] {
        let frontend_attrs =
            texts(&[("attest:provenance", &format!("mode=min,version={version}") as &str)]);
        let graph = Graph::scratch().mkfile("/a", "b");
        let request = SolveRequest { frontend_attrs, ..exporting(&graph, "tar", &[]) };
        let tree = build(&served, request).await;
        let text = tree["provenance.json"].split_once('{').unwrap().1;
        let statement: Value = serde_json::from_str(&format!("{{{text}")).unwrap();
        assert_eq!(statement.pointer(path).unwrap(), "builders", "{statement:#}");
    }
}
