//! What of a step outlives it: processes.

use std::process::Stdio;

use kiln_testkit::peers::wait_until;
use rustix::process::{Pid, Signal, kill_process};

use crate::arena::{Arena, is_rootless};

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

/// Returns a line of what `/proc` says of a process.
fn status(pid: i32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
    value.unwrap().to_owned()
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

/// Returns the processes above one, up to kiln: the program, kiln's helpers, and kiln.
fn ancestors(pid: i32) -> Vec<i32> {
    let mut all = Vec::new();
    let mut pid = pid;
    while !all.last().is_some_and(|pid| status(*pid, "Name") == "kiln") {
        pid = status(pid, "PPid").parse().unwrap();
        all.push(pid);
    }
    all
}

/// Which processes are killed, all at the same moment.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    Helper,
    Kiln,
    Both,
}

#[test]
fn everything_ends_with_kiln_and_with_its_helper() {
    let Some(arena) = Arena::new("everything_ends_with_kiln_and_with_its_helper") else { return };
    // With a setuid program the kernel forgets whose death is the program's, as it does for programs that
    // ask for that.
    let image = "FROM base\nRUN chmod u+s /bin/busybox\n";
    arena.build(image, &["-t", "setuid"]).success();
    let ways: [&[&str]; 3] = [&[], &["-t"], &["--pid", "host"]];
    let mut number = 70;
    for way in ways {
        for killed in [Killed::Helper, Killed::Kiln, Killed::Both] {
            number += 1;
            let word = format!("{number}.{}{}", std::process::id(), u8::from(is_rootless()));
            let script = format!("trap '' HUP TERM; setsid sleep {word} & sleep {word}; true");
            let always = ["run", "--rm", "--network", "none", "-u", "1000"];
            let arguments = [&always[..], way, &["setuid", "sh", "-c", &script]].concat();
            end(&arena, &arguments, killed, &word);
        }
    }
    arena.finish();
}

/// Runs a container, kills processes, and sees to it that nothing of the container stays.
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
    let [_program, helper, .., kiln] = direct[..] else { panic!("{direct:?}") };
    match killed {
        Killed::Helper => send(helper, Signal::KILL),
        Killed::Kiln => send(kiln, Signal::KILL),
        Killed::Both => {
            // Neither sees the other die.
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
