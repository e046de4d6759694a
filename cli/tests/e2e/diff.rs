//! `kiln diff`.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::kiln;

/// Compares two images, which differ, and returns how.
fn report(kiln: &Kiln, a: &str, b: &str) -> Value {
    let output = kiln.run(&["diff", "--format", "json", a, b]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Imports what a script has made of the directory `fs`, and returns the image's ID.
fn import(kiln: &Kiln, script: &str, tar: &str) -> String {
    let script = format!(
        "rm -rf fs && mkdir fs && cd fs && {script} && cd .. && tar -C fs {tar} -cf fs.tar ."
    );
    run(Command::new("sh").args(["-c", &script]).current_dir(kiln.path(""))).success();
    kiln.run(&["import", "fs.tar"]).success().trim().to_owned()
}

const FILES: &str = "mkdir -p a/b && echo 1 > a/one && echo 22 > a/b/two && ln -s one a/link && \
                     ln a/one a/hard && touch -d @1000000000 . a a/b a/one a/b/two && \
                     touch -hd @1000000000 a/link";
/// What tar is told, so that it writes the same each time.
const SAME: &str = "--sort=name --owner=0 --group=0 --numeric-owner --format=ustar";

#[test]
fn entries_differ_in_many_ways() {
    let kiln = kiln();
    let base = import(&kiln, FILES, SAME);
    let same = kiln.run(&["diff", &base, &base]);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""));
    let json = kiln.run(&["diff", "--format=json", &base, &base]).success();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["identical"], true);

    let changes = [
        "chmod 600 a/one",
        "echo 2 > a/b/two",
        "rm a/link && ln -s two a/link",
        "rm -r a/b",
        "echo 3 > a/b/three",
        "touch -d @1100000000 a/b/two",
        "rm a/link && mkdir a/link",
    ];
    let restored = "touch -cd @1000000000 a a/b";
    let found = |change: &str| {
        let quiet = if change.contains("1100000000") {
            "true"
        } else {
            "touch -cd @1000000000 a/one a/b/two"
        };
        let script = format!(
            "{FILES} && {change} && ({restored}; {quiet}; touch -chd @1000000000 a/link; true)"
        );
        let report = report(&kiln, &base, &import(&kiln, &script, SAME));
        assert_eq!(report["layers"][0]["status"], "changed");
        let lines = |entries: &Value| -> Vec<String> {
            let line = |entry: &Value| {
                let what = entry["what"].as_object().map(|what| what.keys().cloned().collect());
                let what: Vec<String> = what.unwrap_or_default();
                let path = entry["path"].as_str().unwrap().trim_start_matches('/');
                format!("{} {path} {}", entry["status"].as_str().unwrap(), what.join(","))
            };
            entries.as_array().unwrap().iter().map(line).collect()
        };
        let files = lines(&report["files"]);
        (lines(&report["layers"][0]["entries"]), files)
    };
    let expected: [&[&str]; 7] = [
        // A second name is a file of its own to a container; in the tar it is a link that has a mode.
        &["changed a/hard mode", "changed a/one mode"],
        &["changed a/b/two content,size"],
        &["changed a/link link"],
        &["removed a/b ", "removed a/b/two "],
        &["added a/b/three "],
        &["changed a/b/two mtime"],
        &["changed a/link link,mode,type"],
    ];
    for (change, expected) in changes.iter().zip(expected) {
        let (entries, files) = found(change);
        let without_times = |lines: Vec<String>| -> Vec<String> {
            lines
                .into_iter()
                .filter(|line| !line.ends_with("three ") || line.starts_with("added"))
                .collect()
        };
        assert_eq!(without_times(files), expected, "{change}");
        assert!(!entries.is_empty(), "{change}");
    }

    // The same files in other tars.
    for (tar, form) in [
        (
            "--sort=name --owner=root:0 --group=root:0 --format=ustar",
            "names of owners: \"\":\"\" -> \"root\":\"root\"",
        ),
        (
            "--sort=name --owner=0 --group=0 --numeric-owner --format=gnu",
            "dialect of headers: Ustar -> Gnu",
        ),
    ] {
        let report = report(&kiln, &base, &import(&kiln, FILES, tar));
        let layer = &report["layers"][0];
        assert!(layer["entries"].is_null(), "{layer}");
        let told = layer["tar"][0].as_str().unwrap();
        assert!(told.starts_with(form), "{told}");
        assert_eq!(report["files"].as_array().unwrap().len(), 0);
    }
}

