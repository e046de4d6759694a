//! Base images from layouts and from a registry.

use std::process::Command;

use kiln_testkit::environment::{base_layout, run};
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Need, skip};

use crate::kiln;

#[test]
fn a_base_comes_from_a_layout_and_from_a_registry() {
    let needs = [Need::Root, Need::Program("docker-registry"), Need::Program("skopeo")];
    if skip("a_base_comes_from_a_layout_and_from_a_registry", &needs) {
        return;
    }
    let registry = DockerRegistry::start();
    let source = format!("oci:{}:base:latest", base_layout().display());
    let pushed = format!("docker://{}/base:latest", registry.address());
    let mut push = Command::new("skopeo");
    push.args(["copy", "--insecure-policy", "--dest-tls-verify=false", &source, &pushed]);
    run(&mut push).success();

    let kiln = kiln();
    let rest = "RUN echo built > /f\nCMD [\"cat\", \"/f\"]\n";
    kiln.build_text(&format!("FROM base\n{rest}"), &["-t", "from-layout"]).success();
    let from_registry = format!("FROM {}/base\n{rest}", registry.address());
    kiln.build_text(&from_registry, &["-t", "from-registry"]).success();
    for image in ["from-layout", "from-registry"] {
        assert_eq!(kiln.run(&["run", "--rm", image]).success(), "built\n");
    }

    // A layout can be named with a tag or a digest, too.
    let index = std::fs::read_to_string(base_layout().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    for suffix in [":latest".to_owned(), format!("@{digest}")] {
        let context = format!("other=oci-layout://{}{suffix}", base_layout().display());
        let dockerfile = "FROM other\nRUN echo other\n";
        kiln.build_text(dockerfile, &["--build-context", &context]).success();
    }

    // The error for a missing image names it.
    let missing = format!("FROM {}/missing:1\n", registry.address());
    let stderr = kiln.build_text(&missing, &[]).failure();
    assert!(stderr.contains("missing:1"), "{stderr}");

    // An image of the local store can be a base.
    kiln.build_text("FROM from-layout\nRUN cat /f > /g\n", &["-t", "next"]).success();
    assert_eq!(kiln.run(&["run", "--rm", "next", "cat", "/g"]).success(), "built\n");
}
