//! Tests of programs with a changed root directory, without namespaces and mounts.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use kiln_sandbox::{Network, Tree, User};

use crate::Test;
use crate::room::{Room, bind, file, tmpfs};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("processes_elsewhere_are_out_of_reach", other_processes),
    ("a_program_is_process_1", process_one),
    ("a_changed_root_directory_is_not_left", escape),
    ("only_harmless_nodes_are_made", nodes),
    ("the_kernels_files_are_those_of_the_step", kernel_files),
    ("links_lead_to_the_kernels_files", links),
    ("another_user_sees_the_kernels_files", other_user),
    ("a_program_executes_itself", itself),
    ("a_secret_is_never_in_the_tree", secret),
    ("what_is_covered_comes_back", covered),
    ("changes_go_back_to_a_writable_mount", writable),
    ("a_read_only_mount_refuses_changes", read_only),
    ("a_mount_shares_no_file_with_the_layer", shared_files),
    ("nodes_in_mounts_are_no_way_to_a_disk", nodes_in_mounts),
    ("without_a_network_there_are_local_sockets_only", no_network),
    ("the_rights_are_those_of_a_container_without_two", rights),
];

fn other_processes(room: &Room) {
    let own = std::process::id();
    let seen = room.sh(&format!(
        "kill -9 {own} 2>/dev/null; kill -STOP 1; ls /proc/{own} 2>/dev/null; kill -9 -- -1; \
         for p in /proc/[0-9]*; do cat $p/comm; done; sleep 0.1 & kill $! && echo killed; \
         nice -n 1 true; echo end"
    ));
    let seen = seen.ok();
    let names: Vec<&str> = seen.lines().collect();
    assert!(names.ends_with(&["killed", "end"]), "{seen}");
    let known = |name: &&str| ["sh", "cat", "killed", "end"].contains(name);
    assert!(names.iter().all(known), "{seen}");
}

fn process_one(room: &Room) {
    let seen = room.sh(
        "echo $$; kill -9 $$; kill -TERM 1; sh -c 'echo $PPID; test $$ = 1 || echo other'; \
         trap 'echo caught' USR1; kill -USR1 $$; readlink /proc/self > /tmp/x; cat /proc/1/comm; \
         ls -d /proc/1; env -i sh -c 'kill -9 $PPID'; echo end",
    );
    assert_eq!(seen.ok(), "1\n1\nother\ncaught\nsh\n/proc/1\nend\n");
}

fn escape(room: &Room) {
    let canary = room.canary();
    let outside = canary.path.display();
    let seen = room.sh(&format!(
        "chroot /tmp true 2>/dev/null || echo refused; cd /proc; ls ..; cd /; \
         ls /proc/self/cwd /proc/self/root /proc/1/root | grep -c canary; \
         cat /proc/self/root{outside}/secret /proc/self/cwd/../../..{outside}/secret 2>/dev/null; \
         echo end"
    ));
    let seen = seen.exit.map(|_| seen.stdout).unwrap();
    assert!(seen.starts_with("refused\nbin\n") && seen.ends_with("\n0\nend\n"), "{seen}");
    canary.check();
}

fn nodes(room: &Room) {
    let seen = room.sh(
        "mknod /tmp/disk b 254 0 2>/dev/null || echo no disk; mknod /tmp/mem c 1 1 2>/dev/null || \
         echo no memory; mknod /tmp/null c 1 3 && echo text > /tmp/null && stat -c '%t:%T' /tmp/null; \
         mknod /tmp/pipe p && test -p /tmp/pipe && echo pipe; head -c 2 /dev/zero | wc -c",
    );
    assert_eq!(seen.ok(), "no disk\nno memory\n1:3\npipe\n2\n");
}

fn kernel_files(room: &Room) {
    let seen = room.sh(
        "ls /proc > /tmp/list; grep -c '^[0-9]' /tmp/list; cat /proc/sys/kernel/hostname; readlink /proc/self/exe; \
         grep -c ' / ' /proc/mounts; cat /proc/kcore | wc -c; ls -d /proc/self/fd/0; \
         (echo x > /proc/sys/kernel/panic) 2>&1 | grep -o 'Read-only file system'; \
         (echo x > /proc/sys/kernel/hostname) 2>&1 | grep -o 'Read-only file system'; \
         echo -n changed > /proc/self/comm && cat /proc/$$/comm; test -d /sys/class/net && echo sys; \
         (echo x > /sys/kernel/uevent_helper) 2>/dev/null || echo no; ls /sys/firmware | wc -l; \
         stat -c %F /proc/self /proc/self/fd /proc/cpuinfo",
    );
    let seen = seen.ok();
    let expected = "2\nbuildkitsandbox\n/bin/busybox\n1\n0\n/proc/self/fd/0\n\
        Read-only file system\nRead-only file system\nchanged\nsys\nno\n0\n\
        symbolic link\ndirectory\nregular";
    assert_eq!(seen.lines().count(), expected.lines().count(), "{seen}");
    let same = seen.lines().zip(expected.lines());
    for (seen, expected) in same {
        assert!(seen.starts_with(expected), "{seen} {expected}");
    }
}

