//! SIGHUP, upon which a server reads its configuration and its certificates again.

use bollard_buildkit_proto::moby::buildkit::v1::SolveRequest;
use rustix::process::Signal;
use tonic::Status;

use crate::client::{Client, Offer};
use crate::graph::Graph;
use crate::sockets::Identities;
use crate::target::{Served, World, environment, solving};

/// Makes a server reload, and waits until it has printed a text so many times.
fn reload(served: &Served, text: &str, times: usize) {
    served.signal(Signal::HUP);
    kiln_testkit::peers::wait_until(&format!("the server prints {text:?}"), || {
        served.log().matches(text).count() >= times
    });
}

async fn solve(served: &Served, request: SolveRequest) -> Result<(), Status> {
    let client = Client::new(served.connect().await, Offer::default()).await;
    client.solve(request).await.0.map(|_| ())
}

/// Registries and rights of a new configuration hold for builds to come. An invalid one changes
/// nothing.
pub(crate) async fn the_configuration_is_reloaded(world: &World) {
    let kiln = environment();
    kiln.write("buildkitd.toml", "");
    let served = Served::start_in(kiln, &["--config", "buildkitd.toml"]);
    let image = Graph::source("docker-image://registry.invalid/base:latest", &[]);
    // A result of the first build would serve the second one.
    let from_mirror = || solving(&image.run(&crate::client::unique("true ")).root());
    let privileged = || SolveRequest {
        entitlements: vec!["security.insecure".to_owned()],
        ..solving(&Graph::scratch().mkfile("/a", "b"))
    };
    assert!(solve(&served, from_mirror()).await.is_err());
    let refused = solve(&served, privileged()).await.unwrap_err();
    assert!(refused.message().contains("security.insecure"), "{refused:?}");

    let (registry, done) = (world.registry.address(), "the configuration is reloaded");
    let text = format!(
        "insecure-entitlements = [\"security.insecure\"]\n\
         [registry.\"registry.invalid\"]\nmirrors = [\"{registry}\"]\n\
         [registry.\"{registry}\"]\nhttp = true\n"
    );
    served.kiln.write("buildkitd.toml", &text);
    reload(&served, done, 1);
    solve(&served, from_mirror()).await.unwrap();
    solve(&served, privileged()).await.unwrap();

    let kept = "the old options stay";
    for (times, invalid) in (1..).zip(["insecure-entitlements = 1", "= =", "[grpc]\nuid = \"x\""]) {
        served.kiln.write("buildkitd.toml", invalid);
        reload(&served, kept, times);
    }
    solve(&served, from_mirror()).await.unwrap();
    solve(&served, privileged()).await.unwrap();

    served.kiln.write("buildkitd.toml", "");
    reload(&served, done, 2);
    assert!(solve(&served, privileged()).await.is_err());
}

/// New certificates hold for connections to come. Invalid files change nothing.
pub(crate) async fn the_certificates_are_reloaded(_: &World) {
    let (ours, theirs) = (Identities::new(), Identities::new());
    let (served, address) = ours.serve();
    assert!(ours.reach(address, Some(&ours.client)).await);
    served.kiln.write("key.pem", "no key");
    reload(&served, "the old options stay", 1);
    assert!(ours.reach(address, Some(&ours.client)).await);
    theirs.write(&served.kiln.path(""));
    reload(&served, "the configuration is reloaded", 1);
    assert!(theirs.reach(address, Some(&theirs.client)).await, "{}", served.log());
    assert!(!ours.reach(address, Some(&ours.client)).await);
}
