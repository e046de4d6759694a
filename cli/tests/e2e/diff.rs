//! `kiln diff`.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerRegistry;
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::kiln;

/// Compares two different images and returns the report.
fn report(kiln: &Kiln, a: &str, b: &str) -> Value {
    let output = kiln.run(&["diff", "--format", "json", a, b]);
    assert_eq!(output.code, 1, "{}", output.stderr);
    serde_json::from_str(&output.stdout).unwrap()
}

/// Imports the directory `fs` after a script has filled it. Returns the image's ID.
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
/// The options that make tar's output reproducible.
const SAME: &str = "--sort=name --owner=0 --group=0 --numeric-owner --format=ustar";

/// Changes to the files, each with the expected differences between the files that a container
/// sees.
const CHANGES: &[(&str, &[&str])] = &[
    // For a container, a second name is a separate file; in the tar it is a link with a mode.
    ("chmod 600 a/one", &["changed a/hard mode", "changed a/one mode"]),
    ("echo 2 > a/b/two", &["changed a/b/two content,size"]),
    ("rm a/link && ln -s two a/link", &["changed a/link link"]),
    ("rm -r a/b", &["removed a/b ", "removed a/b/two "]),
    ("echo 3 > a/b/three", &["added a/b/three "]),
    ("touch -d @1100000000 a/b/two", &["changed a/b/two mtime"]),
    ("rm a/link && mkdir a/link", &["changed a/link link,mode,type"]),
];

/// Returns a line for each entry of a report.
fn lines(entries: &Value) -> Vec<String> {
    let line = |entry: &Value| {
        let what = entry["what"].as_object().map(|what| what.keys().cloned().collect());
        let what: Vec<String> = what.unwrap_or_default();
        let path = entry["path"].as_str().unwrap().trim_start_matches('/');
        format!("{} {path} {}", entry["status"].as_str().unwrap(), what.join(","))
    };
    entries.as_array().unwrap().iter().map(line).collect()
}

#[test]
fn entries_differ_in_many_ways() {
    let kiln = kiln();
    let base = import(&kiln, FILES, SAME);
    let same = kiln.run(&["diff", &base, &base]);
    assert_eq!((same.code, same.stdout.as_str()), (0, ""));
    let json = kiln.run(&["diff", "--format=json", &base, &base]).success();
    assert_eq!(serde_json::from_str::<Value>(&json).unwrap()["identical"], true);

    for (change, expected) in CHANGES {
        // Times stay the same unless the change is about times.
        let touch = "touch -cd @1000000000 a/one a/b/two";
        let touch = if change.starts_with("touch") { "true" } else { touch };
        let times = format!("touch -cd @1000000000 a a/b; touch -chd @1000000000 a/link; {touch}");
        let changed = import(&kiln, &format!("{FILES} && {change} && ({times}; true)"), SAME);
        let report = report(&kiln, &base, &changed);
        assert_eq!(report["layers"][0]["status"], "changed");
        assert_eq!(lines(&report["files"]), *expected, "{change}");
        assert!(!lines(&report["layers"][0]["entries"]).is_empty(), "{change}");
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

fn build(kiln: &Kiln, more: &str, arguments: &[&str]) {
    kiln.write("text/file", "content\n");
    let dockerfile = format!("FROM scratch\nCOPY file /one\n{more}");
    let mut all = vec!["--build-arg", "SOURCE_DATE_EPOCH=1500000000"];
    all.extend_from_slice(arguments);
    kiln.build_text(&dockerfile, &all).success();
}

const A: &str = "ENV A=1\nLABEL a=b\n";

#[test]
fn images_differ_in_config_history_and_layers() {
    let kiln = kiln();
    build(&kiln, A, &["-t", "a"]);
    build(&kiln, "COPY file /two\nENV A=2\nLABEL a=b c=d\n", &["-t", "b"]);
    let found = report(&kiln, "a", "b");
    let texts = |part: &str, member: &str| -> Vec<String> {
        let items = found[part].as_array().unwrap().iter();
        items.map(|item| item[member].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(texts("manifest", "path"), [""; 0]);
    assert_eq!(texts("config", "path"), ["config.Env[1]", "config.Labels.c"]);
    assert!(texts("history", "path").contains(&"step 4".to_owned()), "{found}");
    assert_eq!(texts("layers", "status"), ["same", "added"]);
    let text = kiln.run(&["diff", "a", "b"]).stdout;
    assert!(text.starts_with("The images are different.\n"), "{text}");
    let first = format!("--- a  {}  sha256:", kiln_oci::Platform::host());
    for line in [
        first.as_str(),
        "\nConfig\n  ~ config.Env[1]: \"A=1\" -> \"A=2\"\n  + config.Labels.c: \"d\"\n",
        "\nLayers\n  = 1: sha256:",
        "\n  + 2: sha256:",
        "\nFiles\n  + /two\n",
    ] {
        assert!(text.contains(line), "{line}: {text}");
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

#[test]
fn the_first_line_tells_whether_more_than_compression_and_times_differs() {
    let kiln = kiln();
    kiln.write("text/file", "content\n");
    let output = |name: &str, compression: &str, epoch: &str| {
        let more =
            format!("compression={compression},force-compression=true,rewrite-timestamp=true");
        let output = format!("type=oci,dest={name}.tar,{more}");
        let epoch = format!("SOURCE_DATE_EPOCH={epoch}");
        let arguments = ["--build-arg", &epoch, "--output", &output];
        kiln.build_text("FROM scratch\nCOPY file /one\n", &arguments).success();
    };
    output("a", "gzip", "1000");
    output("b", "zstd", "1000");
    output("c", "gzip", "2000");
    output("d", "zstd", "2000");
    for (other, line, verdict) in [
        ("b", "The images have the same ID: only their compression differs.", "compression"),
        ("c", "The images are the same but for times.", "times"),
        ("d", "The images are the same but for compression and times.", "compression-and-times"),
    ] {
        let other = format!("{other}.tar");
        let text = kiln.run(&["diff", "a.tar", &other]);
        assert_eq!((text.code, text.stdout.lines().next()), (1, Some(line)), "{}", text.stdout);
        assert_eq!(report(&kiln, "a.tar", &other)["verdict"], verdict);
    }
}

#[test]
fn images_are_compared_wherever_they_are() {
    let needs = [Need::Program("docker-registry"), Need::Program("skopeo")];
    if skip("images_are_compared_wherever_they_are", &needs) {
        return;
    }
    let kiln = kiln();
    build(&kiln, A, &["-t", "a"]);
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
    // The content is the same with another compression.
    let zstd = "type=oci,dest=zstd.tar,compression=zstd,force-compression=true";
    build(&kiln, A, &["--output", zstd]);
    for place in ["layout:tag", "zstd.tar"] {
        let found = report(&kiln, "a", place);
        assert_eq!(found["config"].as_array().unwrap().len(), 0, "{found}");
        let status = found["layers"][0]["status"].as_str().unwrap();
        assert!(["same", "repacked"].contains(&status), "{found}");
        assert!(place != "zstd.tar" || status == "repacked", "{found}");
        assert_eq!(found["files"].as_array().unwrap().len(), 0);
    }
}
