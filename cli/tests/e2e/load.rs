//! `--load`: loads images into engines that run them.

use std::process::Command;
use std::time::{Duration, Instant};

use kiln_testkit::environment::{Output, run};
use kiln_testkit::fake_engine::{EngineSwitches, FakeEngine};
use kiln_testkit::peers::{Containerd, DockerEngine, Podman};
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// Builds the context `ctx` with additional arguments and environment variables.
fn build(kiln: &Kiln, environment: &[(&str, &str)], arguments: &[&str]) -> Output {
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
    all.extend_from_slice(arguments);
    all.push("ctx");
    run(kiln.command(&all).envs(environment.iter().copied()))
}

/// Returns the line about the destination of an image.
fn told(output: Output) -> String {
    let stderr = output.stderr.clone();
    output.success();
    let line = stderr.lines().rfind(|line| line.starts_with("loaded into "));
    line.map(str::to_owned).ok_or(stderr).unwrap()
}

#[test]
fn a_docker_engine_gets_what_it_lacks() {
    let needs = [Need::Root, Need::Program("dockerd"), Need::Program("docker")];
    if skip("a_docker_engine_gets_what_it_lacks", &needs) {
        return;
    }
    let kiln = kiln();
    let engine = DockerEngine::start();
    let host = engine.host();
    let environment = [("DOCKER_HOST", host.as_str())];
    let large: Vec<u8> = (0..16_000_000_u32).flat_map(|n| (n ^ (n >> 7)).to_le_bytes()).collect();
    kiln.write("ctx/large", &large);
    let dockerfile =
        "FROM base\nCOPY large /\nRUN echo generated > /data\nCMD [\"cat\", \"/data\"]\n";
    kiln.write("ctx/Dockerfile", dockerfile);
    let load = |arguments: &[&str]| told(build(&kiln, &environment, arguments));
    let first = load(&["--load", "-t", "app:1"]);
    let place = format!("loaded into the Docker engine at {host}: ");
    assert_eq!(first, format!("{place}3 layers sent, 0 there already"));
    let ran =
        |name: &str| run(&mut engine.docker(&["run", "--rm", "--network=none", name])).success();
    assert_eq!(ran("app:1"), "generated\n");
    let id = run(&mut engine.docker(&["images", "-q", "--no-trunc", "app:1"])).success();

    // The image is unchanged, so nothing is sent, under any name.
    assert_eq!(load(&["--load", "-t", "app:1"]), format!("{place}it was there already"));
    let again = ["--output", "type=docker", "-t", "app:2", "-t", "other/name", "--iidfile", "id"];
    assert_eq!(load(&again), format!("{place}it was there already"));
    assert_eq!(ran("other/name:latest"), "generated\n");
    assert_eq!(std::fs::read_to_string(kiln.path("id")).unwrap(), id.trim());

    // One additional layer, one layer less, and a different one.
    kiln.write("ctx/Dockerfile", format!("{dockerfile}RUN echo more >> /data\n"));
    assert_eq!(load(&["--load", "-t", "app:3"]), format!("{place}1 layer sent, 3 there already"));
    assert_eq!(ran("app:3"), "generated\nmore\n");
    kiln.write("ctx/Dockerfile", "FROM base\nCOPY large /\nCMD [\"ls\", \"/large\"]\n");
    assert_eq!(load(&["--load", "-t", "app:4"]), format!("{place}0 layers sent, 2 there already"));
    assert_eq!(ran("app:4"), "/large\n");
    // kiln's own store has neither the images nor their names.
    assert_eq!(kiln.run(&["images", "-q"]).success(), "");

    // Removed layers are sent again.
    let all = ["app:1", "app:2", "app:3", "app:4", "other/name"];
    run(engine.docker(&["rmi", "--force"]).args(all)).success();
    kiln.write("ctx/Dockerfile", dockerfile);
    assert_eq!(load(&["--load"]), format!("{place}3 layers sent, 0 there already"));
    assert_eq!(ran(id.trim()), "generated\n");

    // A docker context sets the engine, too. Unsupported outputs fail before the build.
    let name = "sha256 of mine";
    let directory = kiln_oci::Digest::of(name.as_bytes()).hex();
    let meta = format!(r#"{{"Name": "{name}", "Endpoints": {{"docker": {{"Host": "{host}"}}}}}}"#);
    kiln.write(&format!("home/.docker/contexts/meta/{directory}/meta.json"), meta);
    kiln.write("home/.docker/config.json", format!(r#"{{"currentContext": "{name}"}}"#));
    assert_eq!(told(build(&kiln, &[], &["--load"])), format!("{place}it was there already"));
    let two = ["--load", "--platform", "linux/amd64,linux/arm64"];
    let error = build(&kiln, &environment, &two).failure();
    assert!(error.contains("does not currently support exporting manifest lists"), "{error}");
}

#[test]
fn an_unchanged_gibibyte_is_loaded_at_once() {
    let needs = [Need::Root, Need::Program("dockerd"), Need::Program("docker")];
    if skip("an_unchanged_gibibyte_is_loaded_at_once", &needs) {
        return;
    }
    let kiln = kiln();
    let engine = DockerEngine::start();
    let host = engine.host();
    let environment = [("DOCKER_HOST", host.as_str())];
    kiln.write("ctx/Dockerfile", "FROM scratch\nCOPY large /\nCMD [\"/large\"]\n");
    let file = std::fs::File::create(kiln.path("ctx/large")).unwrap();
    file.set_len(1 << 30).unwrap();
    let load = || told(build(&kiln, &environment, &["--load", "-t", "large"]));
    assert!(load().ends_with("1 layer sent, 0 there already"));
    // The machine may be busy, so one quick attempt of many is enough.
    let is_quick = |_| {
        let begun = Instant::now();
        assert!(load().ends_with("it was there already"));
        begun.elapsed() < Duration::from_secs(1)
    };
    assert!((0..20).any(is_quick), "it takes more than a second");
    let size = ["image", "inspect", "--format", "{{.Size}}", "large"];
    assert_eq!(run(&mut engine.docker(&size)).success().trim(), (1_u64 << 30).to_string());
}

#[test]
fn engines_of_every_kind_are_told_apart() {
    if skip("engines_of_every_kind_are_told_apart", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let switches = EngineSwitches { keeps_blobs: true, ..EngineSwitches::default() };
    let engine = FakeEngine::start(switches);
    let host = engine.host();
    let environment = [("DOCKER_HOST", host.as_str())];
    let load = |arguments: &[&str]| {
        let built = build(&kiln, &environment, &[&["--load"], arguments].concat());
        told(built).replace(&format!("loaded into the Docker engine at {host}: "), "")
    };
    let write = |more: &str| {
        let text = format!("FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n{more}");
        kiln.write("ctx/Dockerfile", text);
    };
    write("");
    // On containerd's image store an image is its index, and is sent as a whole.
    let two = ["--platform", "linux/amd64,linux/arm64", "-t", "two:1", "--iidfile", "id"];
    assert_eq!(load(&two), "2 layers sent");
    let archives = engine.take_archives();
    let id = std::fs::read_to_string(kiln.path("id")).unwrap();
    let top = format!("blobs/{}", id.replace(':', "/"));
    assert!(archives[0].contains(&top) && !archives[0].contains(&"manifest.json".to_owned()));
    assert_eq!(load(&two), "it was there already");
    assert_eq!(
        (engine.take_archives().len(), engine.tags()),
        (0, vec!["docker.io/library/two:1".to_owned()])
    );
    assert_eq!(load(&["-t", "one:1"]), "1 layer sent");
    assert!(engine.take_archives()[0].contains(&"manifest.json".to_owned()));

    // kiln sends a layer again if the engine has lost it in the meantime.
    engine.switch(EngineSwitches::default());
    kiln.write("ctx/f", "content");
    let three = "FROM scratch\nCOPY f /1\nCOPY f /2\nCOPY f /3\n";
    kiln.write("ctx/Dockerfile", three);
    // Compressed layers are sent unchanged.
    build(&kiln, &environment, &["-t", "three"]).success();
    let built = build(&kiln, &environment, &["--load"]);
    assert!(!built.stderr.contains("packing layer"), "{}", built.stderr);
    assert!(told(built).ends_with(": 3 layers sent, 0 there already"));
    kiln.write("ctx/Dockerfile", format!("{three}COPY f /4\n"));
    engine.take_archives();
    engine.switch(EngineSwitches { loses_layers: true, ..EngineSwitches::default() });
    assert_eq!(load(&[]), "4 layers sent");
    let sent: Vec<usize> = engine.take_archives().iter().map(Vec::len).collect();
    assert_eq!((sent.len(), sent[1] - sent[0]), (2, 3), "first the new layer, then all four");

    engine.switch(EngineSwitches { is_full: true, ..EngineSwitches::default() });
    kiln.write("ctx/f", "other content");
    let error = build(&kiln, &environment, &["--load"]).failure();
    let problem = format!("load the image into the Docker engine at {host}: /images/load: ");
    assert!(error.contains(&(problem + "write /var/lib: no space left on device")), "{error}");
}

const DOCKERFILE: &str = "FROM base AS build\nRUN echo generated > /data && rm /bin/vi\n\
                          FROM base\nCOPY --from=build /data /data\nCMD [\"cat\", \"/data\"]\n";

#[test]
fn containerd_takes_images_and_indexes() {
    let needs = [Need::Root, Need::Program("containerd"), Need::Program("ctr")];
    if skip("containerd_takes_images_and_indexes", &needs) {
        return;
    }
    let kiln = kiln();
    let engine = Containerd::start();
    let socket = engine.socket();
    let environment = [("CONTAINERD_ADDRESS", socket.to_str().unwrap())];
    kiln.write("ctx/Dockerfile", DOCKERFILE);
    let output = ["--output", "type=docker,engine=containerd", "-t", "example/app:1"];
    let line = told(build(&kiln, &environment, &output));
    let place = format!("loaded into containerd at {}, namespace default: ", socket.display());
    assert_eq!(line, format!("{place}2 layers sent"));
    let listed = run(&mut engine.ctr(&["images", "ls", "-q"])).success();
    assert_eq!(listed, "docker.io/example/app:1\n");
    let checked = run(&mut engine.ctr(&["images", "check"])).success();
    assert!(checked.contains("complete (3/3)") && checked.contains("true"), "{checked}");
    // Its layers can be mounted and hold the image's files.
    let mount = kiln.path("mount");
    std::fs::create_dir(&mount).unwrap();
    let mounting = ["images", "mount", "docker.io/example/app:1", mount.to_str().unwrap()];
    run(&mut engine.ctr(&mounting)).success();
    let data = std::fs::read_to_string(mount.join("data"));
    run(Command::new("umount").arg(&mount)).success();
    assert_eq!(data.unwrap(), "generated\n");

    kiln.write("ctx/Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n");
    let platforms = ["--platform", "linux/amd64,linux/arm64", "-t", "example/two"];
    told(build(&kiln, &environment, &[&output[..2], &platforms].concat()));
    let listed = run(&mut engine.ctr(&["images", "ls", "name==docker.io/example/two:latest"]));
    let listed = listed.success();
    assert!(listed.contains("linux/amd64,linux/arm64"), "{listed}");
    assert!(listed.contains("application/vnd.oci.image.index.v1+json"), "{listed}");
}

#[test]
fn podman_takes_images_and_runs_them() {
    let needs = [Need::Root, Need::Program("podman"), Need::Program("runc")];
    if skip("podman_takes_images_and_runs_them", &needs) {
        return;
    }
    let (kiln, podman) = (kiln(), Podman::new());
    let variables = podman.environment();
    let environment: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.to_str().unwrap())).collect();
    kiln.write("ctx/Dockerfile", DOCKERFILE);
    let output = ["--output", "type=docker,engine=podman", "-t", "example/app:1"];
    assert_eq!(told(build(&kiln, &environment, &output)), "loaded into podman: 2 layers sent");
    let podman = |arguments: &[&str]| run(&mut podman.podman(arguments)).success();
    let ran = podman(&["run", "--rm", "--network=none", "docker.io/example/app:1"]);
    assert_eq!(ran, "generated\n");

    // Archives of both kinds, and an index. The engine takes the image for this machine.
    for (kind, name, platform) in
        [("docker", "one", "local"), ("oci", "two", "local"), ("oci", "three", "local,linux/s390x")]
    {
        let archive = kiln.path(&format!("{name}.tar"));
        let output = format!("type={kind},dest={},name=example/{name}:2", archive.display());
        kiln.write("ctx/Dockerfile", format!("FROM scratch\nCOPY Dockerfile /\nLABEL of={name}\n"));
        build(&kiln, &[], &["--output", &output, "--platform", platform]).success();
        let loaded = podman(&["load", "--input", archive.to_str().unwrap()]);
        assert!(loaded.contains(&format!("example/{name}:2")), "{loaded}");
        let label = ["image", "inspect", "--format", "{{index .Labels \"of\"}}"];
        let label = podman(&[&label[..], &[&format!("example/{name}:2")]].concat());
        assert_eq!(label.trim(), name);
    }
}

#[test]
fn nobody_who_runs_images_is_no_reason_to_fail() {
    if skip("nobody_who_runs_images_is_no_reason_to_fail", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    // This path has no programs, but a Docker engine may listen on its default socket.
    if !std::path::Path::new("/var/run/docker.sock").exists() {
        let built = build(&kiln, &[("PATH", "/nowhere")], &["--load", "-t", "app:1"]);
        let said = built.stderr.clone();
        built.success();
        let reason = "no Docker engine, podman or containerd was found";
        assert!(said.contains(&format!("kept in kiln's own store: {reason}\n")), "{said}");
        assert_eq!(kiln.run(&["images", "-q"]).success().lines().count(), 1);
    }
    let built = build(&kiln, &[], &["--output", "type=docker,engine=kiln", "-t", "app:2"]);
    assert!(!built.stderr.contains("kept in"), "{}", built.stderr);
    built.success();

    // A named engine must be available.
    let nowhere = [("DOCKER_HOST", "unix:///nowhere/docker.sock")];
    let error = build(&kiln, &nowhere, &["--load"]).failure();
    let problem = "speak to the Docker engine at unix:///nowhere/docker.sock";
    assert!(error.contains(problem), "{error}");
    let nowhere = [("PATH", "/nowhere")];
    let error = build(&kiln, &nowhere, &["--output", "type=docker,engine=podman"]).failure();
    assert!(error.contains("there is no podman on the path"), "{error}");
    let error = build(&kiln, &[], &["--output", "type=docker,context=mine"]).failure();
    assert!(error.contains("docker has no context \"mine\""), "{error}");
}
