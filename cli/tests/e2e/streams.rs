//! Standard output that can't be written, and readers that close their pipe.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
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
    // A program's standard error is part of the result, too.
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut command = kiln.command(&["run", "--rm", "img", "sh", "-c", "echo x >&2"]);
    assert_eq!(command.stderr(full).status().unwrap().code(), Some(1));
}

/// Runs a command whose reader closes the pipe after a line. Returns the exit status and standard
/// error.
fn head(mut command: Command) -> (std::process::ExitStatus, String) {
    let begun = Instant::now();
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // A full pipe of errors would keep the line from coming.
    let mut errors = child.stderr.take().unwrap();
    let errors = std::thread::spawn(move || {
        let mut bytes = Vec::new();
        errors.read_to_end(&mut bytes).unwrap();
        bytes
    });
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.ends_with('\n'), "{line:?}");
    let status = child.wait().unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20), "{command:?} took {:?}", begun.elapsed());
    (status, String::from_utf8_lossy(&errors.join().unwrap()).into_owned())
}

#[test]
fn a_reader_that_goes_away_ends_the_writer() {
    if skip("a_reader_that_goes_away_ends_the_writer", &[Need::Root]) {
        return;
    }
    let kiln = built();
    for line in [
        &["run", "--rm", "img", "yes"][..],
        // The shell ignores that it can't write.
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
    kiln.wait_until_clean();
    for line in
        [&["history", "--no-trunc", "img"][..], &["inspect", "img"], &["completion", "bash"]]
    {
        let mut shell = Command::new("sh");
        let inner = kiln.command(line);
        // `head` ends before kiln writes.
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
    // `setsid` reports a signal in the shells' convention.
    assert!(status.code() == Some(128 + SIGPIPE) || status.signal() == Some(SIGPIPE), "{stderr}");
}

/// Runs a bash command line in which `kiln` is the kiln under test.
fn bash(kiln: &Kiln, script: &str) -> kiln_testkit::Output {
    let inner = kiln.command::<&str>(&[]);
    let mut shell = Command::new("bash");
    shell.args(["-c", &format!("kiln() {{ \"$0\" \"$@\"; }}\n{script}")]).arg(kiln.binary());
    shell.env_clear().envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(shell.current_dir(kiln.path("")))
}

#[test]
fn what_can_be_read_once_is_given_to_all() {
    if skip("what_can_be_read_once_is_given_to_all", &[Need::Root, Need::Program("bash")]) {
        return;
    }
    let kiln = built();
    let secret = "RUN --mount=type=secret,id=q test $(cat /run/secrets/q) = x";
    kiln.write("c/Dockerfile", format!("FROM base\n{secret}\n{secret} && echo two\n"));
    let base = format!("--build-context base=oci-layout://{}", kiln.base().display());
    bash(&kiln, &format!("kiln build {base} --secret id=q,src=<(echo x) c")).success();
    let other = secret.replace("id=q", "id=r").replace("/q)", "/r)");
    kiln.write("d/Dockerfile", format!("FROM base\n{secret}\n{other}\n"));
    let both = "--secret id=q,src=/dev/stdin --secret id=r,src=/dev/stdin";
    bash(&kiln, &format!("echo x | kiln build {base} {both} d")).success();
    // A Dockerfile with any kind of context.
    kiln.write("e/file", "text\n");
    let dockerfile = "-f <(printf 'FROM scratch\\nCOPY file /\\n') -o out";
    for context in ["e", "- < <(tar -C e -c file)"] {
        bash(&kiln, &format!("rm -rf out; kiln build {dockerfile} {context}")).success();
        assert_eq!(std::fs::read_to_string(kiln.path("out/file")).unwrap(), "text\n");
    }
    let run = "kiln run --rm --env-file <(echo A=1) --env-file <(echo B=2) img sh -c 'echo $A$B'";
    assert_eq!(bash(&kiln, run).success(), "12\n");
    let script = "kiln save img | kiln load -i /dev/stdin && kiln import <(tar -C e -c file) imp";
    assert!(bash(&kiln, script).success().starts_with("Loaded image: img:latest\nsha256:"));
    let config = "kiln pull --registries-config <(echo '[registry') 127.0.0.1:1/x";
    assert!(bash(&kiln, config).failure().contains("line 1"));
}

#[test]
fn a_dockerfile_may_be_elsewhere() {
    let server = kiln_testkit::FileServer::start();
    server.put("/d/Dockerfile", kiln_testkit::Answer::of("FROM scratch\nCOPY file /\n"));
    let kiln = kiln();
    kiln.write("e/file", "text\n");
    let url = server.url("/d/Dockerfile");
    kiln.run(&["build", "-f", &url, "--check", "e"]).success();
    let missing = kiln.run(&["build", "-f", &format!("{url}s"), "--check", "e"]).failure();
    assert!(missing.contains(&format!("fetch the Dockerfile {url}s")), "{missing}");
}

#[test]
fn broken_configuration_is_never_passed_over_in_silence() {
    let kiln = kiln();
    kiln.write("c/Dockerfile", "FROM 127.0.0.1:1/none\n");
    let build = ["build", "--check", "c"];
    let own = kiln.write("home/.config/kiln/config.toml", "max-storage = \"1g\"\nx = 1\n");
    for line in [&["images"][..], &["images", "--max-storage", "1g"], &build] {
        let refused = kiln.run(line).failure();
        assert!(refused.contains("config.toml") && refused.contains("line 2"), "{refused}");
    }
    std::fs::remove_file(own).unwrap();
    let own = kiln.write("home/.config/kiln/registries.toml", "\n[registry\n");
    let refused = kiln.run(&build).failure();
    assert!(refused.contains("registries.toml: line 2: "), "{refused}");
    std::fs::remove_file(own).unwrap();
    // kiln ignores invalid files of other programs, and warns the user once.
    kiln.write("home/.config/docker/daemon.json", "{\n \"registry-mirrors\": [],\n}\n");
    kiln.write("home/.docker/config.json", "{\"auths\": {},\n}\n");
    for (line, warning) in [
        (&build[..], "daemon.json: invalid JSON: trailing comma at line 3 column 1"),
        (&["login", "127.0.0.1:1"], "config.json: invalid JSON: trailing comma at line 2 column 1"),
    ] {
        let refused = kiln.run(line).failure();
        let warning = format!("{warning}; the file is ignored\n");
        assert_eq!(refused.matches(&warning).count(), 1, "{refused}");
    }
    // kiln doesn't overwrite a file that it can't read.
    let mut login = kiln.command(&["login", "-u", "u", "-p", "p", "127.0.0.1:1"]);
    assert_ne!(run(&mut login).code, 0);
    let left = std::fs::read_to_string(kiln.path("home/.docker/config.json")).unwrap();
    assert_eq!(left, "{\"auths\": {},\n}\n");
}

#[test]
fn three_requests_end_a_writer_that_waits_for_its_reader() {
    if skip("three_requests_end_a_writer_that_waits_for_its_reader", &[Need::Root]) {
        return;
    }
    let kiln = built();
    let mut child =
        kiln.command(&["run", "--rm", "img", "yes"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = BufReader::with_capacity(2, child.stdout.take().unwrap());
    output.read_line(&mut String::new()).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
    drop(output);
}
