//! Tests of control groups: limits and the devices that may be opened.

use std::os::unix::fs::FileTypeExt;

use kiln_sandbox::cgroup::{Cgroup, Groups, Limits};
use kiln_sandbox::{Exit, Io, Spec};
use tokio_util::sync::CancellationToken;

use crate::Test;
use crate::life::{host_process, until};
use crate::room::{Room, bind, tmpfs};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("harmless_device_nodes_can_be_opened", nodes),
    ("nodes_in_an_image_are_no_way_to_a_disk", image_nodes),
    ("memory_is_limited_and_its_end_told", memory),
    ("a_program_is_in_its_groups_and_sees_no_more", membership),
    ("control_groups_are_seen_and_not_written", view),
];

/// Puts a program into control groups with limits.
fn grouped(spec: &mut Spec, limits: &Limits) -> Cgroup {
    let group = Groups::new().group(limits, "", false).unwrap();
    assert_eq!(group.warnings(), [""; 0]);
    spec.cgroups = group.membership().clone();
    group
}

fn nodes(room: &Room) {
    let script = "set -e; mknod -m 666 /x c 1 3; echo x > /x; mknod /dev/z c 1 5; \
                  head -c 3 /dev/z | wc -c; mknod /t c 5 0; mknod /sda b 8 0; mknod /loop b 7 0; \
                  mknod /mem c 1 1; mknod /console c 5 1; mknod /kmsg c 1 11; mknod /tun c 10 200; mknod /dev/d b 7 0; \
                  mknod /m/x c 1 3; mknod /b/x c 1 3; \
                  for f in /sda /loop /mem /console /kmsg /tun /dev/d /m/x /b/x; do \
                  if (: < $f) 2>/dev/null; then echo OPENED $f; fi; \
                  if (: > $f) 2>/dev/null; then echo OPENED $f; fi; done; echo end";
    let mut spec = room.script(script);
    std::fs::create_dir(room.path("bound")).unwrap();
    let bound = kiln_sandbox::Tree::Directory(room.path("bound"));
    spec.mounts = vec![tmpfs("/m"), bind("/b", bound, "", false)];
    let group = grouped(&mut spec, &Limits::default());
    assert!(group.membership().filters_devices, "this system can't filter devices");
    assert_eq!(room.run(&spec).ok(), "3\nend\n");
    assert!(room.path("fs/sda").metadata().unwrap().file_type().is_block_device());
    // Without a device filter, no node can be opened.
    let outcome = room.sh("mknod -m 666 /x c 1 3; echo x > /x");
    assert!(outcome.stderr.contains("Permission denied"), "{}", outcome.stderr);
}

fn image_nodes(room: &Room) {
    let make = |name: &str, kind: &str, numbers: [&str; 2]| {
        let path = room.path("base").join(name);
        let status = std::process::Command::new("mknod").arg(path).arg(kind).args(numbers).status();
        assert!(status.unwrap().success());
    };
    make("disk", "b", ["7", "0"]);
    make("memory", "c", ["1", "1"]);
    make("zero", "c", ["1", "5"]);
    let script = "for f in /disk /memory; do (: < $f) 2>/dev/null && echo OPENED $f; done; \
                  head -c 2 /zero | wc -c";
    let mut spec = room.script(script);
    let _group = grouped(&mut spec, &Limits::default());
    assert_eq!(room.run(&spec).ok(), "2\n");
}

fn memory(room: &Room) {
    let limits = Limits { memory: Some(16 << 20), ..Limits::default() };
    let mut spec = room.script("x=0123456789; while :; do x=$x$x; done");
    let group = grouped(&mut spec, &limits);
    assert_eq!(room.run(&spec).exit.unwrap(), Exit::Signal(9));
    let out = group.out_of_memory().unwrap();
    assert_eq!((out.kills, out.to_string()), (1, "out of memory (limit 16 MiB)".to_owned()));
    let mut spec = room.script("true");
    let group = grouped(&mut spec, &limits);
    room.run(&spec).ok();
    assert_eq!(group.out_of_memory(), None);
}

fn membership(room: &Room) {
    let word = "64738";
    let mut spec = room.script(&format!("cat /proc/self/cgroup; sleep {word}"));
    let limits = Limits { pids: Some(50), ..Limits::default() };
    let group = grouped(&mut spec, &limits);
    let rooms: Vec<_> = group.membership().joined.clone();
    let (text, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let io = Io::to(move |_, bytes| {
        let _ = text.send(String::from_utf8_lossy(bytes).into_owned());
    });
    room.runtime.block_on(async {
        let running = room.sandbox.start(&spec, io).await.unwrap();
        let signaller = running.signaller();
        let token = CancellationToken::new();
        let look = async {
            // The program sees the roots of its cgroup namespace.
            let seen = seen.recv().await.unwrap();
            assert!(!seen.contains("kiln-"), "{seen}");
            until(|| host_process(word).is_some());
            let groups = host_process(word).unwrap().join("cgroup");
            let groups = std::fs::read_to_string(groups).unwrap();
            let name = |line: &str| line.contains("/kiln-").then(|| line.to_owned());
            let joined: Vec<_> = groups.lines().filter_map(name).collect();
            // One group has the limit, another the device filter.
            assert!(joined.len() >= 2, "{groups}");
            signaller.send(libc::SIGKILL);
        };
        let (exit, ()) = tokio::join!(running.wait(&token), look);
        assert_eq!(exit.unwrap(), Exit::Signal(9));
    });
    drop(group);
    assert!(rooms.iter().all(|room| !room.exists()), "{rooms:?}");
}

fn view(room: &Room) {
    let limits = Limits { pids: Some(50), ..Limits::default() };
    let script = "cat $(find /sys/fs/cgroup -name pids.max | head -n 1); \
                  for d in $(find /sys/fs/cgroup -type d); do \
                  (mkdir $d/mine || echo 0 > $d/cgroup.procs) 2>/dev/null && echo WRITTEN; done; true";
    let mut spec = room.script(script);
    let group = grouped(&mut spec, &limits);
    spec.shown_cgroups = group.shown().to_vec();
    assert_eq!(room.run(&spec).ok(), "50\n");
}
