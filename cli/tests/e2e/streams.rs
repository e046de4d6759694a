//! Standard output that can't be written, and readers that go away.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;
use crate::terminal::Terminal;

const SIGPIPE: i32 = 13;

fn built() -> Kiln {
    let kiln = kiln();
    kiln.build_text("FROM base\nRUN echo text | tee /x\n", &["-t", "img"]).success();
    kiln
}

#[test]
fn output_that_can_not_be_written_is_an_error() {
    if skip("output_that_can_not_be_written_is_an_error", &[Need::Root]) {
        return;
    }
    let kiln = built();
    kiln.write("c/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for line in [
        &["run", "--rm", "img", "echo", "x"][..],
        &["run", "--rm", "img", "seq", "1", "1000000"],
        &["run", "--rm", "-t", "img", "echo", "x"],
        &["images"],
        &["images", "--format", "{{.ID}}"],
        &["inspect", "img"],
        &["inspect", "-f", "{{.Id}}", "img"],
        &["history", "img"],
        &["builds", "ls"],
        &["builds", "inspect"],
        &["builds", "logs"],
        &["builds", "logs", "--raw"],
        &["builds", "explain"],
        &["system", "df"],
        &["system", "df", "-v"],
        &["save", "img"],
        &["build", "-q", "c"],
        &["build", "--call=check", "c"],
        &["build", "--call=outline,format=json", "c"],
        &["build", "--call=targets", "c"],
        &["build", "--dump-llb", "-", "c"],
        &["build", "-o", "-", "c"],
        &["build", "-o", "type=oci,dest=-", "c"],
        &["version"],
        &["info"],
        &["completion", "bash"],
        &["--help"],
        &["run", "--help"],
        &["--version"],
        &["prune", "-f"],
    ] {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let output = kiln.command(line).stdout(full).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{line:?}: {stderr}");
        let message = "ERROR: write /dev/stdout: no space left on device\n";
        assert!(stderr.ends_with(message), "{line:?}: {stderr}");
        assert_eq!(stderr.matches("left on device").count(), 1, "{line:?}: {stderr}");
    }
    // What a program writes to standard error is its result, too.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = kiln.command(&["run", "--rm", "img", "sh", "-c", "echo x >&2"]);
    assert_eq!(command.stderr(full).status().unwrap().code(), Some(1));
}

/// Runs a command whose reader goes after a line, and returns how it has ended and what it has said.
fn head(mut command: Command) -> (std::process::ExitStatus, String) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "{line:?}");
    let output = child.wait_with_output().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{command:?} took {:?}", begun.elapsed());
    (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    if skip("a_reader_that_goes_away_ends_the_writer", &[Need::Root]) {
        return;
    }
    let kiln = built();
    for line in [
        &["run", "--rm", "img", "yes"][..],
        // The shell doesn't mind that it can't write.
        &["run", "--rm", "img", "sh", "-c", "trap '' PIPE; while :; do echo x; done 2>/dev/null"],
        &["run", "--rm", "-t", "img", "yes"],
        &["run", "--rm", "--network", "host", "img", "sh", "-c", "yes >&2 & yes"],
    ] {
        let (status, stderr) = head(kiln.command(line));
        assert_eq!(status.signal(), Some(SIGPIPE), "{line:?}: {stderr}");
        assert!(!stderr.contains("ERROR"), "{line:?}: {stderr}");
    }
    // An endless input.
    let mut yes = Command::new("yes").stdout(Stdio::piped()).spawn().unwrap();
    let mut cat = kiln.command(&["run", "--rm", "-i", "img", "cat"]);
    cat.stdin(yes.stdout.take().unwrap());
    let (status, stderr) = head(cat);
    assert_eq!(status.signal(), Some(SIGPIPE), "{stderr}");
    yes.wait().unwrap();
    // Nothing is left of any container.
    assert_eq!(std::fs::read_dir(kiln.root().join("tmp")).unwrap().count(), 0);
    for line in
        [&["history", "--no-trunc", "img"][..], &["inspect", "img"], &["completion", "bash"]]
    {
        let mut shell = Command::new("sh");
        let inner = kiln.command(line);
        // `head` is gone before there is anything to write.
        shell.args(["-c", "{ sleep 0.2; \"$0\" \"$@\"; echo $? >&2; } | head -n 0"]);
        shell.arg(inner.get_program()).args(inner.get_args());
        shell.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        assert_eq!(run(&mut shell).stderr, "141\n", "{line:?}");
    }
}

#[test]
fn a_terminal_whose_reader_goes_away_ends_the_writer() {
    let needs = [Need::Root, Need::Program("setsid")];
    if skip("a_terminal_whose_reader_goes_away_ends_the_writer", &needs) {
        return;
    }
    let kiln = built();
    let (_terminal, other) = Terminal::open();
    let mut command = kiln.command_on_terminal(&["run", "--rm", "-it", "img", "yes"]);
    command.stdin(other);
    let (status, stderr) = head(command);
    // `setsid` reports how it ended as shells do.
    assert!(status.code() == Some(128 + SIGPIPE) || status.signal() == Some(SIGPIPE), "{stderr}");
}
