//! What a program in the sandbox sees and can do. Needs root, and a static busybox at
//! `/bin/busybox`.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without the usual harness, which the lints don't recognise as one"
)]

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_solver::LogStream;
use kiln_worker::sandbox::{
    Exit, Input, Io, Mount, MountKind, Network, Rlimit, Sandbox, SandboxError, Security, Spec,
    TerminalSize, Tree, Upper, User, init_if_asked,
};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio_util::sync::CancellationToken;

fn main() {
    init_if_asked();
    if let Some(word) = std::env::var_os(DOOMED) {
        return doomed(&word.to_string_lossy());
    }
    let arguments = Arguments::from_args();
    let skip = !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists();
    let trials = TESTS
        .iter()
        .map(|(name, test)| {
            Trial::test(*name, move || {
                test(&Room::new());
                Ok::<(), Failed>(())
            })
            .with_ignored_flag(skip)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

type Test = fn(&Room);

const TESTS: &[(&str, Test)] = &[
    ("a_program_runs_and_its_status_comes_back", status),
    ("output_arrives_whole", output),
    ("the_environment_is_what_was_declared", environment),
    ("no_descriptor_of_the_host_is_open", descriptors),
    ("only_its_own_processes_are_seen", processes),
    ("what_it_starts_dies_with_it", daemons),
    ("capabilities_and_filters_are_dockers", capabilities),
    ("another_user_has_no_capabilities", other_user),
    ("forbidden_calls_are_refused", forbidden_calls),
    ("no_network_is_no_network", no_network),
    ("proc_and_sys_are_masked", masks),
    ("devices_work_and_others_do_not", devices),
    ("only_declared_mounts_are_seen", mounts),
    ("mounts_leave_no_trace", no_trace),
    ("a_file_comes_from_memory", memory_file),
    ("read_only_mounts_can_not_be_written", read_only),
    ("mount_targets_stay_inside", target_links),
    ("nothing_is_mounted_in_proc", proc_targets),
    ("proc_and_dev_as_links_are_refused", linked_proc),
    ("selectors_stay_inside", selectors),
    ("stub_removal_follows_nothing", stub_attack),
    ("the_working_directory_stays_inside", working_directory),
    ("missing_programs_have_docker_s_messages", missing_programs),
    ("the_host_s_program_can_not_be_overwritten", overwrite_program),
    ("cancelling_kills_everything", cancel),
    ("many_layers_are_mounted", many_layers),
    ("the_host_sees_no_mount", host_mounts),
    ("standard_input_is_passed_on", input),
    ("the_source_of_input_can_not_be_written", input_source),
    ("a_terminal_is_a_terminal", terminal),
    ("signals_are_passed_on", signals),
    ("limits_are_set", limits),
    ("an_insecure_program_has_everything", insecure),
    ("steps_run_side_by_side", side_by_side),
    ("everything_dies_with_kiln", dies_with_kiln),
    ("a_dropped_program_is_killed", dropped),
    ("a_step_is_cheap", overhead),
];

/// A place for a test: a base image, and what sees it.
struct Room {
    dir: tempfile::TempDir,
    sandbox: Sandbox,
    runtime: tokio::runtime::Runtime,
}

struct Outcome {
    exit: Result<Exit, SandboxError>,
    stdout: String,
    stderr: String,
}

impl Outcome {
    fn ok(self) -> String {
        assert!(
            matches!(self.exit, Ok(Exit::Code(0))),
            "{:?}\n{}{}",
            self.exit,
            self.stdout,
            self.stderr
        );
        self.stdout
    }

    fn setup_error(self) -> String {
        match self.exit {
            Err(SandboxError::Setup(message)) => message,
            other => panic!("no setup error but {other:?}: {}{}", self.stdout, self.stderr),
        }
    }
}

impl Room {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev", "root", "var"] {
            std::fs::create_dir_all(base.join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        let applets = [
            "sh", "ls", "cat", "env", "ps", "id", "mkdir", "rm", "ln", "mount", "umount", "touch",
            "sleep", "true", "false", "setsid", "readlink", "pwd", "chmod", "mknod", "dd", "grep",
            "ip", "stat", "tty", "hostname", "kill", "rmdir", "echo", "test", "seq", "mv",
            "unshare", "chown", "find", "sort", "wc", "head", "nc", "chroot", "df",
        ];
        for applet in applets {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n";
        std::fs::write(base.join("etc/passwd"), passwd).unwrap();
        std::fs::write(base.join("etc/group"), "root:x:0:\nbob:x:1000:\nstaff:x:50:bob\n").unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let sandbox = Sandbox::new(dir.path()).unwrap();
        Self { dir, sandbox, runtime }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn upper(&self) -> Upper {
        let upper = Upper { fs: self.path("fs"), work: self.path("work") };
        for path in [&upper.fs, &upper.work] {
            let _ = std::fs::remove_dir_all(path);
            std::fs::create_dir(path).unwrap();
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        upper
    }

    fn rootfs(&self) -> Tree {
        Tree::Overlay { lowers: vec![self.path("base")], upper: Some(self.upper()) }
    }

    fn spec(&self, args: &[&str]) -> Spec {
        let args = args.iter().map(ToString::to_string).collect();
        let mut spec = Spec::new(self.rootfs(), args);
        spec.process.env = vec!["PATH=/sbin:/bin".to_owned()];
        spec
    }

    fn script(&self, script: &str) -> Spec {
        self.spec(&["sh", "-c", script])
    }

    fn run(&self, spec: &Spec) -> Outcome {
        self.run_with(spec, &CancellationToken::new())
    }

    fn run_with(&self, spec: &Spec, cancel: &CancellationToken) -> Outcome {
        // A work directory can be used once.
        self.upper();
        let output = Arc::new(Mutex::new((Vec::new(), Vec::new())));
        let sink = Arc::clone(&output);
        let io = Io::to(move |stream, bytes| {
            let mut output = sink.lock().unwrap();
            match stream {
                LogStream::Stdout => output.0.extend_from_slice(bytes),
                LogStream::Stderr => output.1.extend_from_slice(bytes),
            }
        });
        let exit = self.runtime.block_on(self.sandbox.run(spec, io, cancel));
        let output = std::mem::take(&mut *output.lock().unwrap());
        Outcome {
            exit,
            stdout: String::from_utf8_lossy(&output.0).into_owned(),
            stderr: String::from_utf8_lossy(&output.1).into_owned(),
        }
    }

    fn sh(&self, script: &str) -> Outcome {
        self.run(&self.script(script))
    }

    /// Returns the paths in the upper directory.
    fn changes(&self) -> Vec<String> {
        fn walk(dir: &Path, prefix: &str, found: &mut Vec<String>) {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &name, found);
                }
                found.push(name);
            }
        }
        let mut found = Vec::new();
        walk(&self.path("fs"), "", &mut found);
        found.sort();
        found
    }

    /// A directory that must stay as it is.
    fn canary(&self) -> Canary {
        let path = self.path("canary");
        std::fs::create_dir_all(path.join("b/c")).unwrap();
        std::fs::write(path.join("secret"), "canary secret").unwrap();
        std::fs::write(path.join("empty"), "").unwrap();
        Canary { before: look(&path), path }
    }
}

struct Canary {
    path: PathBuf,
    before: BTreeMap<PathBuf, (u32, u64, i64, i64)>,
}

impl Canary {
    fn check(&self) {
        assert_eq!(look(&self.path), self.before, "the canary has changed");
    }
}

fn look(dir: &Path) -> BTreeMap<PathBuf, (u32, u64, i64, i64)> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let metadata = path.symlink_metadata().unwrap();
        if metadata.is_dir() {
            todo.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        let look = (metadata.mode(), metadata.size(), metadata.mtime_nsec(), metadata.ctime_nsec());
        all.insert(path, look);
    }
    all
}

fn bind(target: &str, tree: Tree, selector: &str, readonly: bool) -> Mount {
    let kind = MountKind::Bind { tree, selector: selector.into(), readonly, recursive: false };
    Mount { target: target.into(), kind }
}

fn file(target: &str, contents: &str) -> Mount {
    let contents = contents.as_bytes().to_vec();
    Mount { target: target.into(), kind: MountKind::File { contents, mode: 0o644, uid: 0, gid: 0 } }
}

fn tmpfs(target: &str) -> Mount {
    Mount { target: target.into(), kind: MountKind::Tmpfs { size: None, mode: 0o755 } }
}

fn status(room: &Room) {
    for (script, exit) in [
        ("true", Exit::Code(0)),
        ("exit 7", Exit::Code(7)),
        // Process 1 can't kill itself by a signal without being told by its parent namespace.
        ("sh -c 'kill -9 $$'; exit $?", Exit::Code(137)),
    ] {
        assert_eq!(room.sh(script).exit.unwrap(), exit, "{script}");
    }
    assert_eq!(Exit::Signal(9).code(), 137);
    assert_eq!(room.sh("echo a; touch /made").ok(), "a\n");
    assert_eq!(room.changes(), ["/made"]);
}

fn output(room: &Room) {
    let outcome = room.sh("seq 200000; echo problem >&2");
    assert_eq!(outcome.stderr, "problem\n");
    assert_eq!(outcome.ok().lines().count(), 200_000);
    assert_eq!(room.sh("cat; echo end").ok(), "end\n", "standard input is empty");
}

fn environment(room: &Room) {
    let mut spec = room.spec(&["env"]);
    spec.process.env.push("X=a b".to_owned());
    "box".clone_into(&mut spec.hostname);
    assert_eq!(room.run(&spec).ok(), "PATH=/sbin:/bin\nX=a b\nHOME=/root\n");
    spec.process.args = vec!["hostname".to_owned()];
    assert_eq!(room.run(&spec).ok(), "box\n");
    let seen = room.sh("cat /proc/1/environ; umask; pwd").ok();
    assert_eq!(seen, "PATH=/sbin:/bin\0HOME=/root\0".to_owned() + "0022\n/\n");
}

fn descriptors(room: &Room) {
    let seen = room.spec(&["ls", "/proc/self/fd"]);
    assert_eq!(room.run(&seen).ok(), "0\n1\n2\n3\n");
}

fn processes(room: &Room) {
    let seen = room.spec(&["ps", "-o", "pid,comm"]);
    assert_eq!(room.run(&seen).ok().lines().count(), 2);
    room.sh("kill -9 -1; true").ok();
}

fn daemons(room: &Room) {
    let start = Instant::now();
    let script = "setsid sh -c 'sh -c \"exec 3>/tmp/lock; sleep 98765\" & sleep 98765' \
                  </dev/null & sleep 0.1; echo done";
    assert_eq!(room.sh(script).ok(), "done\n");
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!host_runs("98765"), "a process is left");
}

fn host_runs(word: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
        std::fs::read_to_string(entry.path().join("cmdline"))
            .is_ok_and(|line| line.split('\0').any(|part| part == word))
    })
}

