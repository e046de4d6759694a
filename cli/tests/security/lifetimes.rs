//! Steps that end while processes, or descriptors of other processes, remain.

use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_testkit::peers::wait_until;
use kiln_testkit::{Need, skip};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process};

use crate::arena::{Arena, is_rootless};

/// Returns a duration of sleep that no other process uses.
fn word() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(60);
    format!("{}.{}", NEXT.fetch_add(1, Ordering::Relaxed), std::process::id())
}

/// Returns the processes whose command line ends with `sleep` and a word.
fn sleepers(word: &str) -> Vec<i32> {
    let line = format!("sleep\0{word}\0");
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let has_line = |pid: &i32| {
        std::fs::read(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|text| text.ends_with(line.as_bytes()))
    };
    pids.filter(has_line).collect()
}

/// Waits for a sleeping process and returns it.
fn sleeper(word: &str) -> i32 {
    wait_until("the step sleeps", || !sleepers(word).is_empty());
    sleepers(word)[0]
}

/// Returns a field of a process's `/proc` status.
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.unwrap().to_owned()
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Returns the ancestors of a process up to kiln: the program, kiln's helpers, and kiln.
fn ancestors(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    let mut pid = pid;
    while all.last().is_none_or(|pid| status(*pid, "Name") != "kiln") {
        pid = status(pid, "PPid").parse().unwrap();
        all.push(pid);
    }
    all
}

/// Opens a path inside a step's root directory.
fn open(pid: i32, path: &str, options: &OpenOptions) -> File {
    options.open(format!("/proc/{pid}/root/{path}")).unwrap()
}

/// A build whose first step writes `/tool` and sleeps until it is killed.
struct Building {
    kiln: Child,
    words: [String; 2],
}

impl Building {
    fn start(arena: &Arena, tree: (&str, &str), options: &[&str]) -> Self {
        let (snapshotter, from) = tree;
        let words = [word(), word()];
        // An empty image has no program, so it comes from a mount.
        let run = |script: &str| {
            format!(
                "RUN --mount=from=base,target=/b [\"/b/bin/busybox\", \"sh\", \"-c\", \"{script}\"]\n"
            )
        };
        let [first, second] = &words;
        let dockerfile = format!(
            "FROM {from}\n{}{}",
            run(&format!("echo good > /tool; /b/bin/busybox sleep {first}; true")),
            run(&format!(
                "/b/bin/busybox sleep {second}; /b/bin/busybox cat /tool; test ! -e /added"
            ))
        );
        arena.kiln.write("ctx/Dockerfile", dockerfile);
        let arguments = [&["--no-cache", "--snapshotter", snapshotter], options].concat();
        let mut command = arena.command("ctx", &arguments);
        let kiln = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { kiln, words }
    }

    /// Returns the sleeping process of a step.
    fn sleeper(&self, step: usize) -> i32 {
        sleeper(&self.words[step])
    }

