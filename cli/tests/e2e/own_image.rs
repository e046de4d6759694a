//! kiln's own image, built from the repository's `Dockerfile`.

use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, base, skip};

use crate::kiln;

/// Builds the image with this test's kiln and dummy certificates instead of stages.
pub(crate) fn build_own_image(kiln: &Kiln, arguments: &[&str]) {
    kiln.write("certificates/ca-certificates.crt", "certificates\n");
    std::fs::create_dir_all(kiln.path("binary")).unwrap();
    // Strip debug information, as in the distributed image.
    run(Command::new("strip").arg("-o").arg(kiln.path("binary/kiln")).arg(kiln.binary())).success();
    let repository = base::repository();
    let mut all = vec!["build", "--progress=plain", "--build-context", "binary=binary"];
    all.extend(["--build-context", "certificates=certificates"]);
    all.extend_from_slice(arguments);
    all.push(repository.to_str().unwrap());
    kiln.run(&all).success();
}

/// Runs the image as a user does. The test's kiln isn't static and gets this machine's libraries.
pub(crate) fn run_own_image(kiln: &Kiln, image: &str, arguments: &[&str]) -> String {
    let libraries = ["/lib", "/lib64", "/usr/lib"].into_iter();
    let libraries: Vec<String> = libraries
        .filter(|directory| Path::new(directory).is_dir())
        .map(|directory| format!("--volume={directory}:{directory}:ro"))
        .collect();
    let mut all = vec!["run", "--rm"];
    all.extend(libraries.iter().map(String::as_str));
    all.push(image);
    all.extend_from_slice(arguments);
    kiln.run(&all).success()
}

#[test]
fn kiln_builds_its_own_image_and_runs_it() {
    if skip("kiln_builds_its_own_image_and_runs_it", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    build_own_image(&kiln, &["-t", "own"]);
    let version = kiln.run(&["version"]).success();
    assert_eq!(run_own_image(&kiln, "own", &["version"]), version);
    // Without a command, the image is a server with buildkitd's arguments.
    let version = run_own_image(&kiln, "own", &["--version"]);
    assert!(version.starts_with("buildkitd github.com/moby/buildkit v0."), "{version}");
    assert!(run_own_image(&kiln, "own", &["--help"]).contains("Usage: kiln serve"));

    build_own_image(&kiln, &["--output", "type=local,dest=out"]);
    let mut find = kiln.host("find");
    let files = run(find.args(["out", "-not", "-type", "d", "-printf", "%p %l\n"])).success();
    let mut files: Vec<&str> = files.lines().collect();
    files.sort_unstable();
    let expected = [
        "out/etc/ssl/certs/ca-certificates.crt ",
        "out/usr/bin/buildctl kiln",
        "out/usr/bin/buildkitd kiln",
        "out/usr/bin/kiln ",
    ];
    assert_eq!(files, expected);
}
