//! Tests of programs whose supervisor answers their system calls.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use kiln_sandbox::{Exit, Isolation, Sandbox, Spec, Sysctl, Tree, User};

use crate::Test;
use crate::room::{Room, bind, file, tmpfs};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("emulated_programs_run_and_end", status),
    ("emulated_programs_see_their_root_only", root),
    ("emulated_files_are_created_and_changed", files),
    ("emulated_owners_and_modes_are_recorded", owners),
    ("emulated_users_have_the_rights_of_users", users),
    ("emulated_scripts_and_linked_programs_are_executed", programs),
    ("emulated_mounts_are_where_they_belong", mounts),
    ("emulated_processes_reach_only_their_own", processes),
    ("emulated_sockets_and_fifos_work", sockets),
    ("emulated_proc_and_dev_are_the_container_s", proc_and_dev),
    ("emulated_chroot_and_rename_of_directories", directories),
];

/// Makes the room's sandbox one without privileges. Its root is the base image itself.
fn emulated(room: &Room) -> Sandbox {
    let anchor = room.path("emulated");
    std::fs::create_dir_all(&anchor).unwrap();
    for name in ["awk", "sed", "tar", "xargs", "su", "whoami", "uname", "expr", "cp", "mktemp"] {
        let link = room.path("base/bin").join(name);
        let _ = std::os::unix::fs::symlink("busybox", link);
    }
    std::fs::set_permissions(room.path("base/tmp"), PermissionsExt::from_mode(0o1777)).unwrap();
    Sandbox::new(&anchor, Isolation::None).unwrap()
}

fn spec(room: &Room, script: &str) -> Spec {
    let mut spec = room.script(script);
    spec.rootfs = Tree::Directory(room.path("base"));
    spec
}

fn sh(room: &Room, script: &str) -> String {
    room.run_in(&emulated(room), &spec(room, script)).ok()
}