    /// Waits for the build and returns its exit code and output.
    fn end(self, arena: &Arena) -> kiln_testkit::Output {
        let output = self.kiln.wait_with_output().unwrap();
        arena.note(kiln_testkit::Output {
            code: output.status.code().unwrap_or(-1),
            stdout: String::new(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }

    /// Asserts that the build succeeds, that its second step reads the first one's file, and that
    /// the store is intact.
    fn end_well(self, arena: &Arena, tree: (&str, &str)) {
        let output = self.end(arena);
        assert!(output.stderr.contains("good"), "{tree:?}: {}", output.stderr);
        output.success();
        arena.kiln.run(&["system", "check"]).success();
    }
}

const TREES: [(&str, &str); 3] = [("overlay", "base"), ("copy", "base"), ("overlay", "scratch")];

#[test]
fn a_writer_outside_of_a_step_fails_it() {
    let Some(arena) = Arena::new("a_writer_outside_of_a_step_fails_it") else { return };
    for tree in TREES {
        let building = Building::start(&arena, tree, &[]);
        let step = building.sleeper(0);
        let held = open(step, "tool", OpenOptions::new().read(true).write(true));
        send(step, Signal::KILL);
        let said = building.end(&arena).failure();
        // In a user namespace, kiln can't inspect the descriptors of processes outside.
        let is_told = |file: &str| {
            let why = format!("a process outside of the step still holds {file} open for writing");
            said.contains(&why)
        };
        assert!(is_told("/tool") || is_told("one of its files"), "{tree:?}: {said}");
        drop(held);
    }
    arena.finish();
}

#[test]
fn a_descriptor_opens_nothing_for_writing_after_its_step() {
    let Some(arena) = Arena::new("a_descriptor_opens_nothing_for_writing_after_its_step") else {
        return;
    };
    for tree in TREES {
        let building = Building::start(&arena, tree, &[]);
        let step = building.sleeper(0);
        let root = open(step, "", OpenOptions::new().read(true));
        let tool = open(step, "tool", OpenOptions::new().read(true));
        let flags = rustix::fs::OFlags::PATH.bits().cast_signed();
        let path = open(step, "tool", OpenOptions::new().read(true).custom_flags(flags));
        send(step, Signal::KILL);
        let later = building.sleeper(1);
        for held in [&tool, &path] {
            let again = format!("/proc/self/fd/{}", held.as_raw_fd());
            let error = OpenOptions::new().write(true).open(again).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::ROFS), "{tree:?}");
        }
        let made = rustix::fs::openat(
            &root,
            "added",
            rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY,
            rustix::fs::Mode::RWXU,
        );
        assert_eq!(made.unwrap_err(), Errno::ROFS, "{tree:?}");
        let mode = rustix::fs::Mode::from_raw_mode(0o4755);
        assert_eq!(rustix::fs::fchmod(&tool, mode).unwrap_err(), Errno::ROFS, "{tree:?}");
        let attribute =
            rustix::fs::fsetxattr(&tool, "user.x", b"x", rustix::fs::XattrFlags::empty());
        assert_eq!(attribute.unwrap_err(), Errno::ROFS, "{tree:?}");
        send(later, Signal::KILL);
        building.end_well(&arena, tree);
    }
    arena.finish();
}

#[test]
fn a_writer_changes_no_layer_of_a_runtime() {
    let name = "a_writer_changes_no_layer_of_a_runtime";
    let Some(arena) = Arena::new(name) else { return };
    if is_rootless() || skip(name, &[Need::Program("runc")]) {
        return;
    }
    for tree in TREES {
        let building = Building::start(&arena, tree, &["--oci-runtime", "runc"]);
        let step = building.sleeper(0);
        let held = open(step, "tool", OpenOptions::new().write(true));
        let root = open(step, "", OpenOptions::new().read(true));
        send(step, Signal::KILL);
        if tree == ("overlay", "base") {
            let said = building.end(&arena).failure();
            assert!(said.contains("a process outside of the step still holds"), "{said}");
            continue;
        }
        // The runtime has its own mounts of the directory, so kiln keeps a copy of it.
        let later = building.sleeper(1);
        rustix::io::pwrite(&held, b"evil\n", 0).unwrap();
        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
        // A copied directory may be removed already.
        let _ = rustix::fs::openat(&root, "added", flags, rustix::fs::Mode::RWXU);
        send(later, Signal::KILL);
        building.end_well(&arena, tree);
    }
    arena.finish();
}

/// The processes to kill at the same time.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    Helper,
    Kiln,
    Both,
}

#[test]
fn everything_ends_with_kiln_and_with_its_helper() {
    let Some(arena) = Arena::new("everything_ends_with_kiln_and_with_its_helper") else { return };
    // With a setuid program, the kernel resets the parent-death signal, as it does for programs
    // that request it.
    let image = "FROM base\nRUN chmod u+s /bin/busybox\n";
    arena.build(image, &["-t", "setuid"]).success();
    let ways: [&[&str]; 3] = [&[], &["-t"], &["--pid", "host"]];
    for way in ways {
        for killed in [Killed::Helper, Killed::Kiln, Killed::Both] {
            let word = word();
            let script = format!("trap '' HUP TERM; setsid sleep {word} & sleep {word}; true");
            let always = ["run", "--rm", "--network", "none", "-u", "1000"];
            let arguments = [&always[..], way, &["setuid", "sh", "-c", &script]].concat();
            end(&arena, &arguments, killed, &word);
        }
    }
    arena.finish();
}

/// Runs a container, kills processes, and asserts that no process of the container remains.
fn end(arena: &Arena, arguments: &[&str], killed: Killed, word: &str) {
    let context = format!("{arguments:?}, {killed:?}");
    let terminal = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
    rustix::pty::unlockpt(&terminal).unwrap();
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let peer = rustix::pty::ioctl_tiocgptpeer(&terminal, flags).unwrap();
    let mut command = if arguments.contains(&"-t") {
        let mut command = arena.kiln.command_on_terminal(arguments);
        command.stdin(peer);
        command
    } else {
        arena.kiln.command(arguments)
    };
    let child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("both sleep", || sleepers(word).len() == 2);
    let direct = sleepers(word).into_iter().map(ancestors).min_by_key(Vec::len).unwrap();
    // The program, the helper, its keeper if it has one, and kiln.
    let (helper, kiln) = (direct[1], *direct.last().unwrap());
    match killed {
        Killed::Helper => send(helper, Signal::KILL),
        Killed::Kiln => send(kiln, Signal::KILL),
        Killed::Both => {
            // Neither of them can react to the death of the other.
            send(kiln, Signal::STOP);
            send(helper, Signal::KILL);
            send(kiln, Signal::KILL);
        }
    }
    wait_until(&format!("nothing is left: {context}"), || sleepers(word).is_empty());
    let output = child.wait_with_output().unwrap();
    if killed == Killed::Helper {
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{context}");
        assert!(said.contains("helper was killed"), "{context}: {said}");
    }
}