#[test]
fn images_differ_in_config_history_and_layers() {
    let needs = [Need::Program("docker-registry"), Need::Program("skopeo")];
    if skip("images_differ_in_config_history_and_layers", &needs) {
        return;
    }
    let kiln = kiln();
    kiln.write("text/file", "content\n");
    let build = |more: &str, arguments: &[&str]| {
        let dockerfile = format!("FROM scratch\nCOPY file /one\n{more}");
        let mut all = vec!["--build-arg", "SOURCE_DATE_EPOCH=1500000000"];
        all.extend_from_slice(arguments);
        kiln.build_text(&dockerfile, &all).success();
    };
    build("ENV A=1\nLABEL a=b\n", &["-t", "a"]);
    build("COPY file /two\nENV A=2\nLABEL a=b c=d\n", &["-t", "b"]);
    let found = report(&kiln, "a", "b");
    let paths = |part: &str| -> Vec<String> {
        let changes = found[part].as_array().unwrap().iter();
        changes.map(|change| change["path"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(paths("manifest"), [""; 0]);
    assert_eq!(paths("config"), ["config.Env[1]", "config.Labels.c"]);
    assert!(paths("history").contains(&"step 4".to_owned()), "{:?}", paths("history"));
    let status: Vec<&str> = found["layers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|layer| layer["status"].as_str().unwrap())
        .collect();
    assert_eq!(status, ["same", "added"]);
    let text = kiln.run(&["diff", "a", "b"]).stdout;
    for line in [
        "--- a  linux/amd64  sha256:",
        "\nConfig\n  ~ config.Env[1]: \"A=1\" -> \"A=2\"\n  + config.Labels.c: \"d\"\n",
        "\nLayers\n  = 1: sha256:",
        "\n  + 2: sha256:",
        "\nFiles\n  + /two\n",
    ] {
        let line = line.replace("amd64", kiln_oci::Platform::host().architecture.as_str());
        assert!(text.contains(&line), "{line}: {text}");
    }

    // In a registry, in an archive, in a layout; packed otherwise, it is the same content.
    let registry = DockerRegistry::start();
    let remote = format!("{}/x:1", registry.address());
    kiln.run(&["tag", "a", &remote]).success();
    kiln.run(&["push", "-q", &remote]).success();
    kiln.run(&["rmi", &remote]).success();
    kiln.run(&["save", "-o", "a.tar", "a"]).success();
    let copy = ["copy", "--insecure-policy", "docker-archive:a.tar", "oci:layout:tag"];
    run(Command::new("skopeo").args(copy).current_dir(kiln.path(""))).success();
    for place in [remote.as_str(), "a.tar", "./a.tar", "oci-archive:a.tar"] {
        assert_eq!(kiln.run(&["diff", "a", place]).code, 0, "{place}");
    }
    build(
        "ENV A=1\nLABEL a=b\n",
        &["--output", "type=oci,dest=zstd.tar,compression=zstd,force-compression=true"],
    );
    for place in ["layout:tag", "zstd.tar"] {
        let found = report(&kiln, "a", place);
        assert_eq!(found["config"].as_array().unwrap().len(), 0, "{found}");
        let status = found["layers"][0]["status"].as_str().unwrap();
        assert!(["same", "repacked"].contains(&status), "{found}");
        assert!(place != "zstd.tar" || status == "repacked", "{found}");
        assert_eq!(found["files"].as_array().unwrap().len(), 0);
    }
    for (a, b, problem) in [
        ("a", "./none.tar", "none.tar"),
        ("127.0.0.1:1/none", "a", "find 127.0.0.1:1/none"),
        ("a", "oci-archive:none.tar", "open none.tar"),
    ] {
        let output = kiln.run(&["diff", a, b]);
        assert_eq!(output.code, 2, "{}", output.stderr);
        assert!(output.stderr.contains(problem), "{}", output.stderr);
    }
}