fn status(room: &Room) {
    let sandbox = emulated(room);
    for (script, exit) in [
        ("true", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        ("kill -9 $$", Exit::Signal(9)),
        ("(sleep 100 &) ; exit 3", Exit::Code(3)),
    ] {
        let outcome = room.run_in(&sandbox, &spec(room, script));
        assert_eq!(outcome.exit.unwrap(), exit, "{script}: {}{}", outcome.stdout, outcome.stderr);
    }
    let mut missing = spec(room, "");
    missing.process.args = vec!["nothing".to_owned()];
    let error = room.run_in(&sandbox, &missing).exit.unwrap_err().to_string();
    assert!(error.contains("executable file not found in $PATH"), "{error}");
    assert_eq!(room.run_in(&sandbox, &spec(room, "seq 100000")).ok().lines().count(), 100_000);
    let left = std::fs::read_dir(room.path("emulated")).unwrap().count();
    assert_eq!(left, 0, "the supervisors remove their directories");
}

fn root(room: &Room) {
    let secret = room.path("secret");
    std::fs::write(&secret, "outside").unwrap();
    let outside = secret.display();
    assert_eq!(sh(room, "pwd; cd /etc; cd ..; cd ../..; pwd; cd bin; pwd"), "/\n/\n/bin\n");
    for path in [format!("{outside}"), format!("../../../..{outside}"), format!("/../..{outside}")]
    {
        let seen = sh(room, &format!("cat {path} 2>&1 || echo none"));
        assert!(seen.ends_with("none\n") && !seen.contains("outside"), "{path}: {seen}");
    }
    let link = sh(room, &format!("ln -s ../../../../..{outside} /l; cat /l 2>&1 || echo none"));
    assert!(link.ends_with("none\n"), "{link}");
    assert_eq!(sh(room, "ls /"), "bin\ndev\netc\nl\nproc\nroot\nsys\ntmp\nvar\n");
    let seen = sh(room, "cat /proc/self/cwd/etc/passwd | head -n 1; readlink /proc/self/root");
    assert_eq!(seen, "root:x:0:0:root:/root:/bin/sh\n/\n");
    assert_eq!(sh(room, "hostname"), "buildkitsandbox\n");
}

fn files(room: &Room) {
    let script =
        "set -e; cd /tmp; umask 027; mkdir -p a/b; echo x >a/b/f; ln a/b/f a/g; ln -s b/f a/l
        cat a/l; mv a/b a/c; cat a/g; rm a/g; echo y >>a/c/f; cat a/c/f; stat -c '%a %s' a a/c/f
        touch -d '2001-02-03 04:05:06' a/c/f; stat -c %Y a/c/f; rmdir a 2>/dev/null || echo kept
        dd if=/dev/zero of=z bs=1k count=3 2>/dev/null; stat -c %s z; rm -r a; ls";
    let expected = "x\nx\nx\ny\n750 60\n640 4\n981173106\nkept\n3072\nz\n";
    let seen = sh(room, script);
    let without_size = |text: &str| text.replacen("750 4096", "750 60", 1);
    assert_eq!(without_size(&seen), expected);
}

fn owners(room: &Room) {
    let script = "set -e; cd /var; echo x >f; chown bob:staff f; chmod 4750 f; stat -c '%u:%g %a' f
        chown root f; stat -c '%u:%g %a' f; mkdir d; chown 12:34 d; chmod 2500 d; stat -c '%u:%g %a' d
        touch d/in; stat -c '%u:%g' d/in; mknod n c 1 3; stat -c '%F %t:%T' n; echo gone >n; cat n
        chmod 000 f; cat f; stat -c '%a' f; id";
    let expected = "1000:50 4750\n0:50 750\n12:34 2500\n0:34\ncharacter special file 1:3\nx\n0\n\
        uid=0(root) gid=0(root)\n";
    let seen = sh(room, script);
    assert_eq!(seen.replace("gid=0(root) groups=0(root)", "gid=0(root)"), expected);
    let file = room.path("base/var/f").metadata().unwrap();
    assert_eq!(file.mode() & 0o777, 0o600, "kiln itself must be able to read it");
}

fn users(room: &Room) {
    let sandbox = emulated(room);
    let mut as_bob = spec(
        room,
        "id -u; id -g; touch /etc/new 2>&1 || true; touch /tmp/mine; stat -c '%u:%g' /tmp/mine
         cat /etc/shadow 2>&1 || true; chown root /tmp/mine 2>&1 || true; cd /root 2>&1 || true",
    );
    std::fs::write(room.path("base/etc/shadow"), "secret").unwrap();
    std::fs::set_permissions(room.path("base/etc/shadow"), PermissionsExt::from_mode(0o600))
        .unwrap();
    std::fs::set_permissions(room.path("base/root"), PermissionsExt::from_mode(0o700)).unwrap();
    as_bob.process.user = User::Named("bob".to_owned());
    let seen = room.run_in(&sandbox, &as_bob).ok();
    assert!(seen.starts_with("1000\n1000\n"), "{seen}");
    assert!(seen.contains("/etc/new: Permission denied") && seen.contains("1000:1000"), "{seen}");
    assert!(seen.contains("shadow': Permission denied"), "{seen}");
    assert!(seen.contains("/tmp/mine: Operation not permitted"), "{seen}");
    assert!(seen.contains("/root: Permission denied"), "{seen}");
    let seen = sh(room, "su bob -c 'id -u; cat /etc/shadow 2>&1; rm -f /tmp/mine && echo removed'");
    assert!(seen.starts_with("1000\n") && seen.contains("denied"), "{seen}");
    assert!(seen.ends_with("removed\n"), "{seen}");
}

fn programs(room: &Room) {
    let base = room.path("base");
    for program in ["/usr/bin/dash", "/usr/bin/env"] {
        copy_linked(Path::new(program), &base);
    }
    let write = |name: &str, text: &str| {
        std::fs::write(base.join(name), text).unwrap();
        std::fs::set_permissions(base.join(name), PermissionsExt::from_mode(0o755)).unwrap();
    };
    write(
        "tmp/script",
        "#!/usr/bin/dash -e\necho $0 $1 \"$2\"; readlink /proc/$$/exe; false; echo no\n",
    );
    write("tmp/nested", "#!/tmp/script\n");
    let seen =
        sh(room, "cd /tmp; ./script a 'b c' || echo failed; PATH=/tmp:$PATH; script d e || true");
    assert_eq!(seen, "./script a b c\n/usr/bin/dash\nfailed\n/tmp/script d e\n/usr/bin/dash\n");
    assert_eq!(sh(room, "/tmp/nested x || true"), "/tmp/script /tmp/nested x\n/usr/bin/dash\n");
    let many = sh(room, "seq 20000 | xargs -n 20000 /tmp/script 2>&1 | cut -c 1-20 || true");
    assert!(many.starts_with("/tmp/script 1 2"), "{many}");
    let seen =
        sh(room, "/usr/bin/env -i A=b /usr/bin/dash -c 'echo $A; exec /bin/busybox echo done'");
    assert_eq!(seen, "b\ndone\n");
    assert_eq!(sh(room, "/usr/bin/dash -c 'cat /proc/$$/comm'"), "dash\n");
    write("tmp/text", "\u{7f}ELF of another kind");
    let seen = sh(room, "/usr/bin/env /etc/passwd 2>&1; /tmp/text 2>&1; true");
    assert!(seen.contains("'/etc/passwd': Permission denied"), "{seen}");
    assert!(seen.contains("not found") || seen.contains("format"), "{seen}");
}

/// Copies a program with its libraries.
fn copy_linked(program: &Path, base: &Path) {
    let listed = std::process::Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
    for path in libraries.map(Path::new).chain([program]) {
        let target = base.join(path.strip_prefix("/").unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(path, target).unwrap();
    }
}

fn mounts(room: &Room) {
    let cache = room.path("cache");
    std::fs::create_dir(&cache).unwrap();
    std::fs::write(cache.join("kept"), "from the cache").unwrap();
    let mut spec = spec(
        room,
        "set -e; cat /var/cache/x/kept; echo new >/var/cache/x/made; cat /ro/kept
         echo no 2>&1 >/ro/bad || echo refused; cat /etc/file; echo t >/mem/t; cat /mem/t
         ls /var/cache; rmdir /mem 2>&1 || true; cd /var/cache/x; cd ..; pwd; stat -c %a /mem /etc/file
         mv /var/cache/x/made /var/made",
    );
    spec.mounts = vec![
        bind("/var/cache/x", Tree::Directory(cache.clone()), "", false),
        bind("/ro", Tree::Directory(cache.clone()), "", true),
        file("/etc/file", "in memory\n"),
        tmpfs("/mem"),
    ];
    let seen = room.run_in(&emulated(room), &spec).ok();
    assert!(seen.starts_with("from the cachefrom the cache"), "{seen}");
    assert!(seen.contains("refused\nin memory\nt\nx\n"), "{seen}");
    assert!(seen.ends_with("/var/cache\n755\n644\n"), "{seen}");
    assert!(!cache.join("made").exists() && room.path("base/var/made").exists());
    for path in ["mem", "ro", "var/cache", "etc/file"] {
        assert!(!room.path("base").join(path).exists(), "{path} is removed");
    }
}

fn processes(room: &Room) {
    let own = std::process::id();
    let parent = rustix::process::getppid().unwrap().as_raw_nonzero();
    let seen = sh(
        room,
        &format!(
            "kill -0 {own} 2>&1 || echo no; kill -0 {parent} 2>&1 || echo no
             cat /proc/{own}/environ 2>&1 || echo no; sleep 100 & kill $!; wait $!; echo $?
             kill -0 1 && echo alive; head -c 6 /proc/1/cmdline | tr '\\0' ' '; echo; echo $$ $PPID
             readlink /proc/self/exe; sh -c 'echo $PPID'; trap 'echo ended' TERM; kill -TERM 1"
        ),
    );
    assert_eq!(seen.matches("no\n").count(), 3, "{seen}");
    assert!(seen.contains("143\nalive\nsh -c \n1 0\n/bin/busybox\n1\nended\n"), "{seen}");
    let mut with_sysctl = spec(room, "true");
    let name = "net.ipv4.ip_default_ttl".to_owned();
    with_sysctl.sysctls = vec![Sysctl { name, value: "63".to_owned() }];
    let own = std::fs::read("/proc/sys/net/ipv4/ip_default_ttl").unwrap();
    let refused = room.run_in(&emulated(room), &with_sysctl).setup_error();
    assert!(refused.contains("a kernel parameter is impossible"), "{refused}");
    assert_eq!(std::fs::read("/proc/sys/net/ipv4/ip_default_ttl").unwrap(), own);
    let seen = sh(room, "echo 1 2>&1 >/proc/sys/kernel/panic || echo no; cat /proc/kcore | wc -c");
    assert!(seen.ends_with("no\n0\n"), "{seen}");
}

fn sockets(room: &Room) {
    let seen = sh(
        room,
        "cd /tmp; mkfifo p; (echo through >p) & cat p; rm p; nc -l -U s 2>/dev/null </dev/null & 
         echo done",
    );
    assert!(seen.contains("through\n") && seen.contains("done\n"), "{seen}");
}

fn proc_and_dev(room: &Room) {
    let seen = sh(
        room,
        "echo x >/dev/null; head -c 3 /dev/zero | wc -c; echo err >/dev/stderr; echo out >/dev/stdout
         stat -c '%F %t:%T %u' /dev/null; ls /dev; readlink /dev/fd; cat /proc/sys/kernel/hostname
         touch /dev/shm/x; ls /dev/shm; test -r /proc/self/status && echo status",
    );
    assert!(seen.contains("3\nout\ncharacter special file 1:3 0\n"), "{seen}");
    let null = Path::new("/dev/null").metadata().unwrap();
    let changed = sh(
        room,
        "chmod 600 /dev/null && chown 7:8 /dev/null && touch -d @1 /dev/null && stat -c '%a %u:%g' /dev/null",
    );
    assert_eq!(changed, "600 7:8\n");
    let now = Path::new("/dev/null").metadata().unwrap();
    assert_eq!((now.mode(), now.uid(), now.ctime()), (null.mode(), null.uid(), null.ctime()));
    assert!(seen.ends_with("/proc/self/fd\nbuildkitsandbox\nx\nstatus\n"), "{seen}");
    assert!(std::fs::read_dir(room.path("base/dev")).unwrap().next().is_none());
}

fn directories(room: &Room) {
    let seen = sh(
        room,
        "set -e; mkdir -p /var/root/bin /var/root/d; cp /bin/busybox /var/root/bin/sh
         chroot /var/root /bin/sh -c 'pwd; cd /d/../..; pwd; test -e /etc/passwd || echo apart'
         mkdir -p /tmp/a/b; cd /tmp/a/b; mv /tmp/a /tmp/c; busybox pwd; touch here; ls /tmp/c/b; cd -P ..; busybox pwd",
    );
    assert_eq!(seen, "/\n/\napart\n/tmp/c/b\nhere\n/tmp/c\n");
}
