//! Pushes to registries and pulls from them. The log of Debian's docker-registry shows the
//! requests.

use std::collections::BTreeMap;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::fake_registry::FakeRegistry;
use kiln_testkit::peers::{DockerRegistry, LOGIN, RegistryOptions};
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

const NEEDS: [Need; 3] = [Need::Root, Need::Program("docker-registry"), Need::Program("openssl")];

/// Returns the number of uploaded blobs in a registry's log.
fn uploads(log: &[String]) -> usize {
    let is_end = |line: &&String| line.starts_with("PUT ") && line.contains("/blobs/uploads/");
    log.iter().filter(is_end).inspect(|line| assert!(line.ends_with(" 201"), "{line}")).count()
}

fn downloads(log: &[String]) -> usize {
    log.iter().filter(|line| line.starts_with("GET ") && line.contains("/blobs/sha256:")).count()
}

/// Returns the blobs of a store.
fn blobs(kiln: &Kiln) -> BTreeMap<String, Vec<u8>> {
    let directory = kiln.root().join("content/blobs/sha256");
    let files = std::fs::read_dir(directory).unwrap().map(Result::unwrap);
    files
        .map(|file| {
            let name = file.file_name().into_string().unwrap();
            (name, std::fs::read(file.path()).unwrap())
        })
        .collect()
}

fn builds_pushes_and_pulls(kiln: &Kiln, registry: &DockerRegistry) {
    let name = format!("{}/team/app", registry.address());
    let one = format!("{name}:1");
    let dockerfile = "FROM base\nRUN echo one > /one\nCMD [\"cat\", \"/one\"]\n";
    kiln.build_text(dockerfile, &["-t", &one]).success();
    registry.take_log();
    let said = kiln.run(&["push", &one]).success();
    assert!(said.starts_with(&format!("The push refers to repository [{name}]\n")), "{said}");
    assert_eq!(said.matches(": Pushed\n").count(), 2, "{said}");
    let last = said.lines().last().unwrap();
    assert!(last.starts_with("1: digest: sha256:") && last.contains(" size: "), "{said}");
    // Two layers and a config.
    assert_eq!(uploads(&registry.take_log()), 3);

    let again = kiln.run(&["push", &one]).success();
    assert_eq!(again.matches(": Layer already exists\n").count(), 2, "{again}");
    assert_eq!(uploads(&registry.take_log()), 0);

    // One more layer: kiln uploads it and the new config.
    let two = format!("{name}:2");
    kiln.build_text(&format!("{dockerfile}RUN echo two > /two\n"), &["-t", &two]).success();
    assert_eq!(kiln.run(&["push", "--quiet", &two]).success(), format!("{two}\n"));
    let log = registry.take_log();
    assert_eq!(uploads(&log), 2, "{log:#?}");

    let other = crate::kiln();
    for file in ["home/.docker/config.json", "home/.config/kiln/registries.toml"] {
        if let Ok(text) = std::fs::read(kiln.path(file)) {
            other.write(file, text);
        }
    }
    let pulled = other.run(&["pull", &one]).success();
    let lines: Vec<&str> = pulled.lines().collect();
    assert_eq!(lines[0], "1: Pulling from team/app");
    assert_eq!(pulled.matches(": Pull complete\n").count(), 2, "{pulled}");
    assert!(pulled.contains(&format!("Status: Downloaded newer image for {one}\n{one}\n")));
    let (here, there) = (blobs(kiln), blobs(&other));
    assert_eq!(there.len(), 4, "manifest, config and two layers");
    assert!(there.iter().all(|(name, bytes)| here.get(name) == Some(bytes)));
    assert!(pulled.contains(last.split(' ').nth(2).unwrap()), "{pulled}");
    let again = other.run(&["pull", &one]).success();
    assert!(again.contains(&format!("Status: Image is up to date for {one}\n")), "{again}");
    assert_eq!(other.run(&["run", "--rm", &one]).success(), "one\n");
    other.build_text(&format!("FROM {two}\nRUN test -e /two\n"), &[]).success();
    let all = other.run(&["pull", "--all-tags", &name]).success();
    assert!(all.contains("2: Pulling from team/app\n"), "{all}");
    assert!(other.run(&["images"]).success().contains("team/app   2"), "{all}");
}

#[test]
fn images_go_to_a_registry_and_come_back() {
    if skip("images_go_to_a_registry_and_come_back", &NEEDS) {
        return;
    }
    builds_pushes_and_pulls(&kiln(), &DockerRegistry::start());
}

