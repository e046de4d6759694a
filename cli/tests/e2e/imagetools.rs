//! `kiln imagetools` and `kiln manifest`, tested with Debian's docker-registry.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::kiln;

const NEEDS: [Need; 2] = [Need::Program("docker-registry"), Need::Program("skopeo")];

/// Returns the document of a name, fetched by skopeo.
fn raw(name: &str) -> Value {
    let name = format!("docker://{name}");
    let mut skopeo = Command::new("skopeo");
    skopeo.args(["inspect", "--tls-verify=false", "--raw", &name]);
    serde_json::from_str(&run(&mut skopeo).success()).unwrap()
}

/// Returns the architectures of an index.
fn architectures(index: &Value) -> Vec<&str> {
    let manifests = index["manifests"].as_array().unwrap().iter();
    manifests.map(|entry| entry["platform"]["architecture"].as_str().unwrap()).collect()
}

/// Pushes an image for each architecture, and tags it with the architecture.
fn push(kiln: &Kiln, repository: &str, architectures: &[&str]) {
    kiln.write("text/file", "content\n");
    for architecture in architectures {
        let dockerfile = "FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n";
        let (platform, name) =
            (format!("linux/{architecture}"), format!("{repository}:{architecture}"));
        let epoch = "SOURCE_DATE_EPOCH=1500000000";
        let arguments = ["--platform", &platform, "-t", &name, "--push", "--build-arg", epoch];
        kiln.build_text(dockerfile, &arguments).success();
    }
}

fn uploads(log: &[String]) -> usize {
    log.iter().filter(|line| line.starts_with("PUT ") && line.contains("/blobs/uploads/")).count()
}

#[test]
fn an_index_is_made_of_images_without_a_build() {
    if skip("an_index_is_made_of_images_without_a_build", &NEEDS) {
        return;
    }
    let (kiln, registry, elsewhere) = (kiln(), DockerRegistry::start(), DockerRegistry::start());
    let app = format!("{}/app", registry.address());
    push(&kiln, &app, &["amd64", "arm64", "s390x"]);
    registry.take_log();
    let (amd, arm, s390x) =
        (format!("{app}:amd64"), format!("{app}:arm64"), format!("{app}:s390x"));
    let both = format!("{app}:both");
    let create = |arguments: &[&str]| kiln.run(&[&["imagetools", "create"], arguments].concat());
    create(&["-t", &both, &amd, &arm]).success();
    let index = raw(&both);
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(architectures(&index), ["amd64", "arm64"]);
    assert_eq!(uploads(&registry.take_log()), 0);

    // Append another image: existing entries stay, and none is duplicated.
    create(&["--append", "-t", &both, &arm, &s390x]).success();
    let index = raw(&both);
    assert_eq!(architectures(&index), ["amd64", "arm64", "s390x"]);
    kiln.run(&["pull", "-q", "--platform", "linux/s390x", &both]).success();

    // Copy to another repository of the registry by mounts, and to another registry by a transfer.
    // The index stays unchanged.
    let (near, far) =
        (format!("{}/near:1", registry.address()), format!("{}/far:1", elsewhere.address()));
    registry.take_log();
    create(&["-t", &near, "-t", &far, &both]).success();
    assert_eq!((raw(&near), raw(&far)), (index.clone(), index.clone()));
    let log = registry.take_log();
    let mounted = |line: &&String| line.starts_with("POST ") && line.ends_with(" 201");
    assert_eq!((uploads(&log), log.iter().filter(mounted).count()), (0, 6), "{log:#?}");
    assert_eq!(uploads(&elsewhere.take_log()), 6);
    kiln.run(&["pull", "-q", "--platform", "linux/arm64", &far]).success();
    let single = format!("{}/single:1", elsewhere.address());
    create(&["-t", &single, "--prefer-index=false", &amd]).success();
    assert_eq!(raw(&single), raw(&amd));
    create(&["-t", &single, &amd]).success();
    assert_eq!(architectures(&raw(&single)), ["amd64"]);

    only_looked_at(&kiln, &both, &amd, &index);
}

/// Creates images with annotations, from digests and from a file. `index` is the index of `both`.
fn only_looked_at(kiln: &Kiln, both: &str, amd: &str, index: &Value) {
    let create = |arguments: &[&str]| kiln.run(&[&["imagetools", "create"], arguments].concat());
    let digest = index["manifests"][1]["digest"].as_str().unwrap();
    let descriptor = serde_json::json!({
        "digest": digest, "annotations": {"from": "file"}, "mediaType": "ignored", "size": 1,
    });
    let file = kiln.write("descriptor.json", descriptor.to_string());
    let said = create(&[
        "--dry-run",
        "-t",
        both,
        "--annotation",
        "index:a=b",
        "--annotation",
        "manifest-descriptor[linux/arm64]:c=d",
        "-f",
        file.to_str().unwrap(),
        amd,
    ]);
    let said: Value = serde_json::from_str(&said.success()).unwrap();
    assert_eq!(architectures(&said), ["arm64", "amd64"]);
    assert_eq!(said["annotations"], serde_json::json!({"a": "b"}));
    assert_eq!(said["manifests"][0]["annotations"], serde_json::json!({"c": "d", "from": "file"}));
    assert_eq!(said["manifests"][0]["size"], index["manifests"][1]["size"]);
    assert_eq!(raw(both), *index, "nothing was pushed");
    let said = create(&["--dry-run", "-t", both, digest]).success();
    assert!(said.contains(digest), "{said}");
    for (arguments, problem) in [
        (&[amd][..], "can't push with no tags specified, please set --tag or --dry-run"),
        (&["-t", both], "there is nothing to make an image of"),
        (&["--dry-run", "--append", amd], "--append takes a --tag"),
        (&["--dry-run", "--annotation", "manifest:a=b", amd], "invalid annotation"),
        (&["--dry-run", digest], "is of no repository"),
        (&["-t", both, "127.0.0.1:1/none"], "127.0.0.1:1/none"),
    ] {
        let error = create(arguments).failure();
        assert!(error.contains(problem), "{arguments:?}: {error}");
    }
}