fn status_of(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap_or_default().split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn capabilities(room: &Room) {
    let status = room.spec(&["cat", "/proc/self/status"]);
    let status = room.run(&status).ok();
    for (name, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a80425fb"),
        ("CapEff", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Groups", "0"),
        ("SigIgn", "0000000000000000"),
        ("SigBlk", "0000000000000000"),
    ] {
        assert_eq!(status_of(&status, name), value, "{name}");
    }
}

fn other_user(room: &Room) {
    let mut spec = room.script("cat /proc/self/status; id; echo err >/dev/stderr; echo $HOME");
    spec.process.user = User::Named("bob".to_owned());
    let seen = room.run(&spec);
    assert_eq!(seen.stderr, "err\n");
    let seen = seen.ok();
    assert_eq!(status_of(&seen, "CapEff"), "0000000000000000");
    assert_eq!(status_of(&seen, "CapPrm"), "0000000000000000");
    assert_eq!(status_of(&seen, "CapBnd"), "00000000a80425fb");
    assert!(seen.contains("uid=1000(bob) gid=1000(bob) groups=50(staff),1000(bob)"), "{seen}");
    assert!(seen.ends_with("/home/bob\n"));
    spec.process.user = User::Named("nobody-here".to_owned());
    let error = room.run(&spec).setup_error();
    assert_eq!(error, "unable to find user nobody-here: no matching entries in passwd file");
    spec.process.user = User::Named("4294967295".to_owned());
    assert!(room.run(&spec).setup_error().contains("must be in range"));
}

fn forbidden_calls(room: &Room) {
    for script in [
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "echo x > /proc/sys/kernel/hostname",
        "mount -o remount,rw /sys",
        "hostname other",
    ] {
        let outcome = room.sh(&format!("{script} && echo DONE"));
        assert!(!outcome.stdout.contains("DONE"), "{script} works");
    }
    // Threads and processes still start, although clone3 isn't there.
    assert_eq!(room.sh("(echo a) | cat").ok(), "a\n");
}

fn no_network(room: &Room) {
    let mut spec = room.script("ls /sys/class/net; cat /proc/net/route | wc -l");
    spec.network = Network::None;
    assert_eq!(room.run(&spec).ok(), "lo\n1\n");
    spec.network = Network::Host;
    let host = std::fs::read_dir("/sys/class/net").unwrap().count();
    let seen = room.run(&spec).ok();
    assert_eq!(seen.lines().count(), host + 1);
}

fn masks(room: &Room) {
    let script = "for f in /proc/keys /proc/timer_list /proc/kcore; do \
                  test -e $f || continue; echo $f $(cat $f | wc -c); done; \
                  for d in /proc/scsi /proc/acpi /sys/firmware; do \
                  test -e $d || continue; echo $d $(ls $d | wc -l) $(stat -f -c %T $d); done; \
                  for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/irq/x \
                  /sys/kernel/mm/x /proc/bus/x; do \
                  (echo c > $f) 2>/dev/null && echo WRITTEN $f; done; true";
    let core_pattern = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let seen = room.sh(script).ok();
    assert!(!seen.contains("WRITTEN"), "{seen}");
    for line in seen.lines() {
        let mut words = line.split(' ').skip(1);
        assert_eq!(words.next(), Some("0"), "{line}");
        assert!(words.next().is_none_or(|kind| kind == "tmpfs"), "{line}");
    }
    assert!(seen.contains("/proc/timer_list") || seen.contains("/proc/keys"), "{seen}");
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), core_pattern);
}