#[test]
fn images_go_to_a_registry_with_tls_and_a_password() {
    if skip("images_go_to_a_registry_with_tls_and_a_password", &NEEDS) {
        return;
    }
    let options = RegistryOptions { tls: true, login: true, ..RegistryOptions::default() };
    let registry = DockerRegistry::start_with(options);
    let (kiln, address) = (kiln(), registry.address());
    let image = format!("{address}/x");
    let refused = kiln.run(&["pull", &image]).failure();
    assert!(refused.contains("certificate"), "{refused}");
    let text =
        format!("[registry.\"{address}\"]\nca = [\"{}\"]\n", registry.file("ca.crt").display());
    kiln.write("home/.config/kiln/registries.toml", text);
    let refused = kiln.run(&["pull", &image]).failure();
    assert!(refused.contains("a name and a password"), "{refused}");
    assert!(refused.contains(&format!("kiln login {address}")), "{refused}");
    kiln.run(&["login", &address, "-u", LOGIN.0, "-p", LOGIN.1]).success();
    builds_pushes_and_pulls(&kiln, &registry);
}

#[test]
fn a_base_that_nobody_runs_in_stays_where_it_is() {
    if skip("a_base_that_nobody_runs_in_stays_where_it_is", &NEEDS) {
        return;
    }
    let (registry, elsewhere) = (DockerRegistry::start(), DockerRegistry::start());
    let base = format!("{}/base", registry.address());
    let kiln_of_base = kiln();
    kiln_of_base.build_text("FROM base\nRUN echo x > /x\n", &["-t", &base, "--push"]).success();
    assert!(kiln_of_base.run(&["images", "-q"]).success().is_empty(), "it is pushed only");

    let kiln = kiln();
    let derived = format!("{}/team/derived:1", registry.address());
    let dockerfile = format!("FROM {base}\nCOPY --link f /f\nLABEL a=b\n");
    kiln.write("context/Dockerfile", &dockerfile);
    kiln.write("context/f", "content");
    registry.take_log();
    kiln.build("context", &["-t", &derived, "--push"]).success();
    let log = registry.take_log();
    assert_eq!(downloads(&log), 1, "the config of the base: {log:#?}");
    assert_eq!(uploads(&log), 2, "the new layer and the config: {log:#?}");
    let mounted = |line: &&String| line.starts_with("POST ") && line.ends_with(" 201");
    assert_eq!(log.iter().filter(mounted).count(), 2, "{log:#?}");

    // Another registry gets everything, through this machine.
    let copy = format!("{}/copy", elsewhere.address());
    kiln.build("context", &["-t", &copy, "--output", "type=registry"]).success();
    assert_eq!(downloads(&registry.take_log()), 2);
    assert_eq!(uploads(&elsewhere.take_log()), 4);
    assert_eq!(kiln.run(&["run", "--rm", &copy, "cat", "/f", "/x"]).success(), "contentx\n");
}

#[test]
fn a_base_of_several_platforms_stays_where_it_is() {
    if skip("a_base_of_several_platforms_stays_where_it_is", &NEEDS) {
        return;
    }
    let registry = DockerRegistry::start();
    let base = format!("{}/base", registry.address());
    let platforms = ["--platform", "linux/amd64,linux/arm64,linux/s390x"];
    let text = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /$TARGETARCH\n";
    kiln().build_text(text, &[platforms[0], platforms[1], "-t", &base, "--push"]).success();

    let kiln = kiln();
    registry.take_log();
    let derived = format!("{}/team/derived:1", registry.address());
    // A second output that keeps nothing has no effect.
    let arguments = ["-t", &derived, "--push", "-o", "type=registry", "-o", "type=cacheonly"];
    let text = format!("FROM {base}\nLABEL a=b\n");
    kiln.build_text(&text, &[&platforms[..], &arguments].concat()).success();
    let log = registry.take_log();
    assert_eq!(downloads(&log), 3, "the configs of the base: {log:#?}");
    assert_eq!(uploads(&log), 3, "the configs: {log:#?}");
    let mounted = |line: &&String| line.starts_with("POST ") && line.ends_with(" 201");
    assert_eq!(log.iter().filter(mounted).count(), 3, "{log:#?}");
    let blobs = blobs(&kiln);
    let is_layer = |bytes: &Vec<u8>| bytes.starts_with(&[0x1f, 0x8b]);
    assert!(!blobs.values().any(is_layer), "no layer has come here");

    // In the base's own repository no mount is necessary. A registry that mounts nothing gets the
    // missing blobs, and kiln fetches no blob that the registry has.
    let own = format!("{base}:own");
    kiln.build_text(&text, &[platforms[0], platforms[1], "-t", &own, "--push"]).success();
    let log = registry.take_log();
    assert_eq!((downloads(&log), uploads(&log)), (0, 0), "the configs are mounted: {log:#?}");
    fake_registry_without_mounts();
}

