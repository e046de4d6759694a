//! `kiln run`.

use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;
use crate::terminal::Terminal;

fn prepared() -> Kiln {
    let kiln = kiln();
    prepare(&kiln);
    kiln
}

/// Builds the image `img`.
fn prepare(kiln: &Kiln) {
    let dockerfile = "FROM base\nRUN mkdir /vol /w && echo image > /vol/f && chown 7:8 /vol\n\
                      ENV A=image B=image\nWORKDIR /w\nUSER nobody\nVOLUME /vol\nCMD [\"id\", \"-u\"]\n";
    kiln.build_text(dockerfile, &["-t", "img"]).success();
}

#[test]
fn the_images_defaults_and_the_overrides_count() {
    if skip("the_images_defaults_and_the_overrides_count", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let run = |arguments: &[&str]| kiln.run(&[&["run", "--rm"], arguments].concat()).success();
    assert_eq!(run(&["img"]), "65534\n");
    assert_eq!(run(&["-u", "5:6", "img", "sh", "-c", "id -u; id -g"]), "5\n6\n");
    assert_eq!(run(&["img", "pwd"]), "/w\n");
    assert_eq!(run(&["-w", "/tmp", "img", "pwd"]), "/tmp\n");
    assert_eq!(run(&["-e", "B=mine", "img", "sh", "-c", "echo $A $B"]), "image mine\n");
    assert_eq!(run(&["--entrypoint", "echo", "img", "hello"]), "hello\n");
    assert_eq!(run(&["--network", "none", "img", "sh", "-c", "ls /sys/class/net"]), "lo\n");
    kiln.wait_until_clean();
}

#[test]
fn the_exit_status_is_the_commands() {
    if skip("the_exit_status_is_the_commands", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let code = |arguments: &[&str]| kiln.run(&[&["run", "--rm"], arguments].concat()).code;
    assert_eq!(code(&["img", "true"]), 0);
    assert_eq!(code(&["img", "sh", "-c", "exit 7"]), 7);
    // The signal ends a child of the shell; process 1 ignores its own signals.
    assert_eq!(code(&["img", "sh", "-c", "sh -c 'kill -9 $$'; exit $?"]), 137);
    assert_eq!(code(&["img", "no-such-program"]), 127);
    assert_eq!(code(&["img", "/etc/passwd"]), 126);
    assert_eq!(code(&["no-such-image:x/y"]), 125);
}

#[test]
fn volumes_are_filled_and_binds_are_shared() {
    if skip("volumes_are_filled_and_binds_are_shared", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    kiln.write("shared/f", "host\n");
    let shared = kiln.path("shared");
    let run = |arguments: &[&str]| kiln.run(&[&["run", "--rm"], arguments].concat());
    // The volume has the image's content and owner, and is writable.
    let script = "cat /vol/f; stat -c %u:%g /vol; echo more > /vol/g && cat /vol/g";
    let seen = run(&["-u", "0", "img", "sh", "-c", script]).success();
    assert_eq!(seen, "image\n7:8\nmore\n");
    let bind = format!("{}:/mnt/host", shared.display());
    let script = "cat /mnt/host/f; echo guest > /mnt/host/g";
    assert_eq!(run(&["-u", "0", "-v", &bind, "img", "sh", "-c", script]).success(), "host\n");
    assert_eq!(std::fs::read_to_string(shared.join("g")).unwrap(), "guest\n");
    let read_only = format!("{bind}:ro");
    let denied = run(&["-u", "0", "-v", &read_only, "img", "touch", "/mnt/host/h"]);
    assert!(denied.failure().contains("Read-only file system"));
    // A named volume outlives its container.
    run(&["-u", "0", "-v", "keep:/k", "img", "sh", "-c", "echo kept > /k/f"]).success();
    assert_eq!(run(&["-v", "keep:/k", "img", "cat", "/k/f"]).success(), "kept\n");
    // The container hasn't changed the image.
    assert_eq!(run(&["img", "cat", "/vol/f"]).success(), "image\n");
}

#[test]
fn standard_input_is_passed_where_asked_for() {
    use std::io::Write;
    if skip("standard_input_is_passed_where_asked_for", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let cat = |arguments: &[&str]| {
        let mut child = kiln
            .command(arguments)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // Without -i no process reads the pipe, which may be closed already.
        let _ = child.stdin.take().unwrap().write_all(b"typed\n");
        String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
    };
    assert_eq!(cat(&["run", "--rm", "-i", "img", "cat"]), "typed\n");
    assert_eq!(cat(&["run", "--rm", "img", "cat"]), "");
}

#[test]
fn a_signal_reaches_the_command() {
    if skip("a_signal_reaches_the_command", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let child = kiln
        .command(&["run", "--rm", "img", "sh", "-c", script])
        .stdout(std::process::Stdio::piped())
        .spawn();
    let mut child = child.unwrap();
    let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let mut rest = String::new();
    std::io::Read::read_to_string(&mut output, &mut rest).unwrap();
    assert_eq!(rest, "got it\n");
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn a_terminal_is_passed_through() {
    let needs = [Need::Root, Need::Program("setsid")];
    if skip("a_terminal_is_passed_through", &needs) {
        return;
    }
    pass_a_terminal_through(&kiln(), &[]);
}

/// Uses a shell in a container like a user at a terminal.
pub(crate) fn pass_a_terminal_through(kiln: &Kiln, options: &[&str]) {
    prepare(kiln);
    let (mut terminal, other) = Terminal::open();
    let before = rustix::termios::tcgetattr(&other).unwrap();
    let streams = [other.try_clone().unwrap(), other.try_clone().unwrap()];
    let [stdin, stdout] = streams;
    let stderr = other.try_clone().unwrap();
    let mut child = kiln
        .command_on_terminal(&[&["run", "--rm", "-it"], options, &["img", "sh"]].concat())
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .unwrap();
    terminal.expect("$ ");
    terminal.press("echo $(tty) $(stty size) done\r");
    terminal.expect("/dev/pts/0 30 100 done");
    terminal.resize(40, 120);
    terminal.expect("$ ");
    // The new size must pass through kiln.
    terminal.press("while test \"$(stty size)\" != '40 120'; do :; done; echo resi''zed\r");
    terminal.expect("resized");
    terminal.expect("$ ");
    // The program in the foreground prints this. Before that, the shell would lose a Ctrl-C.
    terminal.press("sh -c \"echo be''gun; exec sleep 1000\"; echo never\r");
    terminal.expect("begun");
    terminal.press("\u{3}");
    terminal.expect("$ ");
    terminal.press("exit 5\r");
    assert_eq!(child.wait().unwrap().code(), Some(5));
    // The user's terminal has its old settings.
    let after = rustix::termios::tcgetattr(&other).unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}
