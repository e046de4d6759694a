//! All output of steps arrives, even with a slow reader.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_oci::Digest;
use kiln_testkit::environment::base_layout;
use kiln_testkit::{Need, skip};

use crate::kiln;

/// The number of printed bytes, and the length of a line.
const PRINTED: usize = 200_000_000;
const LINE: usize = 1000;
/// The most memory of a build, in bytes.
const MEMORY: u64 = 100 << 20;

/// Returns the peak memory of a process in bytes.
fn peak(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmHWM:"));
    let size = line.and_then(|line| line.split_whitespace().nth(1));
    size.map_or(0, |size| size.parse::<u64>().unwrap() << 10)
}

#[test]
fn a_flood_arrives_whole_at_a_slow_reader_and_in_the_history() {
    if skip("a_flood_arrives_whole_at_a_slow_reader_and_in_the_history", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let script = format!(
        "s = sprintf(\"%990s\", \"\"); gsub(/ /, \"x\", s); \
         for (i = 1; i <= {}; i++) printf \"%09d%s\\n\", i, s",
        PRINTED / LINE
    );
    kiln.write("ctx/Dockerfile", format!("FROM base\nRUN awk 'BEGIN {{ {script} }}'\n"));
    let base = format!("base=oci-layout://{}", base_layout().display());
    let mut build = kiln
        .command(&["build", "--progress=plain", "--no-log-limit", "--build-context", &base, "ctx"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // The test reads only after the step has printed everything.
    let has_printed = || {
        let seen = kiln.run(&["builds", "inspect", "--format=json"]).stdout;
        serde_json::from_str(&seen).is_ok_and(|build: serde_json::Value| {
            let steps = build["steps"].as_array().unwrap();
            steps.iter().any(|step| step["log_bytes"] == PRINTED && step["status"] == "completed")
        })
    };
    let begun = Instant::now();
    while !has_printed() {
        assert!(begun.elapsed() < Duration::from_mins(5), "waited until everything was printed");
        std::thread::sleep(Duration::from_millis(300));
    }
    let mut shown = BufReader::with_capacity(1 << 20, build.stderr.take().unwrap());
    let (mut printed, mut line) = (Vec::with_capacity(PRINTED), Vec::new());
    while shown.read_until(b'\n', &mut line).unwrap() > 0 {
        // Each line starts with the step's number and a time.
        if line.ends_with(b"xxx\n") {
            printed.extend_from_slice(&line[line.len() - LINE..]);
        }
        line.clear();
        if printed.len() % (10_000 * LINE) == 0 {
            let memory = peak(build.id());
            assert!(memory < MEMORY, "{memory} bytes of memory");
        }
    }
    assert!(build.wait().unwrap().success());
    let letters = "x".repeat(LINE - 10);
    let mut expected = Vec::with_capacity(PRINTED);
    for number in 1..=PRINTED / LINE {
        expected.extend_from_slice(format!("{number:09}{letters}\n").as_bytes());
    }
    assert_eq!(printed.len(), expected.len());
    let wanted = Digest::of(&expected);
    assert_eq!(Digest::of(&printed), wanted);

    let log = Command::new(env!("CARGO_BIN_EXE_kiln"))
        .arg("--root")
        .arg(kiln.root())
        .args(["builds", "logs", "latest", "--raw"])
        .output()
        .unwrap();
    assert_eq!(Digest::of(&log.stdout), wanted);
    let kept = std::fs::read_dir(kiln.root().join("builds")).unwrap().flatten();
    let kept: u64 = kept.map(|entry| entry.metadata().unwrap().len()).sum();
    assert!(kept < 20 << 20, "the log is compressed: {kept} bytes");
}
