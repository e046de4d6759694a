//! Tests of concurrent programs and of their ends.

use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kiln_sandbox::{Exit, Gate, Io, Process, SandboxError, Spec, Tree, User};
use kiln_tree::Upper;
use tokio_util::sync::CancellationToken;

use crate::Test;
use crate::room::{Room, file};

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("only_its_own_processes_are_seen", processes),
    ("what_it_starts_dies_with_it", daemons),
    ("cancelling_kills_everything", cancel),
    ("steps_run_side_by_side", side_by_side),
    ("everything_dies_with_kiln", dies_with_kiln),
    ("a_killed_helper_ends_its_programs", helper_killed),
    ("a_dropped_program_is_killed", dropped),
    ("a_program_waits_at_its_gate", gate),
    ("further_programs_share_a_container", further),
    ("a_step_is_cheap", overhead),
];

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

fn further(room: &Room) {
    let first = room.spec(&["sh", "-c", "echo first > /tmp/file; sleep 1000; true"]);
    room.upper();
    let (said, stop) = (Arc::new(Mutex::new(String::new())), CancellationToken::new());
    let io = || {
        let said = Arc::clone(&said);
        Io::to(move |_, bytes| said.lock().unwrap().push_str(&String::from_utf8_lossy(bytes)))
    };
    let spec = |script: &str| {
        let mut spec = first.clone();
        spec.process.args = ["sh", "-c", script].map(str::to_owned).to_vec();
        spec
    };
    room.runtime.block_on(async {
        let running = room.sandbox.start(&first, io()).await.unwrap();
        let joiner = room.sandbox.joiner(&running).unwrap();
        let start = |script: &str| {
            let (joiner, spec, io) = (joiner.clone(), spec(script), io());
            async move { joiner.start(&spec, io).await.unwrap() }
        };
        let script = "until test -s /tmp/file; do sleep 0.1; done; cat /tmp/file; hostname; \
                      cat /proc/1/comm; exit 3";
        let exit = start(script).await.wait(&stop).await.unwrap();
        assert_eq!(exit, Exit::Code(3));
        assert_eq!(*said.lock().unwrap(), "first\nbuildkitsandbox\nsh\n");
        let mut shell = spec("test -t 0");
        shell.process.terminal = Some(kiln_sandbox::TerminalSize { rows: 7, columns: 9 });
        let mut shell = joiner.start(&shell, io()).await.unwrap();
        // The program gets a hangup when the terminal is dropped.
        let terminal = shell.take_terminal();
        assert!(terminal.is_some());
        assert!(shell.wait(&stop).await.unwrap().success());
        drop(terminal);
        let missing = Spec {
            process: Process { args: vec!["/none".into()], ..first.process.clone() },
            ..first.clone()
        };
        let missing = joiner.start(&missing, io()).await.unwrap_err();
        assert!(matches!(missing, SandboxError::Exec { code: 127, .. }), "{missing}");
        // The kernel kills the others with the first one.
        let other = start("sleep 1000").await;
        running.signaller().send(libc::SIGKILL);
        assert_eq!(running.wait(&stop).await.unwrap(), Exit::Signal(libc::SIGKILL));
        assert_eq!(other.wait(&stop).await.unwrap(), Exit::Signal(libc::SIGKILL));
        assert!(joiner.start(&spec("true"), io()).await.is_err());
        // Programs of another container have namespaces of their own again.
        room.upper();
        let next = room.sandbox.run(&spec("test $$ = 1"), io(), &stop).await.unwrap();
        assert!(next.success());
    });
}

fn gate(room: &Room) {
    let gated = || {
        room.upper();
        let (gate, side) = Gate::new().unwrap();
        let mut io = Io::to(|_, _| {});
        io.gate = Some(side);
        (gate, io)
    };
    let spec = room.spec(&["touch", "/begun"]);
    let begun = room.path("fs/begun");
    room.runtime.block_on(async {
        let (gate, io) = gated();
        let open = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(!begun.exists());
            gate.open();
        };
        let (running, ()) = tokio::join!(room.sandbox.start(&spec, io), open);
        assert!(running.unwrap().wait(&CancellationToken::new()).await.unwrap().success());
        assert!(begun.exists());
        let (gate, io) = gated();
        drop(gate);
        let error = room.sandbox.start(&spec, io).await.unwrap_err();
        assert!(error.to_string().contains("kiln has given up"), "{error}");
        assert!(!begun.exists());
    });
}

