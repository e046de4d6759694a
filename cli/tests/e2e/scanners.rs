//! Bills of materials by scanners' images.

use std::path::Path;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, scanner, skip};
use serde_json::{Value, json};

use crate::kiln;

const GENERATOR: &str = "generator=scanner:1,ARG=x";

/// Builds the image of the scanner, and a context for its subjects.
fn with_scanner() -> Kiln {
    let kiln = kiln();
    kiln.build_text(&scanner::dockerfile("base"), &["-t", "scanner:1"]).success();
    kiln.write("ctx/file", "content");
    kiln.write("ctx/Dockerfile", scanner::STAGES);
    kiln
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Returns the names of the documents in a directory of files, by the names of their files.
fn documents(kiln: &Kiln, directory: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for file in std::fs::read_dir(kiln.path(directory)).unwrap() {
        let file = file.unwrap().path();
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        if name.ends_with(".spdx.json") {
            let statement = read(&file);
            assert_eq!(statement["predicateType"], "https://spdx.dev/Document");
            assert!(!statement["subject"].as_array().unwrap().is_empty(), "{statement}");
            found.push((name, statement["predicate"]["name"].as_str().unwrap().to_owned()));
        }
    }
    found.sort();
    found
}

fn names<'a>(all: &[(&'a str, &'a str)]) -> Vec<(String, String)> {
    all.iter().map(|(file, name)| ((*file).to_owned(), (*name).to_owned())).collect()
}

#[test]
fn scanners_read_the_stages_that_a_dockerfile_names() {
    if skip("scanners_read_the_stages_that_a_dockerfile_names", &[Need::Root]) {
        return;
    }
    let kiln = with_scanner();
    let attest = format!("type=sbom,{GENERATOR}");
    let shown = kiln.build("ctx", &["--attest", &attest, "--output", "out"]);
    assert!(
        shown.stderr.contains("generating sbom using docker.io/library/scanner:1"),
        "{shown:?}"
    );
    shown.success();
    let expected = [
        ("sbom-context.spdx.json", "sbom-context:file :x"),
        ("sbom-tools.spdx.json", "sbom-tools:tool :x"),
        ("sbom.spdx.json", "sbom:one two :x"),
    ];
    assert_eq!(documents(&kiln, "out"), names(&expected));
    assert!(kiln.path("out/one").exists() && !kiln.path("out/new").exists());

    // Build arguments replace those of the Dockerfile, and the scan of the same files is cached.
    let sbom = format!("--sbom={GENERATOR}");
    let without =
        ["CONTEXT", "STAGE"].map(|it| format!("--build-arg=BUILDKIT_SBOM_SCAN_{it}=false"));
    let arguments = [&sbom, "--output", "alone", &without[0], &without[1]];
    kiln.build("ctx", &arguments).success();
    assert_eq!(documents(&kiln, "alone"), names(&expected[2..]));
    let again = kiln.build("ctx", &[&sbom, "--output", "again"]);
    let line = again.stderr.lines().find(|line| line.contains("generating sbom")).unwrap();
    let number = line.split_whitespace().next().unwrap();
    let cached = format!("{number} CACHED");
    assert!(again.stderr.lines().any(|line| line == cached), "{}", again.stderr);
    again.success();
    assert_eq!(documents(&kiln, "again"), names(&expected));
}

#[test]
fn images_have_the_statements_of_scanners() {
    let needs = [Need::Root, Need::Program("skopeo")];
    if skip("images_have_the_statements_of_scanners", &needs) {
        return;
    }
    let kiln = with_scanner();
    let output = format!("type=oci,dest={}", kiln.path("a.tar").display());
    kiln.build("ctx", &[&format!("--sbom={GENERATOR}"), "--output", &output]).success();
    std::fs::create_dir(kiln.path("layout")).unwrap();
    let mut tar = kiln.host("tar");
    run(tar.arg("-xf").arg(kiln.path("a.tar")).arg("-C").arg(kiln.path("layout"))).success();
    let blob = |digest: &Value| {
        let digest = digest.as_str().unwrap().replace(':', "/");
        read(&kiln.path("layout/blobs").join(digest))
    };
    let index = blob(&read(&kiln.path("layout/index.json"))["manifests"][0]["digest"]);
    let image = blob(&index["manifests"][0]["digest"]);
    let attested = blob(&index["manifests"][1]["digest"]);
    let statements = attested["layers"].as_array().unwrap().iter();
    let statements: Vec<Value> = statements.map(|layer| blob(&layer["digest"])).collect();
    let found: Vec<_> = statements.iter().map(|it| it["predicate"]["name"].clone()).collect();
    // The statement about the image itself comes first.
    assert_eq!(found, ["sbom:one two :x", "sbom-context:file :x", "sbom-tools:tool :x"]);
    let files = &statements[0]["predicate"]["files"];
    let comment =
        |layer: usize| format!("layerID: {}", image["layers"][layer]["digest"].as_str().unwrap());
    assert_eq!(files[0]["comment"], comment(0), "{files}");
    assert_eq!(files[1]["comment"], comment(1), "{files}");
    assert_eq!(files[2], json!({"SPDXID": "SPDXRef-/bin/sh", "fileName": "/bin/sh"}));
    let creators = &statements[0]["predicate"]["creationInfo"]["creators"];
    assert!(creators[0].as_str().unwrap().starts_with("Tool: kiln-"), "{creators}");
    assert!(statements[1]["predicate"]["files"][0].get("comment").is_none(), "another file system");
}

#[test]
fn failures_of_scanners_are_named() {
    if skip("failures_of_scanners_are_named", &[Need::Root]) {
        return;
    }
    let kiln = with_scanner();
    let failure = |generator: &str| {
        kiln.build("ctx", &[&format!("--sbom=generator={generator}"), "--output", "out"]).failure()
    };
    let error = failure("localhost:1/none:1");
    assert!(error.contains("sbom generator localhost:1/none:1"), "{error}");
    kiln.build_text("FROM base\nCMD []\nENTRYPOINT []\n", &["-t", "empty:1"]).success();
    let error = failure("empty:1");
    assert!(error.contains("scanner docker.io/library/empty:1 does not have cmd"), "{error}");
    let text =
        "FROM base\nCMD [\"sh\", \"-c\", \"echo text > $BUILDKIT_SCAN_DESTINATION/sbom.json\"]\n";
    kiln.build_text(text, &["-t", "wrong:1"]).success();
    let error = failure("wrong:1");
    assert!(error.contains("cannot decode in-toto statement /sbom.json"), "{error}");
    kiln.build_text("FROM base\nCMD [\"false\"]\n", &["-t", "failing:1"]).success();
    let error = failure("failing:1");
    assert!(error.contains("exit code: 1"), "{error}");
    assert!(!kiln.path("out").exists());
}
