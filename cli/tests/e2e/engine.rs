//! A real Docker engine loads archives that kiln writes.

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerEngine;
use kiln_testkit::{Need, skip};

use crate::kiln;

#[test]
fn a_docker_engine_loads_and_runs_what_kiln_runs() {
    let needs = [Need::Root, Need::Program("dockerd"), Need::Program("docker")];
    if skip("a_docker_engine_loads_and_runs_what_kiln_runs", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/say", "#!/bin/sh\necho \"$GREETING, $1: $(cat /data)\"\n");
    kiln.write(
        "ctx/Dockerfile",
        "FROM base AS build\nRUN echo generated > /data && rm /bin/vi\n\
         FROM base\nCOPY --from=build /data /data\nCOPY --chmod=755 say /bin/\n\
         ENV GREETING=Hello\nUSER nobody\nENTRYPOINT [\"say\"]\nCMD [\"world\"]\n",
    );
    let archive = kiln.path("image.tar");
    let output = format!("type=docker,dest={}", archive.display());
    kiln.build("ctx", &["-t", "example/app:1", "--output", &output, "--output", "type=image"])
        .success();
    let ours = kiln.run(&["run", "--rm", "example/app:1"]).success();
    assert_eq!(ours, "Hello, world: generated\n");

    let engine = DockerEngine::start();
    let loaded = run(engine.docker(&["load", "-i"]).arg(&archive)).success();
    assert!(loaded.contains("example/app:1"), "{loaded}");
    let run_with = |arguments: &[&str]| {
        let mut all = vec!["run", "--rm", "--network=none", "example/app:1"];
        all.extend_from_slice(arguments);
        run(&mut engine.docker(&all)).success()
    };
    assert_eq!(run_with(&[]), ours);
    assert_eq!(run_with(&["you"]), kiln.run(&["run", "--rm", "example/app:1", "you"]).success());
    // The engine computes the same image ID as kiln.
    let id = run(&mut engine.docker(&["images", "-q", "--no-trunc", "example/app:1"])).success();
    assert_eq!(id, kiln.run(&["images", "-q", "--no-trunc", "example/app:1"]).success());
}