pub(crate) fn host_runs(word: &str) -> bool {
    host_process(word).is_some()
}

/// Returns the directory in `/proc` of a process that has a word as one of its arguments.
pub(crate) fn host_process(word: &str) -> Option<std::path::PathBuf> {
    let mut all = std::fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    all.find(|path| {
        std::fs::read_to_string(path.join("cmdline"))
            .is_ok_and(|line| line.split('\0').any(|part| part == word))
    })
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
            spec.rootfs = if room.isolation.has_namespaces() {
                Tree::Overlay { lowers: vec![room.path("base")], upper: Some(upper) }
            } else {
                room.copy_base(&upper.fs);
                Tree::Directory(upper.fs)
            };
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

/// The environment variable with the word that identifies a doomed process's program.
pub(crate) const DOOMED: &str = "KILN_TEST_DOOMED";

/// Runs a program in a process that is going to be killed.
pub(crate) fn doomed(word: &str) {
    let room = Room::new();
    room.sh(&format!("sleep {word} & sleep {word}"));
}

fn dies_with_kiln(room: &Room) {
    let word = "76543";
    let mut kiln = std::process::Command::new(std::env::current_exe().unwrap())
        .env(DOOMED, word)
        // The killed process can't remove its files.
        .env("TMPDIR", room.dir.path())
        .spawn()
        .unwrap();
    until(|| host_runs(word));
    kiln.kill().unwrap();
    kiln.wait().unwrap();
    until(|| !host_runs(word));
}

fn helper_killed(room: &Room) {
    // The kernel clears the parent-death signal of a setuid program.
    let busybox = room.path("base/bin/busybox");
    std::fs::set_permissions(busybox, PermissionsExt::from_mode(0o4755)).unwrap();
    // The last of the processes above a program is kiln's child: the helper or its keeper.
    // Without namespaces, a supervisor is below the helper.
    let supervisors = usize::from(!room.isolation.has_namespaces());
    for (is_host, above) in [(false, 1), (true, 1), (true, 2)] {
        let word = format!("5432{above}{}", u8::from(is_host));
        let mut spec = room.script(&format!("setsid sleep {word} & sleep {word}; true"));
        spec.process.user = User::Ids { uid: 1000, gid: 1000, groups: Vec::new() };
        spec.shared.pid = is_host;
        let exit = room.runtime.block_on(async {
            let running = room.sandbox.start(&spec, Io::to(|_, _| {})).await.unwrap();
            until(|| host_runs(&word));
            let kill = ancestors(&word)[above + supervisors];
            rustix::process::kill_process(kill, rustix::process::Signal::KILL).unwrap();
            running.wait(&CancellationToken::new()).await
        });
        assert!(!host_runs(&word), "{is_host} {above}");
        match exit {
            Err(SandboxError::Setup(message)) => {
                assert!(message.contains("helper was killed"), "{message}");
            }
            // The helper notices the keeper's death and kills the program.
            other => assert!(above == 2 && matches!(other, Ok(Exit::Signal(9))), "{other:?}"),
        }
        room.sh("true").ok();
    }
}

/// Returns the processes between a sleeping program and this one, the program's shell first.
fn ancestors(word: &str) -> Vec<rustix::process::Pid> {
    let parent = |pid: i32| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let parent = text.lines().find_map(|line| line.strip_prefix("PPid:\t")).unwrap();
        parent.parse::<i32>().unwrap()
    };
    let process = host_process(word).unwrap();
    // The script's own command line contains the word only as a part of one of its arguments.
    let mut pid = process.file_name().unwrap().to_str().unwrap().parse().unwrap();
    let mut all = Vec::new();
    while parent(pid) != std::process::id().cast_signed() {
        pid = parent(pid);
        all.push(rustix::process::Pid::from_raw(pid).unwrap());
    }
    all
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

pub(crate) fn until(condition: impl Fn() -> bool) {
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
    // The limit detects a cost of seconds per step but tolerates a busy machine.
    assert!(times[0] < Duration::from_millis(500), "{:?}", times[0]);
}