#[test]
fn images_of_registries_are_looked_into() {
    if skip("images_of_registries_are_looked_into", &NEEDS) {
        return;
    }
    let (kiln, registry) = (kiln(), DockerRegistry::start());
    let app = format!("{}/app", registry.address());
    push(&kiln, &app, &["amd64", "arm64"]);
    let (amd, both) = (format!("{app}:amd64"), format!("{app}:both"));
    let annotation = "manifest-descriptor[linux/arm64]:note=x";
    let create = [
        "imagetools",
        "create",
        "-t",
        &both,
        "--annotation",
        annotation,
        &amd,
        &format!("{app}:arm64"),
    ];
    kiln.run(&create).success();
    let index = raw(&both);
    let digest = |place: usize| index["manifests"][place]["digest"].as_str().unwrap().to_owned();
    let inspect = |arguments: &[&str]| kiln.run(&[&["imagetools", "inspect"], arguments].concat());
    let bytes = inspect(&["--raw", &both]).success();
    assert_eq!(serde_json::from_str::<Value>(&bytes).unwrap(), index);
    let whole = kiln_oci::Digest::of(bytes.as_bytes());
    let manifest = "application/vnd.oci.image.manifest.v1+json";
    let expected = [
        format!("Name:      {both}"),
        "MediaType: application/vnd.oci.image.index.v1+json".to_owned(),
        format!("Digest:    {whole}"),
        " ".repeat(11),
        "Manifests: ".to_owned(),
        format!("  Name:      {app}@{}", digest(0)),
        format!("  MediaType: {manifest}"),
        "  Platform:  linux/amd64".to_owned(),
    ];
    let said = inspect(&[&both]).success();
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines[..5], expected[..5]);
    let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    for (line, expected) in lines[5..8].iter().zip(&expected[5..]) {
        assert_eq!(squeezed(line), squeezed(expected));
    }
    assert!(
        said.ends_with("  Annotations: \n    note: x\n") || said.contains("    note: x\n"),
        "{said}"
    );

    templates(&kiln, &both, &amd);
    manifests(&kiln, &app, &index);
}

fn templates(kiln: &Kiln, both: &str, amd: &str) {
    let inspect = |arguments: &[&str]| kiln.run(&[&["imagetools", "inspect"], arguments].concat());
    let whole = kiln_oci::Digest::of(inspect(&["--raw", both]).success().as_bytes());
    for (template, expected) in [
        ("{{.Name}}", both.to_owned()),
        ("{{.Manifest.digest}}", whole.to_string()),
        (
            "{{range .Manifest.manifests}}{{.platform.architecture}} {{end}}",
            "amd64 arm64 ".to_owned(),
        ),
        ("{{(index .Image \"linux/arm64\").architecture}}", "arm64".to_owned()),
        ("{{json .SBOM}}{{json .Provenance}}", "{}{}".to_owned()),
    ] {
        assert_eq!(inspect(&["--format", template, both]).success(), expected, "{template}");
    }
    let all: Value =
        serde_json::from_str(&inspect(&["--format", "{{json .}}", amd]).success()).unwrap();
    assert_eq!((&all["name"], &all["image"]["architecture"]), (&amd.into(), &"amd64".into()));
    let error = inspect(&["--format", "{{.Nothing}}", amd]).failure();
    assert!(error.contains("no field Nothing; there are Manifest, Name"), "{error}");
}

/// Tests `kiln manifest`. `index` has the images of `app` for amd64 and arm64.
fn manifests(kiln: &Kiln, app: &str, index: &Value) {
    let (amd, both) = (format!("{app}:amd64"), format!("{app}:both"));
    let digest = |place: usize| index["manifests"][place]["digest"].as_str().unwrap().to_owned();
    let said = kiln.run(&["manifest", "inspect", &amd]).success();
    assert!(said.starts_with("{\n\t\"schemaVersion\": 2,\n"), "{said}");
    assert_eq!(serde_json::from_str::<Value>(&said).unwrap(), raw(&amd));
    let said = kiln.run(&["manifest", "inspect", &both]).success();
    assert!(said.contains("\n   \"manifests\": [\n      {\n"), "{said}");
    let said = kiln.run(&["manifest", "inspect", "-v", &both]).success();
    let all: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(all[1]["Ref"], format!("{app}@{}", digest(1)));
    assert_eq!(all[1]["Descriptor"]["platform"]["architecture"], "arm64");
    assert_eq!(all[0]["OCIManifest"], raw(&amd));
    let said = kiln.run(&["manifest", "inspect", "--verbose", &amd]).success();
    let one: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(
        (&one["Ref"], &one["Descriptor"]["digest"]),
        (&amd.clone().into(), &digest(0).into())
    );
    let error = kiln.run(&["manifest", "inspect", &format!("{app}:none")]).failure();
    assert!(error.contains("not found"), "{error}");
}