fn links(room: &Room) {
    let base = room.path("base");
    symlink("../proc/self/mounts", base.join("etc/mtab")).unwrap();
    symlink("/etc", base.join("conf")).unwrap();
    let seen =
        room.sh("grep -c overlay /conf/mtab; echo out > /dev/stdout; echo err > /dev/stderr; \
         echo in | cat /dev/stdin; exec 3< /etc/passwd; cat /dev/fd/3 | grep -c root; \
         readlink /proc/self/fd/3; cd /proc && read x < self/comm && echo $x; cd /dev && ls fd/0");
    assert_eq!(seen.stderr, "err\n");
    assert_eq!(seen.ok(), "1\nout\nin\n1\n/etc/passwd\nsh\nfd/0\n");
}

fn other_user(room: &Room) {
    let mut spec = room.script(
        "grep -c Uid /proc/self/status; ls /proc/self/fd | grep -c 1; cat /etc/hosts; \
         echo out > /dev/stdout; cat /secret 2>/dev/null || echo hidden; cd /tmp; \
         cat /proc/self/environ | grep -c PATH; read x < ../proc/self/comm; echo $x",
    );
    spec.process.user = User::Ids { uid: 1000, gid: 1000, groups: Vec::new() };
    let mut secret = file("/secret", "secret");
    if let kiln_sandbox::MountKind::File { mode, .. } = &mut secret.kind {
        *mode = 0o400;
    }
    spec.mounts = vec![file("/etc/hosts", "hosts\n"), secret];
    assert_eq!(room.run(&spec).ok(), "1\n1\nhosts\nout\nhidden\n1\nsh\n");
}

fn itself(room: &Room) {
    let scripts = ["/proc/self/exe", "/proc/thread-self/exe"];
    for script in scripts {
        let seen = room.sh(&format!("exec -a echo {script} again"));
        assert_eq!(seen.ok(), "again\n");
    }
}

fn secret(room: &Room) {
    let mut spec =
        room.script("cat /run/secret; ln /run/secret /run/other; cat /run/other; sleep 0.5");
    spec.mounts = vec![file("/run/secret", "hidden words\n")];
    let tree = room.path("fs/run");
    let looks = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(400));
        let read = |name: &str| std::fs::read(tree.join(name)).unwrap_or_default();
        (read("secret"), read("other"))
    });
    let seen = room.run(&spec);
    assert_eq!(looks.join().unwrap(), (Vec::new(), Vec::new()));
    assert!(seen.stdout.starts_with("hidden words\n"), "{}", seen.stdout);
}

fn covered(room: &Room) {
    let base = room.path("base");
    std::fs::create_dir_all(base.join("var/cache")).unwrap();
    std::fs::write(base.join("var/cache/own"), "own").unwrap();
    std::fs::write(base.join("dev/own"), "own").unwrap();
    std::fs::set_permissions(base.join("var/cache"), PermissionsExt::from_mode(0o751)).unwrap();
    let mut spec = room.script(
        "ls /var/cache /dev/own 2>/dev/null; touch /var/cache/new /dev/new; \
                                rmdir /var/cache 2>/dev/null || echo busy; mv /var /war",
    );
    spec.mounts = vec![tmpfs("/var/cache")];
    assert_eq!(room.run(&spec).stdout, "/var/cache:\nbusy\n");
    let own = room.path("fs/war/cache");
    assert_eq!(std::fs::read_to_string(own.join("own")).unwrap(), "own");
    assert!(!own.join("new").exists() && !room.path("fs/dev/new").exists());
    assert_eq!(own.metadata().unwrap().mode() & 0o777, 0o751);
    assert_eq!(std::fs::read_to_string(room.path("fs/dev/own")).unwrap(), "own");
    assert!(!room.path("fs/dev/null").exists());
    let beside = std::fs::read_dir(room.dir.path()).unwrap().flatten();
    let left = beside.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"."));
    assert_eq!(left.count(), 0);
}

fn writable(room: &Room) {
    let cache = room.path("cache");
    std::fs::create_dir_all(cache.join("d/e")).unwrap();
    for name in ["kept", "gone", "d/changed", "d/replaced", "d/e/deep"] {
        std::fs::write(cache.join(name), "old").unwrap();
    }
    let mut spec = room.script(
        "cd /c; rm gone; echo new > d/changed; echo new > x; mv x d/replaced; mkdir -m 700 f; \
         echo new > f/file; rm -r d/e; ln -s kept link; chown 5:6 f/file",
    );
    spec.mounts = vec![bind("/c", Tree::Directory(cache.clone()), "", false)];
    room.run(&spec).ok();
    let read = |name: &str| std::fs::read_to_string(cache.join(name)).ok();
    assert_eq!(read("kept").as_deref(), Some("old"));
    assert_eq!(read("link").as_deref(), Some("old"));
    for name in ["d/changed", "d/replaced", "f/file"] {
        assert_eq!(read(name).as_deref(), Some("new\n"), "{name}");
    }
    assert!(!cache.join("gone").exists() && !cache.join("d/e").exists());
    assert_eq!(cache.join("f").metadata().unwrap().mode() & 0o777, 0o700);
    assert_eq!(cache.join("f/file").metadata().unwrap().uid(), 5);
    assert_eq!(room.changes(), Vec::<String>::new());
}

