//! The commands of the guides, run as a reader types them.

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// Runs the `sh` blocks of a guide one after the other, and returns what they print.
fn follow(kiln: &Kiln, guide: &str) -> String {
    let mut script = String::from("set -eu\nexec 2>&1\n");
    for block in guide.split("```sh\n").skip(1) {
        script.push_str(block.split("```").next().unwrap());
    }
    kiln.write("guide.sh", script);
    std::fs::create_dir_all(kiln.path("bin")).unwrap();
    std::os::unix::fs::symlink(kiln.binary(), kiln.path("bin/kiln")).unwrap();
    let prepared = kiln.command::<&str>(&[]);
    let mut shell = kiln.host("sh");
    shell.arg("guide.sh").env_clear();
    shell.envs(prepared.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.env("PATH", format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", kiln.path("bin").display()));
    run(&mut shell).success()
}

/// Returns a kiln that finds `busybox` on a mirror of Docker Hub.
fn with_mirror(registry: &DockerRegistry) -> Kiln {
    let kiln = kiln();
    let address = registry.address();
    let mirror = format!("mirrors = [\"{address}\"]\nonly-mirrors = true\n");
    let http = format!("[registry.\"{address}\"]\nhttp = true\n");
    let toml = format!("[registry.\"docker.io\"]\n{mirror}{http}");
    kiln.write("home/.config/kiln/registries.toml", toml);
    let name = format!("{address}/library/busybox:latest");
    kiln.build_text("FROM base\n", &["-t", &name, "--push"]).success();
    kiln
}

/// Asserts that a text contains parts, one behind the other.
#[track_caller]
fn assert_in_order(text: &str, parts: &[&str]) {
    let mut rest = text;
    for part in parts {
        let found = rest.split_once(part);
        assert!(found.is_some(), "{part:?} is missing in\n{rest}\nof\n{text}");
        rest = found.unwrap().1;
    }
}

#[test]
fn the_first_image_is_built_and_run() {
    let needs = [Need::Root, Need::Program("docker-registry")];
    if skip("the_first_image_is_built_and_run", &needs) {
        return;
    }
    let registry = DockerRegistry::start();
    let kiln = with_mirror(&registry);
    let said = follow(&kiln, include_str!("../../../docs/guide/first-image.md"));
    let parts = [
        "RUN mkdir /app",
        "Hello, world!\nHello, reader!\n",
        "CACHED",
        "file greet.sh: content changed",
        "COPY",
        "[\"/app/greet.sh\"]",
    ];
    assert_in_order(&said, &parts);
}

#[test]
fn a_cache_is_shared() {
    let needs = [Need::Root, Need::Program("docker-registry")];
    if skip("a_cache_is_shared", &needs) {
        return;
    }
    let registry = DockerRegistry::start();
    let kiln = with_mirror(&registry);
    let said = follow(&kiln, include_str!("../../../docs/guide/caches.md"));
    let parts = ["exporting cache", "importing cache manifest", "CACHED"];
    assert_in_order(&said, &parts);
}

#[test]
fn a_bake_file_is_read() {
    let said = follow(&kiln(), include_str!("../../../docs/guide/bake.md"));
    let parts = [
        "the tag of all images",
        "\"VERSION\": \"1.2\"",
        "registry.example.com/docs:1.0",
        "\"linux/arm64\"",
        "\"app-debian\": {",
    ];
    assert_in_order(&said, &parts);
}
