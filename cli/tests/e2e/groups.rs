//! Control groups: the resource limits of steps and containers.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use kiln_testkit::environment::base_layout;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

/// A script that doubles a string until the memory is used up.
const GREED: &str = "x=0123456789; while :; do x=$x$x; done";

/// The start of a command that prints a file of the control groups that a program sees.
const FIND: &str = "cat $(find /sys/fs/cgroup -name ";

/// Finds the groups below a directory whose name contains `name`.
fn walk(directory: &Path, name: &str, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            if entry.file_name().to_string_lossy().contains(name) {
                found.push(entry.path());
            }
            walk(&entry.path(), name, found);
        }
    }
}

/// Returns the control groups of this machine that have a name.
pub(crate) fn groups_called(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), name, &mut found);
    found
}

fn prepared() -> Kiln {
    let kiln = kiln();
    kiln.build_text("FROM base\nRUN true\n", &["-t", "a"]).success();
    kiln
}

#[test]
fn containers_use_no_more_than_they_may() {
    if skip("containers_use_no_more_than_they_may", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let greedy = kiln.run(&["run", "--rm", "-m", "16m", "a", "sh", "-c", GREED]);
    assert!(!greedy.stderr.contains("WARNING"), "{}", greedy.stderr);
    assert_eq!(greedy.code, 137, "{}", greedy.stderr);
    let told = "out of memory (limit 16 MiB): the kernel has killed 1 process";
    assert!(greedy.stderr.contains(told), "{}", greedy.stderr);
    let script = "for i in 1 2 3 4 5 6 7 8; do sleep 1 & done; wait";
    let forks = kiln.run(&["run", "--rm", "--pids-limit", "5", "a", "sh", "-c", script]);
    assert!(forks.failure().contains("can't fork"));
}

#[test]
fn containers_see_their_limits() {
    if skip("containers_see_their_limits", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let run = |limits: &[&str], script: &str| {
        let seen = kiln.run(&[&["run", "--rm"], limits, &["a", "sh", "-c", script]].concat());
        assert!(!seen.stderr.contains("WARNING"), "{}", seen.stderr);
        seen.success()
    };
    let quota = format!("{FIND} cpu.cfs_quota_us -o -name cpu.max)");
    let seen = run(&["--cpus", "0.5"], &quota);
    assert!(["50000\n", "50000 100000\n"].contains(&seen.as_str()), "{seen}");
    let memory = format!("{FIND} memory.limit_in_bytes -o -name memory.max)");
    assert_eq!(run(&["-m", "64m"], &memory), "67108864\n");
    assert_eq!(run(&["--pids-limit", "33"], &format!("{FIND} pids.max)")), "33\n");
    let pinned = "nproc; grep Cpus_allowed_list /proc/self/status | cut -f 2";
    assert_eq!(run(&["--cpuset-cpus", "0"], pinned), "1\n0\n");
    let hidden = "cat /proc/self/cgroup | grep -c kiln- ; true";
    assert_eq!(run(&["-m", "64m", "--cpus", "0.5"], hidden), "0\n");
    let kept = "for d in $(find /sys/fs/cgroup -type d); do mkdir $d/x 2>/dev/null && echo MADE; \
                echo 1 2>/dev/null > $d/memory.limit_in_bytes && echo WRITTEN; done; true";
    assert_eq!(run(&["-m", "64m", "--cpus", "0.5"], kept), "");
}

#[test]
fn steps_use_no_more_than_they_may() {
    if skip("steps_use_no_more_than_they_may", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let greedy = format!("FROM base\nRUN {GREED}\n");
    let failed = kiln.build_text(&greedy, &["-m", "16m"]).failure();
    assert!(failed.contains("killed: out of memory (limit 16 MiB)"), "{failed}");
    // The shell starts the greedy program and survives it.
    let greedy = format!("FROM base\nRUN sh -c '{GREED}' || exit 3\n");
    let failed = kiln.build_text(&greedy, &["--memory", "16m"]).failure();
    assert!(failed.contains("exit code: 3: out of memory (limit 16 MiB)"), "{failed}");
    let pinned = "FROM base\nRUN nproc > /n\n";
    let limits = ["--cpuset-cpus", "0", "--cpu-shares", "512", "--cpu-quota", "90000"];
    let built = kiln.build_text(pinned, &[&limits[..], &["-t", "n"]].concat());
    assert!(!built.stderr.contains("can't be limited"), "{}", built.stderr);
    assert_eq!(kiln.run(&["run", "n", "cat", "/n"]).success(), "1\n");
    let refused = kiln.build_text(pinned, &["-m", "1m"]).failure();
    assert!(refused.contains("invalid --memory: it must be 6m at least"), "{refused}");
}

#[test]
fn limits_are_no_part_of_what_a_step_is() {
    if skip("limits_are_no_part_of_what_a_step_is", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base\nRUN head -c 20 /dev/urandom | sha256sum > /random\n";
    kiln.build_text(dockerfile, &["-t", "one"]).success();
    let limits = ["-m", "64m", "-c", "100", "--cpu-quota", "50000", "--cpuset-cpus", "0"];
    kiln.build_text(dockerfile, &[&limits[..], &["-t", "two"]].concat()).success();
    let random = |image: &str| kiln.run(&["run", image, "cat", "/random"]).success();
    assert_eq!(random("one"), random("two"));
}

#[test]
fn groups_can_be_put_below_a_parent() {
    if skip("groups_can_be_put_below_a_parent", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let parent = format!("kiln-test-{}", std::process::id());
    let path = format!("/{parent}/jobs");
    let sleeping = |arguments: &[&str]| {
        let child = kiln.command(arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap();
        let start = Instant::now();
        let is_inside = || {
            let mut groups = Vec::new();
            for hierarchy in std::fs::read_dir("/sys/fs/cgroup").unwrap().flatten() {
                walk(&hierarchy.path().join(&path[1..]), "", &mut groups);
            }
            walk(&Path::new("/sys/fs/cgroup").join(&path[1..]), "", &mut groups);
            let processes = |group: &PathBuf| std::fs::read_to_string(group.join("cgroup.procs"));
            groups.iter().any(|group| processes(group).is_ok_and(|text| !text.is_empty()))
        };
        while !is_inside() {
            assert!(start.elapsed() < Duration::from_secs(20), "nothing runs below {path}");
            std::thread::sleep(Duration::from_millis(20));
        }
        child.wait().unwrap();
        assert!(groups_called(&parent).is_empty());
    };
    sleeping(&["run", "--rm", "--cgroup-parent", &path, "a", "sleep", "2"]);
    kiln.write("ctx/Dockerfile", "FROM base\nRUN sleep 2\n");
    let context = kiln.path("ctx").display().to_string();
    let base = format!("base=oci-layout://{}", base_layout().display());
    sleeping(&["build", "--build-context", &base, "--cgroup-parent", &path, &context]);
}

#[test]
fn a_killed_kiln_leaves_no_groups_for_ever() {
    if skip("a_killed_kiln_leaves_no_groups_for_ever", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let mut child = kiln
        .command(&["run", "--rm", "-m", "64m", "--cpus", "1", "a", "sleep", "71"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let name = format!("kiln-{}-", child.id());
    let start = Instant::now();
    while groups_called(&name).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "there are no groups");
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    while !groups_called(&name).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(30), "the groups stay");
        kiln.run(&["run", "--rm", "-m", "64m", "--cpus", "1", "a", "true"]).success();
    }
}

#[test]
fn steps_use_the_devices_that_debootstrap_makes() {
    if skip("steps_use_the_devices_that_debootstrap_makes", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    // debootstrap's first test in the tree that it creates.
    let dockerfile = "FROM base\nRUN mkdir -p /target/dev && mknod -m 666 /target/dev/test c 1 3 && \
                      echo test > /target/dev/test && rm /target/dev/test && \
                      mknod -m 666 /target/dev/zero c 1 5 && mknod /target/dev/sda b 8 0 && \
                      mknod /target/dev/mem c 1 1\n\
                      RUN head -c 3 /target/dev/zero | wc -c > /seen; \
                      for d in sda mem; do (: < /target/dev/$d) 2>/dev/null && echo $d; done >> /seen; true\n";
    for runtime in ["", "runc"] {
        if runtime == "runc" && skip("the same with runc", &[Need::Program("runc")]) {
            return;
        }
        let arguments = ["--no-cache", "--oci-runtime", runtime, "-t", "a"];
        kiln.build_text(dockerfile, &arguments).success();
        assert_eq!(kiln.run(&["run", "a", "cat", "/seen"]).success(), "3\n", "{runtime}");
    }
}