/// Pushes an image based on one in a fake registry that mounts nothing: to the base's repository
/// and to another one.
fn fake_registry_without_mounts() {
    let registry = FakeRegistry::start();
    let base = format!("{}/base", registry.address());
    kiln().build_text("FROM base\n", &["-t", &base, "--push"]).success();
    registry.switch(|switches| switches.no_mounts = true);
    let kiln = kiln();
    let text = format!("FROM {base}\nLABEL a=b\n");
    let fetched = |name: &str| {
        registry.take_requests();
        kiln.build_text(&text, &["-t", name, "--push"]).success();
        let requests = registry.take_requests();
        let is_blob = |request: &&kiln_testkit::fake_registry::Request| {
            request.method == "GET" && request.path.contains("/blobs/sha256:")
        };
        requests.iter().filter(is_blob).count()
    };
    assert_eq!(fetched(&format!("{base}:derived")), 1, "the config of the base");
    assert_eq!(fetched(&format!("{}/other", registry.address())), 1, "the layer");
}

#[test]
fn outputs_are_pushed_as_buildx_does() {
    if skip("outputs_are_pushed_as_buildx_does", &NEEDS) {
        return;
    }
    let (kiln, registry) = (kiln(), DockerRegistry::start());
    let name = |name: &str| format!("{}/{name}", registry.address());
    let dockerfile = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /\n";
    let platforms = "linux/amd64,linux/arm64,linux/arm/v7,linux/riscv64";
    let several = name("several:1");
    kiln.build_text(dockerfile, &["--platform", platforms, "-t", &several, "--push"]).success();
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--raw", &format!("docker://{several}")]);
    let index: serde_json::Value = serde_json::from_str(&run(&mut skopeo).success()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 4);

    // An image that was pulled for one platform: another repository gets that platform, the same
    // repository all.
    kiln.run(&["pull", "--platform", "linux/arm64", &several]).success();
    let same = kiln.run(&["push", &several]).success();
    assert!(!same.contains("Info:"), "{same}");

    let (stored, pushed) = (name("stored"), name("digest"));
    let output = format!("type=image,push=true,name={stored}");
    kiln.build_text(dockerfile, &["--output", &output]).success();
    assert!(kiln.run(&["images"]).success().contains("/stored"));
    kiln.run(&["pull", &stored]).success();
    let output = format!("type=registry,push-by-digest=true,name={pushed}");
    let iidfile = kiln.path("iid");
    let iid = iidfile.to_str().unwrap();
    kiln.build_text(dockerfile, &["--output", &output, "--iidfile", iid]).success();
    let missing = kiln.run(&["pull", &pushed]).failure();
    assert!(missing.contains("not found"), "{missing}");
    let log = registry.take_log();
    let put = log.iter().rfind(|line| line.starts_with("PUT /v2/digest/manifests/")).unwrap();
    let digest = put.split(['/', ' ']).nth(5).unwrap();
    kiln.run(&["pull", &format!("{pushed}@{digest}")]).success();

    for (arguments, text) in [
        (&["--push"][..], "tag is needed when pushing to registry"),
        (&["--output", "type=registry"], "tag is needed when pushing to registry"),
        (
            &["--output", "type=registry,push-by-digest=true", "-t", "a:1"],
            "can't push tagged ref docker.io/library/a:1 by digest",
        ),
    ] {
        let stderr = kiln.build_text("FROM scratch\n", arguments).failure();
        assert!(stderr.contains(text), "{stderr}");
    }
    let stderr = kiln.run(&["push", "nowhere"]).failure();
    assert!(stderr.contains("An image does not exist locally with the tag: nowhere"), "{stderr}");
}

#[test]
fn a_download_goes_on_in_the_next_process() {
    let (kiln, registry) = (kiln(), FakeRegistry::start());
    let layer: Vec<u8> = (0..8_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
    let digest = registry.put_blob(&layer);
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [digest]},
    });
    let config = config.to_string();
    let config_digest = registry.put_blob(config.as_bytes());
    let kind = "application/vnd.oci.image";
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": format!("{kind}.manifest.v1+json"),
        "config": {
            "mediaType": format!("{kind}.config.v1+json"),
            "digest": config_digest, "size": config.len(),
        },
        "layers": [{
            "mediaType": format!("{kind}.layer.v1.tar"), "digest": digest, "size": layer.len(),
        }],
    });
    let media_type = format!("{kind}.manifest.v1+json");
    registry.put_manifest("a/b", "1", &media_type, manifest.to_string().as_bytes());
    let name = format!("{}/a/b:1", registry.address());
    registry.switch(|switches| switches.trickle = Some(std::time::Duration::from_millis(150)));
    let mut pull = kiln.command(&["pull", &name]).spawn().unwrap();
    let partial = kiln.root().join("ingest").join(digest.hex());
    kiln_testkit::peers::wait_until("something has arrived", || {
        partial.metadata().is_ok_and(|file| file.len() > 2_000_000)
    });
    pull.kill().unwrap();
    pull.wait().unwrap();
    registry.switch(|switches| switches.trickle = None);
    registry.take_requests();
    kiln.run(&["pull", &name]).success();
    let requests = registry.take_requests();
    let range = requests.iter().find_map(|request| request.headers.get("range"));
    assert!(range.is_some(), "{requests:?}");
    assert!(!partial.exists());
    assert_eq!(blobs(&kiln)[digest.hex().as_str()], layer);
}
