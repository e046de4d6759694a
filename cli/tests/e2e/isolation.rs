//! The view and the rights of a program in kiln, compared with those in Docker's engine.
//! `docs/internals/security.md` explains every difference.

use std::collections::BTreeSet;

use kiln_testkit::environment::run;
use kiln_testkit::peers::DockerEngine;
use kiln_testkit::{Need, skip};

use crate::kiln;

/// The document that explains the differences.
const DOCUMENT: &str = include_str!("../../../docs/internals/security.md");

/// A script that reports everything, in parts with a headline each.
const REPORT: &str = "\
echo '== status'; cat /proc/self/status
echo '== descriptor'; for n in 0 1 2; do stat -c '%A' /proc/self/fd/$n; readlink /proc/self/fd/$n; done | paste -d ' ' - -
echo '== descriptors'; ls /proc/self/fd | wc -l
echo '== mount'; cat /proc/mounts
echo '== variable'; env -0 | tr '\\0' '\\n'
echo '== process'; list=$(ps -o pid,user,comm); echo \"$list\" | grep -c .
echo '== device'; ls -l /dev
echo '== cgroup'; cat /proc/1/cgroup
echo '== limit'; cat /proc/self/limits
echo '== namespace'; for n in cgroup ipc mnt net pid user uts; do readlink /proc/self/ns/$n; done
echo '== masked'; for f in /proc/kcore /proc/keys /proc/timer_list /proc/interrupts /proc/sched_debug; do test ! -e $f || echo $f $(cat $f | wc -c); done
echo '== call'; for c in 'mount -t tmpfs x /tmp' 'unshare -U true' 'unshare -m true' 'hostname x' 'mknod /tmp/b b 7 0' 'chroot / true' 'dd if=/tmp/b of=/dev/null count=1' 'echo x > /proc/sys/vm/swappiness'; do (sh -c \"$c\" >/dev/null 2>&1 && echo may $c) || echo may not $c; done
echo '== network'; ls /sys/class/net
";

/// The lines of `/proc/self/status` that describe a program's rights rather than its state.
const STATUS: [&str; 18] = [
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "SigBlk",
    "SigIgn",
    "SigCgt",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
    "Seccomp_filters",
    "Speculation_Store_Bypass",
    "Cpus_allowed_list",
    "Mems_allowed_list",
];

/// The prefixes of lines that may differ. Each occurs in the same words in the document.
const EXPLAINED: [&str; 13] = [
    "status SigIgn",
    "variable HOSTNAME",
    "descriptor 0",
    "mount /sys/fs/cgroup",
    "mount /dev/",
    "mount /proc/",
    "mount /sys/firmware",
    "mount /sys/devices/virtual/powercap",
    "mount /etc/",
    "masked /proc/interrupts",
    "cgroup",
    "namespace cgroup",
    "limit Max",
];

/// Returns the namespaces of this process, by which the test recognizes shared ones.
fn namespaces() -> BTreeSet<String> {
    let read =
        |entry: std::io::Result<std::fs::DirEntry>| std::fs::read_link(entry.unwrap().path());
    let all = std::fs::read_dir("/proc/self/ns").unwrap().map(read);
    all.flatten().map(|link| link.display().to_string()).collect()
}

/// Converts a report into comparable lines. Each starts with a word for its part, and omits values
/// that change between runs.
fn normalise(report: &str) -> BTreeSet<String> {
    let ours = namespaces();
    let mut lines = BTreeSet::new();
    let (mut part, mut number) = ("", 0);
    for line in report.lines() {
        if let Some(name) = line.strip_prefix("== ") {
            (part, number) = (name, 0);
            continue;
        }
        let words: Vec<&str> = line.split_whitespace().collect();
        let line = match part {
            "status" => {
                let (name, value) = line.split_once(':').unwrap();
                STATUS.contains(&name).then(|| format!("{name} {}", value.trim()))
            }
            "descriptor" => {
                Some(format!("{number} {}", line.replace(|c: char| c.is_ascii_digit(), "")))
            }
            "mount" => Some(mount(&words)),
            "variable" => {
                Some(line.to_owned()).filter(|line| !line.starts_with("SHLVL=")).map(|line| {
                    if line.starts_with("HOSTNAME=") { "HOSTNAME".to_owned() } else { line }
                })
            }
            "device" => (words.len() > 4).then(|| {
                // Drop the time.
                let name = line.split(':').nth(1).unwrap_or_default();
                format!(
                    "{} {} {} {}",
                    words[0],
                    words[2],
                    words[3..words.len() - 4].join(" "),
                    &name[3..]
                )
            }),
            "cgroup" => Some(
                line.split(':').next_back().unwrap().replace(|c: char| c.is_ascii_hexdigit(), ""),
            ),
            "limit" => Some(words.join(" ")),
            "namespace" => {
                let kind = line.split(':').next().unwrap();
                Some(format!("{kind} {}", if ours.contains(line) { "shared" } else { "own" }))
            }
            _ => Some(line.to_owned()),
        };
        number += 1;
        lines.extend(line.map(|line| format!("{part} {line}")));
    }
    lines
}

/// Returns the target and type of a mount and the restrictions on it.
fn mount(words: &[&str]) -> String {
    let kept = ["ro", "rw", "nosuid", "nodev", "noexec"];
    let options: Vec<&str> = words[3].split(',').filter(|option| kept.contains(option)).collect();
    format!("{} {} {}", words[1], words[2], options.join(","))
}

fn compare(what: &str, docker: &str, kiln: &str) {
    let (docker, kiln) = (normalise(docker), normalise(kiln));
    assert!(docker.len() > 60 && kiln.len() > 60, "{what}: {docker:?}\n{kiln:?}");
    let is_explained = |line: &&String| EXPLAINED.iter().any(|start| line.starts_with(start));
    let alone = |these: &BTreeSet<String>, those: &BTreeSet<String>| -> Vec<String> {
        these.difference(those).filter(|line| !is_explained(line)).cloned().collect()
    };
    let (theirs, ours) = (alone(&docker, &kiln), alone(&kiln, &docker));
    assert!(theirs.is_empty() && ours.is_empty(), "{what}: docker {theirs:#?}, kiln {ours:#?}");
}

#[test]
fn programs_see_what_dockers_see() {
    let needs = [Need::Root, Need::Program("dockerd"), Need::Program("docker")];
    if skip("programs_see_what_dockers_see", &needs) {
        return;
    }
    for start in EXPLAINED {
        assert!(DOCUMENT.contains(&format!("`{start}")), "{start} is not explained");
    }
    let kiln = kiln();
    kiln.write("ctx/report.sh", REPORT);
    for (image, user) in [("root", "root"), ("nobody", "nobody")] {
        let dockerfile = format!("FROM base\nCOPY report.sh /\nUSER {user}\n");
        kiln.write("ctx/Dockerfile", dockerfile);
        let archive = kiln.path(&format!("{image}.tar"));
        let output = format!("type=docker,dest={}", archive.display());
        kiln.build("ctx", &["-t", image, "-o", &output, "-o", "type=image"]).success();
    }
    let engine = DockerEngine::start();
    for image in ["root", "nobody"] {
        let archive = kiln.path(&format!("{image}.tar"));
        run(engine.docker(&["load", "-i"]).arg(&archive)).success();
        let started = ["run", "--rm", "--network=none", image, "sh", "/report.sh"];
        let docker = run(&mut engine.docker(&started)).success();
        compare(&format!("run as {image}"), &docker, &kiln.run(&started).success());
    }

    let step = "RUN sh /report.sh > /tmp/seen\n";
    kiln.write("docker/Dockerfile", format!("FROM root\n{step}"));
    let mut build = engine.docker(&["build", "--network=none", "-t", "built"]);
    // The engine's built-in builder.
    run(build.arg(kiln.path("docker")).env("DOCKER_BUILDKIT", "0")).success();
    let docker =
        run(&mut engine.docker(&["run", "--rm", "--network=none", "built", "cat", "/tmp/seen"]));
    kiln.write("ctx/Dockerfile", format!("FROM base\nCOPY report.sh /\n{step}"));
    kiln.build("ctx", &["--network", "none", "-t", "built"]).success();
    let ours = kiln.run(&["run", "--rm", "built", "cat", "/tmp/seen"]);
    compare("build", &docker.success(), &ours.success());
}