fn devices(room: &Room) {
    let script = "set -e; echo x > /dev/null; head -c 4 /dev/zero | wc -c; \
                  head -c 4 /dev/urandom | wc -c; ls /dev; \
                  mknod /tmp/null c 1 3; mknod /tmp/disk b 8 0; mknod /dev/disk b 8 0; \
                  for f in /tmp/null /tmp/disk /dev/disk; do \
                  if dd if=$f of=/dev/stdout count=1 2>/dev/null; then echo OPENED $f; fi; done; \
                  chmod 600 /dev/null; stat -c %a /dev/null; echo x > /dev/shm/x; \
                  echo y > /dev/stdout; ls /dev/mqueue";
    let host = std::fs::metadata("/dev/null").unwrap();
    let seen = room.sh(script).ok();
    let expected = "4\n4\ncore\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\n\
                    stdout\ntty\nurandom\nzero\n600\ny\n";
    assert_eq!(seen, expected);
    let after = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((host.mode(), host.ctime()), (after.mode(), after.ctime()));
    assert_eq!(room.changes(), ["/tmp", "/tmp/disk", "/tmp/null"]);
}

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
        kind: MountKind::File { contents: b"hidden\n".to_vec(), mode: 0o400, uid: 7, gid: 0 },
    }];
    assert_eq!(room.run(&spec).ok(), "400 7\nhidden\n");
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
        // Where it isn't there at all, it is made and goes again.
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
    // The mount itself can't be moved away, but what is above it can be replaced by a link.
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

