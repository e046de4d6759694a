//! Provenance and bills of materials: their contents and the places where they are kept.

use std::path::{Path, PathBuf};
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, base, skip};
use serde_json::{Value, json};

use crate::kiln;

const SLSA: &str = "https://slsa.dev/provenance/v1";
const SPDX: &str = "https://spdx.dev/Document";
const STATUS: &str = "Package: demo\nStatus: install ok installed\nVersion: 1.0-1\nArchitecture: \
                      amd64\nMaintainer: A <a@example.com>\n";
const DOCKERFILE: &str = "FROM base\nARG VERSION\nARG API_TOKEN\nCOPY status /var/lib/dpkg/status\n\
                          COPY os-release /etc/os-release\nLABEL version=$VERSION\n";

/// Creates a context with a package database.
fn write_context(kiln: &Kiln, dockerfile: &str) {
    kiln.write("ctx/Dockerfile", dockerfile);
    kiln.write("ctx/status", STATUS);
    kiln.write("ctx/os-release", "ID=debian\nVERSION_ID=12\n");
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// A layout that was unpacked from its archive.
struct Layout(PathBuf);

impl Layout {
    fn of(kiln: &Kiln, archive: &Path, name: &str) -> Self {
        let directory = kiln.path(name);
        std::fs::create_dir(&directory).unwrap();
        run(Command::new("tar").arg("-xf").arg(archive).arg("-C").arg(&directory)).success();
        Self(directory)
    }

    fn blob(&self, digest: &Value) -> PathBuf {
        self.0.join("blobs/sha256").join(&digest.as_str().unwrap()[7..])
    }

    /// Returns the index of the image.
    fn index(&self) -> Value {
        json_of(&self.blob(&json_of(&self.0.join("index.json"))["manifests"][0]["digest"]))
    }
}

/// Splits the entries of an index into images and attestations.
fn entries(index: &Value) -> (Vec<&Value>, Vec<&Value>) {
    let entries = index["manifests"].as_array().unwrap().iter();
    entries.partition(|entry| entry["platform"]["os"] != "unknown")
}

fn check_spdx(path: &Path) {
    run(Command::new(base::tool("check-spdx")).arg(path)).success();
}

#[test]
fn statements_stand_beside_the_image_in_an_index() {
    if skip("statements_stand_beside_the_image_in_an_index", &[Need::Root, Need::Program("skopeo")])
    {
        return;
    }
    let kiln = kiln();
    write_context(&kiln, DOCKERFILE);
    let build = |archive: &Path, more: &[&str]| {
        let output = format!("type=oci,dest={}{}", archive.display(), more.first().unwrap_or(&""));
        let told =
            ["--build-arg=VERSION=7", "--build-arg=API_TOKEN=s3cret", "--sbom", "-t", "app:1"];
        let mut all = vec!["--provenance=mode=max,builder-id=https://ci.example.com/1"];
        all.extend(told);
        all.extend(["--output", &output, "--output", "type=image"]);
        kiln.build("ctx", &all).success();
    };
    let (archive, again) = (kiln.path("a.tar"), kiln.path("b.tar"));
    build(&archive, &[]);
    build(&again, &[]);
    assert!(std::fs::read(&archive).unwrap() == std::fs::read(&again).unwrap(), "the same bytes");

    let layout = Layout::of(&kiln, &archive, "layout");
    let index = layout.index();
    let (images, said) = entries(&index);
    let ([image], [said]) = (images.as_slice(), said.as_slice()) else { panic!("{index}") };
    assert_eq!(said["platform"], json!({"architecture": "unknown", "os": "unknown"}));
    let annotations = &said["annotations"];
    assert_eq!(annotations["vnd.docker.reference.type"], "attestation-manifest");
    assert_eq!(annotations["vnd.docker.reference.digest"], image["digest"]);
    let manifest = json_of(&layout.blob(&said["digest"]));
    let layers = manifest["layers"].as_array().unwrap();
    let kinds: Vec<_> =
        layers.iter().map(|it| &it["annotations"]["in-toto.io/predicate-type"]).collect();
    assert_eq!(kinds, [SPDX, SLSA]);
    check_spdx(&layout.blob(&layers[0]["digest"]));
    let sbom = json_of(&layout.blob(&layers[0]["digest"]));
    let url = "pkg:deb/debian/demo@1.0-1?arch=amd64&distro=debian-12";
    assert_eq!(sbom["predicate"]["packages"][1]["externalRefs"][0]["referenceLocator"], url);
    let provenance = json_of(&layout.blob(&layers[1]["digest"]));
    let subject = &provenance["subject"][0];
    assert!(
        subject["name"].as_str().unwrap().starts_with("pkg:docker/app@1?platform=linux%2F"),
        "{subject}"
    );
    assert_eq!(
        format!("sha256:{}", subject["digest"]["sha256"].as_str().unwrap()),
        image["digest"]
    );
    is_whole(&provenance, &layout, image);
    is_read_by_others(&kiln, &archive);

    let artifact = kiln.path("c.tar");
    build(&artifact, &[",oci-artifact=true"]);
    let layout = Layout::of(&kiln, &artifact, "artifact");
    let index = layout.index();
    let manifest = json_of(&layout.blob(&entries(&index).1[0]["digest"]));
    assert_eq!(manifest["subject"]["digest"], entries(&index).0[0]["digest"]);
    assert_eq!(manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
}

/// Asserts that the provenance contains everything that it must, and nothing that it must not.
fn is_whole(provenance: &Value, layout: &Layout, image: &Value) {
    assert_eq!(provenance["predicateType"], SLSA);
    let text = provenance.to_string();
    assert!(!text.contains("s3cret"), "{text}");
    let build = &provenance["predicate"]["buildDefinition"];
    let request = &build["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:VERSION"], "7");
    assert!(request["args"].get("build-arg:API_TOKEN").is_none(), "{request}");
    assert_eq!(request["locals"], json!([{"name": "context"}, {"name": "dockerfile"}]));
    assert_eq!(build["externalParameters"]["configSource"], json!({"path": "Dockerfile"}));
    let base = &build["resolvedDependencies"][0];
    assert!(base["uri"].as_str().unwrap().starts_with("pkg:oci/base?digest=sha256:"), "{base}");
    assert_eq!(base["digest"]["sha256"].as_str().unwrap().len(), 64);
    let steps = build["internalParameters"]["buildConfig"]["llbDefinition"].as_array().unwrap();
    let copies = steps.iter().filter(|step| step["op"]["Op"].get("file").is_some()).count();
    assert!(copies >= 1 && steps.last().unwrap()["op"]["Op"] == json!({}), "{steps:?}");
    let run = &provenance["predicate"]["runDetails"];
    assert_eq!(run["builder"]["id"], "https://ci.example.com/1");
    let metadata = &run["metadata"];
    let complete = json!({"request": false, "resolvedDependencies": false});
    assert_eq!(metadata["buildkit_completeness"], complete, "an argument was left out");
    assert!(metadata.get("startedOn").is_none() && metadata.get("invocationId").is_none());
    let source = &metadata["buildkit_metadata"]["source"]["infos"][0];
    let dockerfile = kiln_llb::base64::decode(source["data"].as_str().unwrap()).unwrap();
    assert_eq!(String::from_utf8(dockerfile).unwrap(), DOCKERFILE);
    // The layers of the last step are those of the image.
    let last = steps.last().unwrap()["inputs"][0].as_str().unwrap();
    let layers = &metadata["buildkit_metadata"]["layers"][last][0];
    assert_eq!(layers, &json_of(&layout.blob(&image["digest"]))["layers"]);
}

/// Asserts that other tools accept the image, and that kiln's own commands work on it.
fn is_read_by_others(kiln: &Kiln, archive: &Path) {
    let image = format!("oci-archive:{}", archive.display());
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", &image])).success();
    assert_eq!(
        serde_json::from_str::<Value>(&raw).unwrap()["manifests"].as_array().unwrap().len(),
        2
    );
    let copy = |all: &[&str], target: String| {
        let mut skopeo = Command::new("skopeo");
        run(skopeo.args(["copy", "--insecure-policy"]).args(all).args([&image, &target])).success();
    };
    copy(&[], format!("docker-archive:{}", kiln.path("docker.tar").display()));
    copy(&["--all"], format!("oci:{}:all", kiln.path("copied").display()));
    assert_eq!(
        kiln.run(&["run", "--rm", "app:1", "cat", "/etc/os-release"]).success().lines().next(),
        Some("ID=debian")
    );
    kiln.build_text("FROM app:1\nRUN test -e /etc/os-release\n", &[]).success();
    kiln.run(&["system", "check"]).success();
}

#[test]
fn statements_are_files_beside_files_and_the_same_anywhere() {
    if skip("statements_are_files_beside_files_and_the_same_anywhere", &[Need::Root]) {
        return;
    }
    let read = |kiln: &Kiln, name: &str| std::fs::read_to_string(kiln.path(name)).unwrap();
    let arguments = ["--provenance=mode=max", "--sbom", "--output", "out"];
    let (first, second) = (kiln(), kiln());
    for kiln in [&first, &second] {
        write_context(kiln, DOCKERFILE);
        kiln.build("ctx", &arguments).success();
    }
    for name in ["out/provenance.json", "out/sbom.spdx.json"] {
        assert_eq!(read(&first, name), read(&second, name), "another store, another directory");
    }
    check_spdx(&first.path("out/sbom.spdx.json"));
    let provenance = json_of(&first.path("out/provenance.json"));
    let subjects = provenance["subject"].as_array().unwrap();
    assert!(subjects.iter().any(|it| it["name"] == "var/lib/dpkg/status"), "{provenance}");

    let kiln = first;
    let tar = format!("type=tar,dest={}", kiln.path("x.tar").display());
    let text = "mode=min,version=v0.2,timestamps=true,filename=p.json";
    kiln.build(
        "ctx",
        &[
            "--attest",
            &format!("type=provenance,{text}"),
            "--output",
            &tar,
            "--build-arg=VERSION=7",
        ],
    )
    .success();
    let listed = run(Command::new("tar").arg("-tvf").arg(kiln.path("x.tar"))).success();
    assert!(listed.contains("p.json") && listed.contains("bin/busybox"), "{listed}");
    let old =
        run(Command::new("tar").args(["-xOf", "x.tar", "p.json"]).current_dir(kiln.path(".")))
            .success();
    let old: Value = serde_json::from_str(&old).unwrap();
    assert_eq!(old["predicateType"], "https://slsa.dev/provenance/v0.2");
    let predicate = &old["predicate"];
    assert!(predicate["metadata"]["buildStartedOn"].is_string(), "{predicate}");
    assert!(
        predicate.get("buildConfig").is_none() && !predicate.to_string().contains("VERSION"),
        "{predicate}"
    );

    // Attestations don't overwrite files of the image.
    write_context(&kiln, "FROM scratch\nCOPY status /provenance.json\n");
    let error = kiln.build("ctx", &["--provenance", "--output", "other"]).failure();
    assert!(
        error.contains("can't write provenance.json: the image has a file of that name"),
        "{error}"
    );
    let docker = format!("type=docker,dest={}", kiln.path("d.tar").display());
    let error = kiln.build("ctx", &["--sbom", "--output", &docker]).failure();
    assert!(error.contains("and archives can't hold attestations"), "{error}");
    kiln.build("ctx", &["--provenance=inline-only=true", "--output", &docker]).success();
    let error = kiln.build("ctx", &["--provenance=complete-materials=true"]).failure();
    assert!(
        error.contains("not all that came into the build has a digest: the directory \"context\""),
        "{error}"
    );
}

#[test]
fn statements_about_each_platform_are_pushed() {
    let needs = [Need::Root, Need::Program("docker-registry"), Need::Program("skopeo")];
    if skip("statements_about_each_platform_are_pushed", &needs) {
        return;
    }
    let (kiln, registry) = (kiln(), DockerRegistry::start());
    write_context(
        &kiln,
        "FROM scratch\nARG TARGETARCH\nCOPY status /var/lib/dpkg/status\nLABEL for=$TARGETARCH\n",
    );
    let name = format!("{}/app:1", registry.address());
    let platforms = "--platform=linux/amd64,linux/arm64";
    kiln.build("ctx", &[platforms, "--provenance=mode=min", "--sbom", "-t", &name, "--push"])
        .success();
    let remote = format!("docker://{name}");
    let raw = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &remote]))
        .success();
    let index: Value = serde_json::from_str(&raw).unwrap();
    let (images, said) = entries(&index);
    assert_eq!((images.len(), said.len()), (2, 2), "{index}");
    for (image, said) in images.iter().zip(said) {
        assert_eq!(said["annotations"]["vnd.docker.reference.digest"], image["digest"]);
    }
    let target = format!("oci:{}:all", kiln.path("all").display());
    let copy = ["copy", "--all", "--insecure-policy", "--src-tls-verify=false", &remote, &target];
    run(Command::new("skopeo").args(copy)).success();
    let told = |kind: &str| -> Value {
        let format = format!("{{{{json .{kind}}}}}");
        let told = kiln.run(&["imagetools", "inspect", "--format", &format, &name]).success();
        serde_json::from_str(&told).unwrap()
    };
    assert_eq!(told("SBOM")["linux/arm64"]["SPDX"]["spdxVersion"], "SPDX-2.3");
    assert!(told("Provenance")["linux/amd64"]["SLSA"]["runDetails"].is_object());
    let other = crate::kiln();
    other.run(&["pull", &name]).success();

    // In a common directory, the file names contain the platform.
    write_context(&kiln, "FROM scratch\nARG TARGETARCH\nCOPY status /status.$TARGETARCH\n");
    let output = "type=local,dest=flat,platform-split=false";
    kiln.build("ctx", &[platforms, "--provenance=mode=min", "--output", output, "-o", "split"])
        .success();
    for name in ["flat/provenance.linux_amd64.json", "split/linux_arm64/provenance.json"] {
        assert!(kiln.path(name).exists(), "{name}");
    }
}
