//! kiln's image in a Docker engine, in the place of BuildKit's, as buildx's docker-container driver
//! runs it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerEngine;
use kiln_testkit::{Kiln, Need, base, skip};

use crate::buildctl::Dialled;
use crate::client::{Client, Offer, Watched, unpack};
use crate::graph::Graph;
use crate::target::{World, exporting};

/// Builds kiln's image with this test's kiln, and loads it into an engine.
fn load_own_image(kiln: &Kiln, engine: &DockerEngine) {
    kiln.write("certificates/ca-certificates.crt", "certificates\n");
    std::fs::create_dir_all(kiln.path("binary")).unwrap();
    // Without debug information, as in the distributed image.
    run(Command::new("strip").arg("-o").arg(kiln.path("binary/kiln")).arg(kiln.binary())).success();
    let repository = base::repository();
    let archive = kiln.path("own.tar");
    let output = format!("type=docker,dest={}", archive.display());
    let arguments = [
        "build",
        "--build-context",
        "binary=binary",
        "--build-context",
        "certificates=certificates",
        "-t",
        "own",
        "-o",
        &output,
        repository.to_str().unwrap(),
    ];
    kiln.run(&arguments).success();
    run(engine.docker(&["load", "-i"]).arg(archive)).success();
}

/// Creates the container as the driver does, but with the privileges that kiln needs in place of all:
/// the machine itself may lack some. The test's kiln isn't static and gets this machine's libraries.
fn create(engine: &DockerEngine) {
    let libraries = ["/lib", "/lib64", "/usr/lib"].into_iter();
    let libraries: Vec<String> = libraries
        .filter(|directory| Path::new(directory).is_dir())
        .map(|directory| format!("--volume={directory}:{directory}:ro"))
        .collect();
    let mut create = engine.docker(&[
        "create",
        "--name=builder",
        "--cap-add=SYS_ADMIN",
        "--cap-add=NET_ADMIN",
        "--security-opt=seccomp=unconfined",
        "--security-opt=apparmor=unconfined",
        "--security-opt=systempaths=unconfined",
        "--init",
        "--network=host",
        "--volume=builder_state:/var/lib/buildkit",
    ]);
    create.args(libraries).args([
        "own",
        "--config",
        "/etc/buildkit/buildkitd.toml",
        "--allow-insecure-entitlement=network.host",
    ]);
    run(&mut create).success();
}

/// Waits until the server in the container answers.
async fn wait_for_workers(engine: &DockerEngine) {
    let start = Instant::now();
    let mut ask = engine.docker(&["exec", "builder", "buildctl", "debug", "workers"]);
    loop {
        let output = ask.output().unwrap();
        if output.status.success() {
            return;
        }
        if start.elapsed() > Duration::from_secs(30) {
            let log = engine.docker(&["logs", "builder"]).output().unwrap();
            panic!("{output:?}\n{}", String::from_utf8_lossy(&log.stderr));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn build(engine: &DockerEngine, image: &str) -> Watched {
    let dial = engine.docker(&["exec", "-i", "builder", "buildctl", "dial-stdio"]);
    let dialled = Dialled::new(dial).await;
    let client = Client::new(dialled.channel.clone(), Offer::default()).await;
    let base = Graph::source(&format!("docker-image://{image}"), &[]);
    let step = base.run("echo built > /built").root().named("the step");
    let (solved, watched) = client.solve(exporting(&step, "tar", &[])).await;
    solved.unwrap();
    assert!(unpack(&client.received(0).archive).contains_key("built"));
    watched
}

/// A container of the image is created, configured, started, used, stopped, and started again with
/// its cache.
pub(crate) async fn kilns_image_stands_in_for_buildkits(world: &World) {
    let needs = [Need::Program("dockerd"), Need::Program("docker"), Need::Program("strip")];
    if skip("kilns_image_stands_in_for_buildkits", &needs) {
        return;
    }
    let (kiln, engine) = (Kiln::new(env!("CARGO_BIN_EXE_kiln")), DockerEngine::start());
    load_own_image(&kiln, &engine);
    create(&engine);
    let config = "[worker.oci]\n  labels = { \"configured\" = \"true\" }\n";
    let config = kiln.write("etc/buildkit/buildkitd.toml", config);
    let config = config.parent().unwrap();
    run(engine.docker(&["cp"]).arg(config).arg("builder:/etc")).success();
    let ask = |arguments: &[&str]| run(&mut engine.docker(arguments)).success();
    ask(&["start", "builder"]);
    wait_for_workers(&engine).await;
    let workers = ask(&["exec", "builder", "buildctl", "debug", "workers", "-v"]);
    assert!(workers.contains("\tconfigured:\t"), "{workers}");
    let version = ask(&["exec", "builder", "buildkitd", "--version"]);
    assert_eq!(version.split_whitespace().count(), 4, "{version}");

    let image = world.image("base:latest");
    assert!(!build(&engine, &image).await.vertex("the step").cached);
    let usage = ask(&["exec", "builder", "buildctl", "du"]);
    assert!(usage.contains("Total:") && !usage.contains("Total:\t\t0B"), "{usage}");
    ask(&["stop", "builder"]);
    assert_eq!(ask(&["inspect", "--format={{.State.ExitCode}}", "builder"]).trim(), "0");
    ask(&["start", "builder"]);
    wait_for_workers(&engine).await;
    assert!(build(&engine, &image).await.vertex("the step").cached);
    ask(&["exec", "builder", "buildctl", "prune", "--all"]);
    assert!(!build(&engine, &image).await.vertex("the step").cached);
    ask(&["rm", "--force", "--volumes", "builder"]);
    ask(&["volume", "rm", "builder_state"]);
}
