//! Tests of a program's mounts and of their cleanup.

use std::os::unix::fs::symlink;
use std::time::Duration;

use kiln_sandbox::{Mount, MountKind, Tree};
use kiln_tree::Upper;

use crate::Test;
use crate::room::{Room, bind, file, tmpfs};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("only_declared_mounts_are_seen", mounts),
    ("mounts_leave_no_trace", no_trace),
    ("a_file_comes_from_memory", memory_file),
    ("a_file_in_memory_grows_a_little", memory_file_to_write),
    ("read_only_mounts_can_not_be_written", read_only),
    ("mount_targets_stay_inside", target_links),
    ("nothing_is_mounted_in_proc", proc_targets),
    ("proc_and_dev_as_links_are_refused", linked_proc),
    ("selectors_stay_inside", selectors),
    ("stub_removal_follows_nothing", stub_attack),
    ("many_layers_are_mounted", many_layers),
    ("the_host_sees_no_mount", host_mounts),
];

fn mounts(room: &Room) {
    let spec = room.spec(&["cat", "/proc/self/mountinfo"]);
    let seen = room.run(&spec).ok();
    for line in seen.lines() {
        let target = line.split(' ').nth(4).unwrap();
        assert!(
            target == "/" || ["/proc", "/sys", "/dev"].iter().any(|own| target.starts_with(own)),
            "{line}"
        );
        let options = line.split(' ').nth(5).unwrap();
        let device = ["null", "zero", "full", "random", "urandom", "tty", "pts"];
        let device = device.iter().any(|name| target == format!("/dev/{name}"));
        let masked = line.contains("/null /proc/");
        assert!(device || masked || options.contains("nodev"), "{line}");
    }
}

fn no_trace(room: &Room) {
    let base = room.path("base");
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    for name in ["etc", "var"] {
        std::fs::File::open(base.join(name)).unwrap().set_modified(old).unwrap();
    }
    symlink("/nowhere/deep", base.join("dangling")).unwrap();
    let mut spec = room.script("cat /etc/hosts /m/deep/file; touch /m/other/x; stat -c %Y /etc");
    spec.mounts = vec![
        file("/etc/resolv.conf", "nameserver 127.0.0.1\n"),
        file("/etc/hosts", "hosts\n"),
        file("/m/deep/file", "deep\n"),
        tmpfs("/m/other"),
        tmpfs("/dangling/x"),
        tmpfs("/var/lib/cache"),
    ];
    assert_eq!(room.run(&spec).ok(), "hosts\ndeep\n1000000\n");
    assert_eq!(room.changes(), Vec::<String>::new());
    let mut spec = room.script("touch /m/mine /etc/mine; chmod 700 /var");
    spec.mounts = vec![tmpfs("/m/other"), file("/etc/hosts", ""), tmpfs("/var/x")];
    room.run(&spec).ok();
    assert_eq!(room.changes(), ["/etc", "/etc/mine", "/m", "/m/mine", "/var"]);
}

fn memory_file(room: &Room) {
    let mut spec = room.script(
        "stat -c '%a %u' /run/secret; cat /run/secret; (echo x > /run/secret) && echo WRITTEN; true",
    );
    spec.mounts = vec![Mount {
        target: "/run/secret".into(),
        kind: MountKind::File {
            contents: b"hidden\n".to_vec(),
            mode: 0o400,
            uid: 7,
            gid: 0,
            readonly: true,
        },
    }];
    assert_eq!(room.run(&spec).ok(), "400 7\nhidden\n");
}

fn memory_file_to_write(room: &Room) {
    let mut spec = room.script(
        "echo more >> /etc/x; cat /etc/x; dd if=/dev/zero of=/etc/x bs=64k count=99 2>/dev/null; \
         echo $?; test $(stat -c %s /etc/x) -lt 2000000; echo $?",
    );
    let contents = b"text\n".to_vec();
    let kind = MountKind::File { contents, mode: 0o644, uid: 0, gid: 0, readonly: false };
    spec.mounts = vec![Mount { target: "/etc/x".into(), kind }];
    assert_eq!(room.run(&spec).ok(), "text\nmore\n1\n0\n");
}

fn read_only(room: &Room) {
    let canary = room.canary();
    let tree = Tree::Directory(canary.path.clone());
    let script = "cat /c/secret; (touch /c/x || rm /c/empty || chmod 777 /c/secret) 2>/dev/null; \
                  (touch /w/x) && ls /w";
    let mut spec = room.script(script);
    let upper = Upper { fs: room.path("fs2"), work: room.path("work2") };
    std::fs::create_dir(&upper.fs).unwrap();
    std::fs::create_dir(&upper.work).unwrap();
    let writable = Tree::Overlay { lowers: vec![canary.path.clone()], upper: Some(upper) };
    spec.mounts = vec![bind("/c", tree, "", true), bind("/w", writable, "", false)];
    assert_eq!(room.run(&spec).ok(), "canary secretb\nempty\nsecret\nx\n");
    let mut spec = room.script("touch /x; echo $?; touch /tmp/x; echo $?");
    spec.readonly_rootfs = true;
    spec.mounts = vec![tmpfs("/tmp")];
    assert_eq!(room.run(&spec).ok(), "1\n0\n");
    canary.check();
}

