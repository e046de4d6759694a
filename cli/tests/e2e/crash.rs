//! A killed build leaves garbage at most, which the next build removes.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use kiln_testkit::environment::base_layout;
use kiln_testkit::{Need, skip};

use crate::kiln;

/// Returns a Dockerfile with short steps of every kind. No earlier round has run any of them.
fn dockerfile(round: u32) -> String {
    let run = |step| format!("RUN echo {round} {step} > /f{step} && rm -f /bin/vi\n");
    let runs = (0..4).map(run).collect::<Vec<_>>().concat();
    let cached = format!("RUN --mount=type=cache,target=/c echo {round} >> /c/f && cp /c/f /f\n");
    let copies = "COPY --from=a / /a\nCOPY --from=b /f /b/f\n";
    format!(
        "FROM base AS a\n{runs}COPY data /data\nFROM base AS b\n{cached}\
         FROM base\n{copies}RUN echo {round} > /end\n"
    )
}

#[test]
fn a_killed_build_is_forgotten() {
    if skip("a_killed_build_is_forgotten", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    for file in 0..50 {
        kiln.write(&format!("ctx/data/{file}"), file.to_string().repeat(1000));
    }
    let base = format!("base=oci-layout://{}", base_layout().display());
    let archive = kiln.path("out.tar");
    let output = format!("type=oci,dest={}", archive.display());
    let arguments = [
        "build",
        "-q",
        "--build-context",
        &base,
        "-t",
        "app",
        "-o",
        &output,
        "-o",
        "type=image",
        "ctx",
    ];

    kiln.write("ctx/Dockerfile", dockerfile(0));
    let begun = Instant::now();
    kiln.run(&arguments).success();
    let whole = begun.elapsed();

    // The moments are spread over the build's duration in a varying order, with a varying offset.
    let seed = std::process::id();
    for round in 1..=20 {
        kiln.write("ctx/Dockerfile", dockerfile(round));
        let mut build =
            kiln.command(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let share = f64::from((round * 7919 + seed) % 1000) / 1000.0;
        std::thread::sleep(Duration::from_secs_f64(whole.as_secs_f64() * share));
        build.kill().unwrap();
        build.wait().unwrap();
        assert!(!archive_is_torn(&archive), "round {round}: a torn archive");
        let next = kiln.run(&arguments);
        assert_eq!(next.code, 0, "round {round} (killed at {share}): {}", next.stderr);
        let seen = kiln.run(&["run", "--rm", "app", "cat", "/end"]).success();
        assert_eq!(seen, format!("{round}\n"));
    }
    kiln.run(&["images"]).success();
    assert_store_is_whole(&kiln.root());
}

/// Returns `true` if an archive exists but can't be read to its end.
fn archive_is_torn(archive: &Path) -> bool {
    archive.exists()
        && !std::process::Command::new("tar")
            .arg("-tf")
            .arg(archive)
            .output()
            .unwrap()
            .status
            .success()
}

/// Asserts that every blob matches its name, that the index is consistent, and that no unfinished
/// files are left.
fn assert_store_is_whole(root: &Path) {
    let blobs = root.join("content/blobs/sha256");
    let mut checked = 0;
    for entry in std::fs::read_dir(&blobs).unwrap() {
        let entry = entry.unwrap();
        let digest = kiln_oci::Digest::of(&std::fs::read(entry.path()).unwrap());
        assert_eq!(digest.hex(), entry.file_name().to_str().unwrap());
        checked += 1;
    }
    assert!(checked > 20, "{checked} blobs");
    let query = "import sqlite3, sys; print(sqlite3.connect(sys.argv[1]).execute('pragma integrity_check').fetchone()[0])";
    let mut check = std::process::Command::new("python3");
    check.args(["-c", query]).arg(root.join("kiln.db"));
    assert_eq!(kiln_testkit::environment::run(&mut check).success(), "ok\n");
    kiln_testkit::peers::wait_until("the leftovers of killed builds are gone", || {
        std::fs::read_dir(root.join("tmp")).unwrap().flatten().all(|entry| !entry.path().is_dir())
    });
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(root.to_str().unwrap()), "{mounts}");
}

#[test]
fn an_interrupted_build_stops_what_runs() {
    if skip("an_interrupted_build_stops_what_runs", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    // A number that no other process has in its command line.
    let seconds = format!("1{:06}", std::process::id());
    kiln.write("ctx/Dockerfile", format!("FROM base\nRUN echo before\nRUN sleep {seconds}\n"));
    let base = format!("base=oci-layout://{}", base_layout().display());
    let log = std::fs::File::create(kiln.path("log")).unwrap();
    let mut build = kiln
        .command(&["build", "--progress=plain", "--build-context", &base, "ctx"])
        .stderr(log)
        .spawn()
        .unwrap();
    let shown = || std::fs::read_to_string(kiln.path("log")).unwrap();
    let sleeps = || {
        let mut find = std::process::Command::new("pgrep");
        find.args(["-f", &format!("sleep {seconds}")]).output().unwrap().status.success()
    };
    kiln_testkit::peers::wait_until("the step runs", sleeps);
    let pid = rustix::process::Pid::from_child(&build);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(!build.wait().unwrap().success());
    assert!(!sleeps(), "the step still runs");
    assert!(shown().contains("CANCELED") && shown().contains("ERROR: canceled"), "{}", shown());
}
