//! Tests of groups in a directory tree that imitates version 2, and in this machine's hierarchies.

use super::*;

/// Creates a directory tree that imitates version 2 for a process in the group `own`.
fn unified(directory: &Path, own: &str) -> Groups {
    let controllers = "cpu cpuset memory pids\n";
    std::fs::write(directory.join("cgroup.controllers"), controllers).unwrap();
    std::fs::create_dir_all(directory.join(own)).unwrap();
    let mounts = format!("9 8 0:26 / {} rw - cgroup2 cgroup rw\n", directory.display());
    Groups::with(Layout::parse(&mounts, &format!("0::/{own}\n")))
}

#[test]
fn limits_are_set_beside_kiln_in_version_2() {
    let directory = tempfile::tempdir().unwrap();
    let groups = unified(directory.path(), "user/session");
    let limits = Limits { memory: Some(64 << 20), pids: Some(7), ..Limits::default() };
    let group = groups.group(&limits, "", false).unwrap();
    assert_eq!(group.warnings(), [""; 0]);
    let room = group.membership().unified.clone().unwrap();
    assert!(room.starts_with(directory.path().join("user")), "{room:?}");
    assert!(!room.starts_with(directory.path().join("user/session")), "{room:?}");
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    assert_eq!(read(room.join("memory.max")), "67108864");
    assert_eq!(read(room.join("memory.swap.max")), "67108864");
    assert_eq!(read(room.join("pids.max")), "7");
    for above in [directory.path(), &directory.path().join("user"), room.parent().unwrap()] {
        // A real file would list both controllers.
        assert_eq!(read(above.join("cgroup.subtree_control")), "+pids", "{above:?}");
    }
    assert_eq!(group.out_of_memory(), None);
    std::fs::write(room.join("memory.events"), "low 0\noom 1\noom_kill 2\n").unwrap();
    let out = group.out_of_memory().unwrap();
    assert_eq!((out.kills, out.to_string()), (2, "out of memory (limit 64 MiB)".to_owned()));
    // A directory tree can't filter devices.
    assert!(!group.membership().filters_devices);
}

#[test]
fn a_controller_that_is_not_passed_on_is_a_warning_with_the_reason() {
    let directory = tempfile::tempdir().unwrap();
    let groups = unified(directory.path(), "user/session");
    // Root may write to all files, but a directory can't be written to.
    std::fs::create_dir(directory.path().join("user/cgroup.subtree_control")).unwrap();
    let limits = Limits { memory: Some(64 << 20), pids: Some(7), ..Limits::default() };
    let group = groups.group(&limits, "", false).unwrap();
    let reason = |controller: &str| {
        let file = directory.path().join("user/cgroup.subtree_control");
        format!(
            "{controller} can't be limited: write +{controller} to {}: Is a directory (os error 21)",
            file.display()
        )
    };
    assert_eq!(group.warnings(), [reason("memory"), reason("pids")]);
}

#[test]
fn a_value_that_the_kernel_refuses_is_an_error() {
    let layout = Layout::of_this_process();
    let (true, Some(_)) = (rustix::process::geteuid().is_root(), layout.of("cpuset")) else {
        return;
    };
    let limits = Limits { memory_nodes: Some("700-900".to_owned()), ..Limits::default() };
    let error = Groups::with(layout).group(&limits, "", false).unwrap_err();
    assert!(error.to_string().starts_with("write 700-900 to cpuset.mems: "), "{error}");
}

#[test]
fn a_group_that_can_not_be_entered_is_not_made() {
    let directory = tempfile::tempdir().unwrap();
    let groups = unified(directory.path(), "user/session");
    // A link to itself can't be written to either.
    std::os::unix::fs::symlink("cgroup.procs", directory.path().join("user/cgroup.procs")).unwrap();
    let limits = Limits { pids: Some(7), ..Limits::default() };
    let group = groups.group(&limits, "", false).unwrap();
    let [warning] = group.warnings() else { panic!("{:?}", group.warnings()) };
    assert!(warning.contains("user/cgroup.procs: Too many levels"), "{warning}");
    assert_eq!(group.membership(), &Membership::default());
}

#[test]
fn a_parent_that_can_not_be_had_is_an_error() {
    let error = Groups::with(Layout::default()).group(&Limits::default(), "/x", false).unwrap_err();
    assert_eq!(error.to_string(), "this system has no control groups");
    let limits = Limits { pids: Some(1), ..Limits::default() };
    let group = Groups::with(Layout::default()).group(&limits, "", false).unwrap();
    assert_eq!(group.warnings(), ["pids can't be limited: this system has no such controller"]);
    assert_eq!(group.membership(), &Membership::default());
}

#[test]
fn groups_of_this_machine_go_with_their_program() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let groups = Groups::new();
    let limits = Limits { pids: Some(100), ..Limits::default() };
    let group = groups.group(&limits, "/kiln-test-parent", false).unwrap();
    let all: Vec<PathBuf> = group
        .membership()
        .joined
        .iter()
        .cloned()
        .chain(group.membership().unified.clone())
        .collect();
    assert!(all.iter().all(|room| room.is_dir()), "{all:?}");
    let again = groups.group(&Limits::default(), "/kiln-test-parent", false).unwrap();
    assert_ne!(again.membership(), group.membership());
    drop((group, again, groups));
    for room in all {
        let parent = room.ancestors().nth(2).unwrap();
        assert!(parent.ends_with("kiln-test-parent") && !parent.exists(), "{parent:?}");
    }
}

#[test]
fn version_1_filters_devices_too() {
    let layout = Layout::of_this_process();
    let devices = layout.of("devices").filter(|hierarchy| !hierarchy.unified);
    let (true, Some(devices)) = (rustix::process::geteuid().is_root(), devices) else { return };
    // Version 2 is left out.
    let groups = Groups::with(Layout { hierarchies: vec![devices.clone()] });
    let group = groups.group(&Limits::default(), "", false).unwrap();
    let membership = group.membership();
    assert!(membership.filters_devices && membership.unified.is_none());
    let directory = tempfile::tempdir().unwrap();
    let script = "echo 0 > $GROUP/cgroup.procs; mknod n c 1 3; mknod m c 1 1; mknod b b 7 0; \
                  (echo x > n) && echo null; (: < m) && echo memory; (: < b) && echo disk; true";
    let output = std::process::Command::new("sh")
        .args(["-c", script])
        .env("GROUP", &membership.joined[0])
        .current_dir(directory.path())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "null\n");
}