fn read_only(room: &Room) {
    let layer = room.path("layer");
    std::fs::create_dir(&layer).unwrap();
    std::fs::write(layer.join("file"), "old").unwrap();
    let mut spec = room.script(
        "for try in 'touch /r/x' 'touch /r/file' 'mkdir /r/d' 'rm /r/file' 'mv /r/file /r/g' \
             'chmod 700 /r/file' 'chown 1 /r' 'ln -s x /r/y' 'ln /r/file /r/z'; do \
             $try 2>/dev/null && echo $try; done; cd /r; (echo x >> file) 2>/dev/null && echo x; \
         cat /r/file; touch /r/w/x && ls /r/w",
    );
    std::fs::create_dir(layer.join("w")).unwrap();
    std::fs::create_dir(room.path("cache")).unwrap();
    spec.mounts = vec![
        bind("/r", Tree::Directory(layer), "", true),
        bind("/r/w", Tree::Directory(room.path("cache")), "", false),
    ];
    assert_eq!(room.run(&spec).ok(), "oldx\n");
    assert!(room.path("cache/x").exists());
}

fn shared_files(room: &Room) {
    let (cache, layer) = (room.path("cache"), room.path("layer"));
    for directory in [&cache, &layer] {
        std::fs::create_dir(directory).unwrap();
        std::fs::write(directory.join("file"), "old").unwrap();
    }
    let mut spec = room.script(
        "ln /c/file /mine || ln /bin/busybox /c/theirs || mv /c/file /mine && echo moved; \
         echo more >> /r/file",
    );
    spec.mounts = vec![
        bind("/c", Tree::Directory(cache.clone()), "", false),
        bind("/r", Tree::Directory(layer.clone()), "", true),
    ];
    let inode = |path: &std::path::Path| path.metadata().unwrap().ino();
    let before = inode(&cache.join("file"));
    assert_eq!(room.run(&spec).stdout, "moved\n");
    assert_ne!(before, inode(&room.path("fs/mine")));
    assert!(!cache.join("file").exists() && !cache.join("theirs").exists());
    assert_eq!(std::fs::read_to_string(layer.join("file")).unwrap(), "old");
}

fn nodes_in_mounts(room: &Room) {
    let volume = room.path("volume");
    std::fs::create_dir(&volume).unwrap();
    let (disk, null) = (volume.join("disk"), volume.join("null"));
    let made =
        [("b", "254", "0", &disk), ("c", "1", "3", &null)].map(|(kind, major, minor, at)| {
            std::process::Command::new("mknod").arg(at).args([kind, major, minor]).status()
        });
    assert!(made.into_iter().all(|made| made.unwrap().success()));
    let mut spec = room.script("ls /r /w; touch /w/x");
    let tree = Tree::Directory(volume.clone());
    spec.mounts = vec![bind("/r", tree.clone(), "", true), bind("/w", tree.clone(), "", false)];
    assert_eq!(room.run(&spec).ok(), "/r:\nnull\n\n/w:\nnull\n");
    assert!(disk.exists() && null.exists() && volume.join("x").exists());
    spec.mounts = vec![bind("/etc/disk", tree, "disk", false)];
    assert!(room.run(&spec).setup_error().contains("--device"));
}

fn no_network(room: &Room) {
    let mut spec = room.script("nc 127.0.0.1 9 2>&1 | head -n 1; echo end");
    spec.network = Network::None;
    let seen = room.run(&spec).ok();
    assert!(seen.contains("Address family not supported"), "{seen}");
}

fn rights(room: &Room) {
    let mut spec = room.script("grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status");
    let rights = "00000000a00025f3";
    let seen = room.run(&spec).ok();
    assert!(seen.contains("NoNewPrivs:\t1\nSeccomp:\t2\n"), "{seen}");
    let set = |name: &str, seen: &str| {
        let line = seen.lines().find_map(|line| line.strip_prefix(name)).unwrap().to_owned();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let unsafe_ones = 1 << 18 | 1 << 27 | 1 << 21 | 1 << 19;
    let most = u64::from_str_radix(rights, 16).unwrap() | 1 << 3;
    for name in ["CapEff:", "CapBnd:"] {
        let found = set(name, &seen);
        assert_eq!(found & unsafe_ones, 0, "{seen}");
        assert_eq!(found & !most, 0, "{seen}");
    }
    spec.process.user = User::Ids { uid: 1000, gid: 1000, groups: Vec::new() };
    assert_eq!(set("CapEff:", &room.run(&spec).ok()), 0);
}