fn target_links(room: &Room) {
    let canary = room.canary();
    let base = room.path("base");
    symlink(&canary.path, base.join("out")).unwrap();
    symlink("../../../../../..", base.join("up")).unwrap();
    symlink("/proc/self/root", base.join("magic")).unwrap();
    symlink("loop", base.join("loop")).unwrap();
    let out = canary.path.join("b");
    for target in ["/out/b/c/d", "/up/x/y", out.to_str().unwrap(), "/../../a/../q"] {
        let mut spec = room.script("true");
        spec.mounts = vec![tmpfs(target)];
        room.run(&spec).ok();
    }
    for target in ["/magic/x", "/loop/x", "/loop", "/", "/etc/passwd"] {
        let mut spec = room.script("true");
        spec.mounts = vec![tmpfs(target)];
        let message = room.run(&spec).setup_error();
        assert!(!message.is_empty(), "{target}");
    }
    canary.check();
}

fn proc_targets(room: &Room) {
    symlink("/proc/sys", room.path("base/link")).unwrap();
    for target in ["/proc/sys/kernel", "/proc", "/link/kernel", "/proc/1/fd"] {
        let mut spec = room.script("true");
        spec.mounts = vec![tmpfs(target)];
        let message = room.run(&spec).setup_error();
        assert!(message.ends_with("nothing can be mounted in /proc"), "{message}");
    }
}

fn linked_proc(room: &Room) {
    let canary = room.canary();
    for name in ["proc", "sys", "dev"] {
        let place = room.path("base").join(name);
        std::fs::remove_dir(&place).unwrap();
        symlink(&canary.path, &place).unwrap();
        let message = room.sh("true").setup_error();
        assert_eq!(message, format!("mount /{name}: it is no directory in the image"));
        std::fs::remove_file(&place).unwrap();
        // The sandbox creates a missing mount point and removes it afterwards.
        room.sh("true").ok();
        assert_eq!(room.changes(), Vec::<String>::new());
        std::fs::create_dir(&place).unwrap();
    }
    canary.check();
}

fn selectors(room: &Room) {
    let image = room.path("image");
    std::fs::create_dir_all(image.join("etc")).unwrap();
    std::fs::write(image.join("etc/hostname"), "inside\n").unwrap();
    symlink("/", image.join("x")).unwrap();
    symlink("../../../../..", image.join("y")).unwrap();
    symlink("/proc/self/root", image.join("z")).unwrap();
    let overlay = Tree::Overlay { lowers: vec![image.clone(), room.path("base")], upper: None };
    for tree in [Tree::Directory(image), overlay] {
        for selector in ["etc/hostname", "/x/etc/hostname", "y/etc/hostname", "../etc/hostname"] {
            let mut spec = room.script("cat /f");
            spec.mounts = vec![bind("/f", tree.clone(), selector, true)];
            assert_eq!(room.run(&spec).ok(), "inside\n", "{selector}");
        }
        for selector in ["z/etc/hostname", "missing"] {
            let mut spec = room.script("cat /f");
            spec.mounts = vec![bind("/f", tree.clone(), selector, true)];
            assert!(room.run(&spec).setup_error().contains(selector));
        }
    }
}

fn stub_attack(room: &Room) {
    let canary = room.canary();
    let link = canary.path.to_str().unwrap();
    // The program can't move the mount itself, but can replace directories above it by a link.
    let script = format!("mv /a /moved; ln -s {link} /a; rm -rf /e; ln -s {link}/empty /e; true");
    let mut spec = room.script(&script);
    spec.mounts = vec![tmpfs("/a/b"), tmpfs("/a/b/c"), file("/a/empty", ""), file("/e", "")];
    room.run(&spec).ok();
    canary.check();
    let mut spec = room.script(&format!("rm -rf /x; mkdir /x; ln -s {link}/b /x/y; true"));
    spec.mounts = vec![tmpfs("/x/y/z")];
    room.run(&spec).ok();
    canary.check();
}

fn many_layers(room: &Room) {
    let mut lowers = vec![room.path("base")];
    let long = "n".repeat(120);
    for number in 0..200 {
        let layer = room.path(&format!("{long}/{long}/layer:{number},x"));
        std::fs::create_dir_all(&layer).unwrap();
        std::fs::write(layer.join(format!("f{number}")), "").unwrap();
        std::fs::write(layer.join("last"), number.to_string()).unwrap();
        lowers.insert(0, layer);
    }
    let mut spec = room.script("ls /f* | wc -l; cat /last");
    spec.rootfs = Tree::Overlay { lowers, upper: Some(room.upper()) };
    assert_eq!(room.run(&spec).ok(), "200\n199");
}

fn host_mounts(room: &Room) {
    let before = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut spec = room.script("true");
    spec.mounts = vec![tmpfs("/x")];
    room.run(&spec).ok();
    let after = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert_eq!(before, after);
    assert!(std::fs::read_dir(room.path("anchor")).unwrap().next().is_none());
}