fn working_directory(room: &Room) {
    let canary = room.canary();
    symlink(&canary.path, room.path("base/out")).unwrap();
    for number in [3, 5, 7, 10, 20, 1000] {
        let mut spec = room.script("pwd; ls ../../../..");
        spec.process.cwd = format!("/proc/self/fd/{number}").into();
        let message = room.run(&spec).setup_error();
        assert!(message.contains("/proc/self/fd"), "{message}");
    }
    let mut spec = room.script("pwd; stat -c '%u %a' .");
    spec.process.cwd = "/out/new/dir".into();
    spec.process.user = User::Ids { uid: 5, gid: 6, groups: vec![6] };
    let seen = room.run(&spec).ok();
    assert_eq!(seen, format!("{}/new/dir\n5 755\n", canary.path.display()));
    canary.check();
}

fn missing_programs(room: &Room) {
    std::fs::write(room.path("base/bin/plain"), "x").unwrap();
    std::fs::write(room.path("base/bin/odd"), "#!/no/interpreter\n").unwrap();
    let odd = room.path("base/bin/odd");
    std::fs::set_permissions(odd, PermissionsExt::from_mode(0o755)).unwrap();
    for (program, code, text) in [
        ("nope", 127, "exec: \"nope\": executable file not found in $PATH"),
        ("/nope", 127, "exec: \"/nope\": stat /nope: no such file or directory"),
        ("plain", 126, "exec: \"plain\": permission denied"),
        ("/etc", 126, "exec: \"/etc\": is a directory"),
        ("odd", 127, "exec /bin/odd: no such file or directory"),
    ] {
        match room.run(&room.spec(&[program])).exit {
            Err(SandboxError::Exec { message, code: actual }) => {
                assert_eq!((message.as_str(), actual), (text, code));
            }
            other => panic!("{program}: {other:?}"),
        }
    }
}

