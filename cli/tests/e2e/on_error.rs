//! `kiln build --on-error`.

use std::io::Write;
use std::process::Stdio;

use kiln_testkit::environment::{Output, base_layout};
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;
use crate::terminal::Terminal;

/// Builds `dockerfile` with commands for the shell on standard input.
fn build(kiln: &Kiln, dockerfile: &str, (arguments, typed): (&[&str], &str)) -> Output {
    kiln.write("ctx/Dockerfile", dockerfile);
    let base = format!("base=oci-layout://{}", base_layout().display());
    let mut all = vec!["build", "--on-error=shell", "--progress=plain", "--build-context", &base];
    all.extend_from_slice(arguments);
    all.push("ctx");
    let mut child = kiln
        .command(&all)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A build that fails in another way doesn't read its input.
    let _ = child.stdin.take().unwrap().write_all(typed.as_bytes());
    let output = child.wait_with_output().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

const FAILING: &str = "FROM base\nENV A=b\nWORKDIR /w\nUSER nobody\n\
    RUN --network=none --mount=type=cache,target=/c,uid=65534 \
    --mount=type=secret,id=s,uid=65534 --mount=type=tmpfs,target=/t \
    echo half > /tmp/half && exit 3\n";

#[test]
fn a_shell_is_where_the_step_was() {
    if skip("a_shell_is_where_the_step_was", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let secret = format!("id=s,src={}", kiln.write("s", "confidential\n").display());
    let typed = "cat /tmp/half; pwd; id -u; echo $A; cat /run/secrets/s; ls /sys/class/net\n\
                 stat -f -c %T /t; echo kept > /c/kept; echo more >> /tmp/half; exit 7\n";
    let built = build(&kiln, FAILING, (&["--secret", &secret], typed));
    assert_eq!(built.code, 1, "{}", built.stderr);
    assert_eq!(built.stdout, "half\n/w\n65534\nb\nconfidential\nlo\ntmpfs\n");
    let at = |text: &str| built.stderr.rfind(text).unwrap_or_else(|| panic!("{}", built.stderr));
    assert!(at("opening a shell in ") < at("ERROR: failed to solve: "));
    assert!(!built.stderr.contains("to look into it"), "{}", built.stderr);

    // The shell's changes persist in the cache mount only.
    let look = FAILING.replace("&& exit 3", "&& cat /c/kept && wc -l < /tmp/half");
    let seen = kiln.build_text(&look, &["--secret", &secret]);
    assert!(seen.stderr.contains(" kept\n") && seen.stderr.contains(" 1\n"), "{}", seen.stderr);
    seen.success();
}

#[test]
fn a_shell_has_the_users_terminal() {
    if skip("a_shell_has_the_users_terminal", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/Dockerfile", "FROM base\nRUN echo half > /half && exit 3\n");
    let base = format!("base=oci-layout://{}", base_layout().display());
    let (mut terminal, other) = Terminal::open();
    let before = rustix::termios::tcgetattr(&other).unwrap();
    let stream = || other.try_clone().unwrap();
    let mut child = kiln
        .command_on_terminal(&["build", "--on-error=shell", "--build-context", &base, "ctx"])
        .stdin(stream())
        .stdout(stream())
        .stderr(stream())
        .spawn()
        .unwrap();
    terminal.expect("exit code: 3");
    terminal.expect("opening a shell");
    terminal.expect("# ");
    // The program that prints this is in the foreground, so it receives Ctrl-C.
    terminal.press("sh -c 'echo $(cat /half) $(stty size) do\"\"ne; exec sleep 1000'\r");
    terminal.expect("half 30 100 done");
    // The shell receives Ctrl-C, and kiln keeps running.
    terminal.press("\u{3}");
    terminal.expect("# ");
    terminal.press("echo go''ing on; exit\r");
    terminal.expect("going on");
    terminal.expect("ERROR: failed to solve");
    assert_eq!(child.wait().unwrap().code(), Some(1));
    let after = rustix::termios::tcgetattr(&other).unwrap();
    assert_eq!(format!("{before:?}"), format!("{after:?}"));
}

#[test]
fn other_steps_are_stopped_before_the_shell_opens() {
    if skip("other_steps_are_stopped_before_the_shell_opens", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base AS a\nRUN --mount=type=cache,id=s,target=/s \
        touch /s/up && sleep 1000; touch /s/ended\n\
        FROM base AS b\nRUN --mount=type=cache,id=s,target=/s \
        while ! test -e /s/up; do sleep 0.02; done; exit 3\n\
        FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\n";
    let built = build(&kiln, dockerfile, (&[], "ls /s\n"));
    assert_eq!((built.code, built.stdout.as_str()), (1, "up\n"), "{}", built.stderr);
    let at = |text: &str| built.stderr.find(text).unwrap_or_else(|| panic!("{}", built.stderr));
    assert!(at("CANCELED") < at("opening a shell"));
}

#[test]
fn what_can_not_be_entered_is_said() {
    if skip("what_can_not_be_entered_is_said", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let copy = build(&kiln, "FROM base\nCOPY nothing /\n", (&[], "echo entered\n"));
    assert_eq!((copy.code, copy.stdout.as_str()), (1, ""));
    assert!(copy.stderr.contains("no shell can be opened in [1/2] COPY nothing /"));
    let plain = kiln.build_text("FROM base\nCOPY nothing /\n", &[]).failure();
    assert!(!plain.contains("shell") && !plain.contains("to look into it"), "{plain}");

    let empty = "FROM scratch\nCOPY --from=base /bin/busybox /x\nRUN [\"/x\", \"false\"]\n";
    let empty = build(&kiln, empty, (&[], "echo entered\n"));
    assert_eq!((empty.code, empty.stdout.as_str()), (1, ""));
    assert!(empty.stderr.contains("have no shell: none of /bin/bash, /bin/sh"), "{}", empty.stderr);

    // A shell from the image, and a program that doesn't exist.
    let own = "FROM scratch\nCOPY --from=base /bin/busybox /own/sh\nSHELL [\"/own/sh\", \"-c\"]\n\
               RUN no-such-program\n";
    let own = build(&kiln, own, (&[], "echo entered\n"));
    assert_eq!((own.code, own.stdout.as_str()), (1, "entered\n"), "{}", own.stderr);

    let both = kiln.run(&["build", "--on-error=shell", "-f", "-", "ctx"]).failure();
    assert!(both.contains("--on-error=shell needs standard input"), "{both}");
}

#[test]
fn a_failure_names_the_command_that_enters_it() {
    if skip("a_failure_names_the_command_that_enters_it", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let arguments =
        ["--build-arg", "API_TOKEN=canary-1", "--build-arg", "B=it's", "--label", "x=y z"];
    let stderr = kiln.build_text("FROM base\nRUN exit 3\n", &arguments).failure();
    let last = stderr.lines().last().unwrap();
    let command = last.strip_prefix("to look into it: ").unwrap_or_else(|| panic!("{stderr}"));
    assert!(
        command.ends_with("--build-arg API_TOKEN --build-arg 'B=it'\\''s' --label 'x=y z' text"),
        "{command}"
    );
    assert!(!stderr.contains("canary-1"), "{stderr}");
    // A shell accepts the suggested command unchanged.
    let command = command.strip_prefix("kiln ").unwrap();
    let script = format!("echo 'echo entered' | {} {command}", env!("CARGO_BIN_EXE_kiln"));
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", &script]).env("KILN_ROOT", kiln.root()).current_dir(kiln.path("."));
    let entered = kiln_testkit::environment::run(&mut shell);
    assert_eq!((entered.code, entered.stdout.as_str()), (1, "entered\n"), "{}", entered.stderr);
}
