//! Layers that are packed while the build is still running.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use kiln_testkit::{Kiln, Need, skip};
use rustix::process::{Pid, Signal, kill_process};

use crate::kiln;

/// A Dockerfile whose last step runs until the test opens a gate.
const DOCKERFILE: &str = "\
FROM base AS unneeded
RUN seq 1 2000 > /unneeded
FROM base
RUN seq 1 100000 > /large
RUN --mount=type=cache,target=/gate touch /gate/closed && \\
    while [ ! -e /gate/open ]; do sleep 0.05; done
COPY --from=unneeded /unneeded /
";

/// Polls `find` until it finds something.
fn wait<T>(what: &str, mut find: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = find() {
            return found;
        }
        assert!(begun.elapsed() < Duration::from_mins(2), "{what}: not there");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the path of the file `name` below `directory`.
fn find(directory: &Path, name: &str) -> Option<PathBuf> {
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        if entry.file_name() == name {
            return Some(path);
        }
        if let Some(found) = path.is_dir().then(|| find(&path, name)).flatten() {
            return Some(found);
        }
    }
    None
}

/// Starts a build and waits for its first packed layers. Returns the build and the gate.
fn started(kiln: &Kiln) -> (Child, PathBuf) {
    kiln.write("ctx/Dockerfile", DOCKERFILE);
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let output = format!("type=oci,dest={}", kiln.path("image.tar").display());
    let arguments = ["build", "--progress=plain", "--build-context", &base, "-o", &output, "ctx"];
    let mut command = kiln.command(&arguments);
    let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let gate = wait("the gate", || find(&kiln.root().join("mounts"), "closed"));
    let blobs = kiln.root().join("content/blobs/sha256");
    // The base image's layer and the layer of the first step.
    wait("packed layers", || (std::fs::read_dir(&blobs).ok()?.count() >= 2).then_some(()));
    (child, gate)
}

#[test]
fn layers_are_packed_before_the_build_is_over() {
    if skip("layers_are_packed_before_the_build_is_over", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let (mut child, gate) = started(&kiln);
    std::fs::write(gate.with_file_name("open"), "").unwrap();
    assert!(child.wait().unwrap().success());
    assert!(kiln.path("image.tar").exists());
    // Four layers and the two documents of the image, without the layer of the stage that is only a
    // source of copies.
    let blobs = std::fs::read_dir(kiln.root().join("content/blobs/sha256")).unwrap().count();
    assert!(blobs <= 6, "{blobs} blobs");
}

#[test]
fn a_build_that_is_stopped_stops_packing() {
    if skip("a_build_that_is_stopped_stops_packing", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let (mut child, gate) = started(&kiln);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    kiln.run(&["system", "check"]).success();
    // The next build uses the packed layers.
    std::fs::write(gate.with_file_name("open"), "").unwrap();
    let output = format!("type=oci,dest={}", kiln.path("image.tar").display());
    kiln.build("ctx", &["-o", &output]).success();
}