fn overwrite_program(room: &Room) {
    let program = std::env::current_exe().unwrap();
    let before = std::fs::metadata(&program).unwrap();
    let script = "for f in /proc/*/exe; do (echo x >> $f) 2>/dev/null; done; true";
    room.sh(script).ok();
    // The program is the container's own init: it gets to be the helper's copy, nothing else.
    let mut spec = room.spec(&["/init"]);
    symlink("/proc/self/exe", room.path("base/init")).unwrap();
    spec.process.env.clear();
    let outcome = room.run(&spec);
    assert!(!matches!(outcome.exit, Ok(Exit::Code(0))));
    let after = std::fs::metadata(&program).unwrap();
    assert_eq!((before.size(), before.ctime()), (after.size(), after.ctime()));
}

fn cancel(room: &Room) {
    let start = Instant::now();
    let cancel = CancellationToken::new();
    let token = cancel.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        token.cancel();
    });
    let outcome = room.run_with(&room.script("sleep 87654 & sleep 87654"), &cancel);
    assert!(matches!(outcome.exit, Err(SandboxError::Cancelled)));
    thread.join().unwrap();
    assert!(start.elapsed() < Duration::from_secs(5));
    assert!(!host_runs("87654"));
    cancel.cancel();
    let outcome = room.run_with(&room.script("sleep 87654"), &cancel);
    assert!(matches!(outcome.exit, Err(SandboxError::Cancelled)));
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

fn input(room: &Room) {
    let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    rustix::io::write(&write, b"typed\n").unwrap();
    drop(write);
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&output);
    let mut io = Io::to(move |_, bytes| sink.lock().unwrap().extend_from_slice(bytes));
    io.input = Input::Fd(read);
    let spec = room.spec(&["cat"]);
    let exit = room.runtime.block_on(room.sandbox.run(&spec, io, &CancellationToken::new()));
    assert_eq!(exit.unwrap(), Exit::Code(0));
    assert_eq!(*output.lock().unwrap(), b"typed\n");
}

fn input_source(room: &Room) {
    let canary = room.canary();
    let source = std::fs::File::open(canary.path.join("secret")).unwrap();
    let output = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&output);
    let mut io = Io::to(move |_, bytes| sink.lock().unwrap().extend_from_slice(bytes));
    io.input = Input::Fd(source.into());
    let script = "cat; for n in 0 1 2; do readlink /proc/self/fd/$n | grep -v ^pipe:; done; \
                  chmod 777 /proc/self/fd/0; echo x 1<>/proc/self/fd/0 >&0; true";
    let spec = room.script(script);
    let exit = room.runtime.block_on(room.sandbox.run(&spec, io, &CancellationToken::new()));
    assert_eq!(exit.unwrap(), Exit::Code(0));
    let seen = String::from_utf8_lossy(&output.lock().unwrap()).into_owned();
    assert!(seen.starts_with("canary secret"), "{seen}");
    assert!(!seen.contains("canary/secret") && !seen.contains("/tmp/"), "{seen}");
    canary.check();
}

fn terminal(room: &Room) {
    let script = "tty; stat -c '%t:%T' /dev/console | grep -q : && echo console; \
                  test -t 0 && test -t 1 && test -t 2 && echo all; read x; echo got $x; exit 3";
    let mut spec = room.script(script);
    spec.process.terminal = Some(TerminalSize { rows: 30, columns: 100 });
    let text = room.runtime.block_on(async {
        let mut running = room.sandbox.start(&spec, Io::to(|_, _| {})).await.unwrap();
        let ours = running.take_terminal().unwrap();
        assert!(running.take_terminal().is_none());
        let size = rustix::termios::tcgetwinsize(&ours).unwrap();
        assert_eq!((size.ws_row, size.ws_col), (30, 100));
        rustix::io::write(&ours, b"line\n").unwrap();
        let reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            let mut buffer = [0; 1024];
            while let Ok(length @ 1..) = rustix::io::read(&ours, &mut buffer[..]) {
                text.extend_from_slice(&buffer[..length]);
            }
            String::from_utf8(text).unwrap()
        });
        let exit = running.wait(&CancellationToken::new()).await.unwrap();
        assert_eq!(exit, Exit::Code(3));
        reader.join().unwrap()
    });
    for expected in ["/dev/pts/0\r\n", "console\r\n", "all\r\n", "got line\r\n"] {
        assert!(text.contains(expected), "{expected:?} is missing in {text:?}");
    }
}

fn signals(room: &Room) {
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let (ready, mut wait) = tokio::sync::mpsc::unbounded_channel();
    let io = Io::to(move |_, bytes| {
        let _ = ready.send(String::from_utf8_lossy(bytes).into_owned());
    });
    let spec = room.script(script);
    let exit = room.runtime.block_on(async {
        let running = room.sandbox.start(&spec, io).await.unwrap();
        let signaller = running.signaller();
        let token = CancellationToken::new();
        let signal = async {
            assert_eq!(wait.recv().await.unwrap(), "ready\n");
            signaller.send(libc::SIGTERM);
            assert_eq!(wait.recv().await.unwrap(), "caught\n");
        };
        tokio::join!(running.wait(&token), signal).0
    });
    assert_eq!(exit.unwrap(), Exit::Code(9));
}

fn limits(room: &Room) {
    let mut spec = room.script("ulimit -n; ulimit -Hn");
    let limit = |name: &str| Rlimit { name: name.to_owned(), soft: Some(64), hard: Some(128) };
    spec.process.rlimits = vec![limit("nofile")];
    assert_eq!(room.run(&spec).ok(), "64\n128\n");
    spec.process.rlimits = vec![limit("nonsense")];
    assert_eq!(room.run(&spec).setup_error(), "set limit nonsense: unknown");
}

fn insecure(room: &Room) {
    let script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; \
                  mount -t tmpfs none /tmp && echo mounted; \
                  grep -q ' /sys sysfs rw' /proc/mounts && mknod /dev/mine c 1 3 && echo x > /dev/mine && echo open; \
                  test -c /dev/net/tun -a -b /dev/loop7 && echo devices; \
                  mount | grep -c ' on /proc/'";
    let mut spec = room.script(script);
    let all = own_capabilities();
    for user in ["", "bob"] {
        spec.process.user = User::Named(user.to_owned());
        spec.security = Security::Sandbox;
        let confined = room.run(&spec).stdout;
        assert!(!confined.contains(&all) && confined.contains("NoNewPrivs:\t1"), "{confined}");
        for word in ["mounted", "open", "devices"] {
            assert!(!confined.contains(word), "{confined}");
        }
        spec.security = Security::Insecure;
        let free = room.run(&spec).stdout;
        let expected =
            format!("CapEff:\t{all}\nNoNewPrivs:\t0\nSeccomp:\t0\nmounted\nopen\ndevices\n0\n");
        assert_eq!(free, expected, "{user}");
    }
}

/// Returns the capabilities of this process.
fn own_capabilities() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    line.unwrap().to_owned()
}

fn side_by_side(room: &Room) {
    room.runtime.block_on(async {
        let mut running = Vec::new();
        for number in 0..16 {
            let upper = Upper {
                fs: room.path(&format!("fs-{number}")),
                work: room.path(&format!("work-{number}")),
            };
            std::fs::create_dir(&upper.fs).unwrap();
            std::fs::create_dir(&upper.work).unwrap();
            let mut spec = room.script(&format!("echo {number} > /mine; sleep 0.3; cat /mine"));
            spec.rootfs = Tree::Overlay { lowers: vec![room.path("base")], upper: Some(upper) };
            let output = Arc::new(Mutex::new(Vec::new()));
            let sink = Arc::clone(&output);
            let io = Io::to(move |_, bytes| sink.lock().unwrap().extend_from_slice(bytes));
            running.push((number, output, room.sandbox.start(&spec, io).await.unwrap()));
        }
        for (number, output, running) in running {
            running.wait(&CancellationToken::new()).await.unwrap();
            let seen = output.lock().unwrap().clone();
            assert_eq!(String::from_utf8(seen).unwrap(), format!("{number}\n"));
        }
    });
}

/// Names, in the environment, the word by which a doomed process's program is found.
const DOOMED: &str = "KILN_TEST_DOOMED";

/// What a process does that is going to be killed.
fn doomed(word: &str) {
    let room = Room::new();
    room.sh(&format!("sleep {word} & sleep {word}"));
}

fn dies_with_kiln(room: &Room) {
    let word = "76543";
    let mut kiln = std::process::Command::new(std::env::current_exe().unwrap())
        .env(DOOMED, word)
        // It can't clean up after itself.
        .env("TMPDIR", room.dir.path())
        .spawn()
        .unwrap();
    until(|| host_runs(word));
    kiln.kill().unwrap();
    kiln.wait().unwrap();
    until(|| !host_runs(word));
}

fn dropped(room: &Room) {
    let word = "65432";
    room.runtime.block_on(async {
        let spec = room.script(&format!("setsid sleep {word} & sleep {word}"));
        let running = room.sandbox.start(&spec, Io::to(|_, _| {})).await.unwrap();
        until(|| host_runs(word));
        drop(running);
    });
    until(|| !host_runs(word));
}

fn until(condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(10), "waited for too long");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn overhead(room: &Room) {
    let mut spec = room.spec(&["true"]);
    spec.mounts = vec![file("/etc/resolv.conf", "x"), file("/etc/hosts", "x")];
    room.run(&spec).ok();
    let mut times: Vec<Duration> = (0..50)
        .map(|_| {
            let start = Instant::now();
            room.run(&spec).ok();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("a step takes {:?} (median), {:?} at best", times[25], times[0]);
    // Something that costs a step seconds shows; a busy machine doesn't.
    assert!(times[0] < Duration::from_millis(500), "{:?}", times[0]);
}
