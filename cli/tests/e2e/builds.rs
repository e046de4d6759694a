//! `kiln builds`: the history.

use std::process::Stdio;

use kiln_testkit::environment::base_layout;
use kiln_testkit::peers::wait_until;
use kiln_testkit::{Kiln, Need, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::kiln;

fn inspect(kiln: &Kiln, build: &str) -> Value {
    let text = kiln.run(&["builds", "inspect", build, "--format", "json"]).success();
    serde_json::from_str(&text).unwrap()
}

/// Returns the step whose name contains `name`.
fn step<'a>(build: &'a Value, name: &str) -> &'a Value {
    let steps = build["steps"].as_array().unwrap();
    steps.iter().find(|step| step["name"].as_str().unwrap().contains(name)).unwrap()
}

#[test]
fn builds_are_remembered_with_their_steps_and_logs() {
    if skip("builds_are_remembered_with_their_steps_and_logs", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    assert_eq!(kiln.run(&["builds", "ls", "-q"]).success(), "");
    assert!(kiln.run(&["builds", "inspect"]).failure().contains("there is no build latest"));
    let dockerfile = "FROM base AS a\nARG V\nRUN echo one $V && echo two >&2\n\
                      FROM a AS bad\nRUN printf 'last\\033[2J' && exit 3\n";
    let arguments = ["-t", "app:1", "--target", "a", "--build-arg", "V=x"];
    kiln.build_text(dockerfile, &arguments).success();
    kiln.build_text(dockerfile, &arguments).success();
    kiln.build_text(dockerfile, &["--build-arg", "V=x"]).failure();
    // A query isn't a build and isn't recorded.
    kiln.build_text(dockerfile, &["--call", "targets"]).success();

    let list = kiln.run(&["builds", "ls", "--format", "json"]).success();
    let list: Vec<Value> = list.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let column = |name: &str| list.iter().map(|build| build[name].clone()).collect::<Vec<_>>();
    assert_eq!(column("status"), ["failed", "completed", "completed"]);
    assert_eq!(column("name"), ["text", "app:1", "app:1"]);
    assert_eq!((&list[1]["cached_steps"], &list[1]["total_steps"]), (&2.into(), &2.into()));
    let ids: Vec<&str> = list.iter().map(|build| build["id"].as_str().unwrap()).collect();
    assert_eq!(kiln.run(&["builds", "ls", "-q"]).success(), ids.join("\n") + "\n");
    let failed = kiln.run(&["builds", "ls", "-q", "--filter", "status=failed"]).success();
    assert_eq!(failed.trim(), ids[0]);
    let table = kiln.run(&["builds", "ls"]).success();
    // "seconds ago" or "less than a second ago".
    let is_new = table.contains("second");
    assert!(table.starts_with("ID ") && table.contains("2/2") && is_new, "{table}");

    let first = inspect(&kiln, "^2");
    assert_eq!(first["id"], ids[2]);
    assert_eq!((&first["target"], &first["build_args"]["V"]), (&"a".into(), &"x".into()));
    assert!(first["image_id"].as_str().unwrap().starts_with("sha256:"));
    let run = step(&first, "RUN echo one");
    assert_eq!((&run["status"], &run["log_bytes"]), (&"completed".into(), &10.into()));
    assert!(run["digest"].as_str().unwrap().starts_with("sha256:"));
    assert!(run["duration_ms"].is_u64() && run["started_ms"].is_u64());
    let again = inspect(&kiln, ids[1]);
    assert_eq!(step(&again, "RUN echo one")["status"], "cached");
    let last = inspect(&kiln, &ids[0][..6]);
    assert!(last["error"].as_str().unwrap().ends_with("exit code: 3"), "{last}");
    assert_eq!(step(&last, "RUN printf")["status"], "failed");
    let text = kiln.run(&["builds", "inspect"]).success();
    assert!(text.contains("Status:      failed") && text.contains("ERROR"), "{text}");

    let number = step(&first, "RUN echo one")["number"].to_string();
    let logs = |arguments: &[&str]| kiln.run(&[&["builds", "logs"], arguments].concat()).success();
    assert_eq!(logs(&[ids[2], &number]), "one x\ntwo\n");
    let plain = logs(&[ids[2]]);
    assert!(plain.contains(&format!("#{number} ")) && plain.contains(" one x\n"), "{plain}");
    assert_eq!(logs(&["latest", "--raw"]), "last\u{1b}[2J");
    assert!(logs(&[]).contains(" last\n"));
    assert_eq!(logs(&[ids[1]]), "", "nothing was printed by what was known");
    assert!(kiln.run(&["builds", "logs", "latest", "99"]).failure().contains("no step \"99\""));

    assert_eq!(kiln.run(&["builds", "rm", "^1"]).success().trim(), ids[1]);
    kiln.run(&["builds", "rm", ids[1]]).failure();
    kiln.run(&["builds", "rm", "--all"]).success();
    assert_eq!(kiln.run(&["builds", "ls", "-q"]).success(), "");
    assert_eq!(std::fs::read_dir(kiln.root().join("builds")).unwrap().count(), 0);
}

#[test]
fn a_failure_says_where_its_log_is_where_it_is_not_shown() {
    if skip("a_failure_says_where_its_log_is_where_it_is_not_shown", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = |lines| format!("FROM base\nRUN seq {lines} && exit 3\n");
    let whole = kiln.build_text(&dockerfile(1000), &[]).failure();
    assert!(!whole.contains("its whole log"), "{whole}");
    kiln.write("text/Dockerfile", dockerfile(1000));
    let base = format!("base=oci-layout://{}", base_layout().display());
    let quiet = || kiln.run(&["build", "-q", "--build-context", &base, "text"]).failure();
    let said = quiet();
    let command = said.lines().find_map(|line| line.strip_prefix("its whole log: kiln "));
    let command: Vec<&str> = command.unwrap_or_else(|| panic!("{said}")).split(' ').collect();
    let log = kiln.run(&command).success();
    assert_eq!(log.lines().count(), 1000);
    assert!(log.starts_with("1\n2\n") && log.ends_with("999\n1000\n"));
    kiln.write("text/Dockerfile", dockerfile(10));
    let short = quiet();
    assert!(short.contains("\n10\n") && !short.contains("its whole log"), "{short}");
}

/// Starts a build that prints and then waits. Returns once it has printed.
fn waiting(kiln: &Kiln, dockerfile: &str) -> std::process::Child {
    kiln.write("ctx/Dockerfile", dockerfile);
    let base = format!("base=oci-layout://{}", base_layout().display());
    let log = std::fs::File::create(kiln.path("log")).unwrap();
    let build = kiln
        .command(&["build", "--progress=plain", "--build-context", &base, "ctx"])
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .unwrap();
    let shown = || std::fs::read_to_string(kiln.path("log")).unwrap();
    wait_until("the step runs", || shown().contains(" printed\n"));
    build
}

#[test]
fn an_interrupted_build_is_recorded_as_canceled() {
    if skip("an_interrupted_build_is_recorded_as_canceled", &[Need::Root]) {
        return;
    }
    for (signal, status) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let kiln = kiln();
        let mut build = waiting(&kiln, "FROM base\nRUN echo printed && sleep 1000\n");
        kill_process(Pid::from_child(&build), signal).unwrap();
        assert_eq!(build.wait().unwrap().code(), Some(status));
        let last = inspect(&kiln, "latest");
        assert_eq!((&last["status"], &last["error"]), (&"canceled".into(), &"canceled".into()));
        assert_eq!(step(&last, "RUN echo")["status"], "canceled");
        assert!(!std::fs::read_to_string(kiln.path("log")).unwrap().contains("to look into it"));
    }
}

#[test]
fn a_killed_build_is_in_the_history_with_what_it_had_printed() {
    if skip("a_killed_build_is_in_the_history_with_what_it_had_printed", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let mut build = waiting(&kiln, "FROM base\nRUN echo printed && sleep 1000\n");
    let status = || inspect(&kiln, "latest")["status"].clone();
    wait_until("what was printed is kept", || {
        kiln.run(&["builds", "logs"]).stdout.ends_with(" printed\n")
    });
    assert_eq!(status(), "running");
    assert!(kiln.run(&["builds", "rm", "latest"]).failure().contains("is running"));
    build.kill().unwrap();
    build.wait().unwrap();
    wait_until("it is told from one that runs", || status() == "interrupted");
    assert!(kiln.run(&["builds", "logs"]).success().ends_with(" printed\n"));
    kiln.build_text("FROM base\n", &[]).success();
    assert_eq!(inspect(&kiln, "^1")["status"], "interrupted");
}

#[test]
fn a_second_interrupt_ends_the_build_at_once() {
    if skip("a_second_interrupt_ends_the_build_at_once", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/Dockerfile", "FROM base\nRUN yes\n");
    let base = format!("base=oci-layout://{}", base_layout().display());
    // The output has no reader. The pending output keeps the build alive after the first interrupt.
    let mut build = kiln
        .command(&["build", "--progress=plain", "--no-log-limit", "--build-context", &base, "ctx"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("more was printed than a pipe takes", || {
        let seen = kiln.run(&["builds", "inspect", "--format=json"]).stdout;
        let build: Value = serde_json::from_str(&seen).unwrap_or_default();
        let steps = build["steps"].as_array();
        steps.is_some_and(|steps| {
            steps.iter().any(|step| step["log_bytes"].as_u64() > Some(1 << 20))
        })
    });
    let pid = Pid::from_child(&build);
    kill_process(pid, Signal::INT).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(build.try_wait().unwrap().is_none(), "it waits for its reader");
    kill_process(pid, Signal::INT).unwrap();
    let begun = std::time::Instant::now();
    build.wait().unwrap();
    assert!(begun.elapsed().as_secs() < 5);
    kiln.build_text("FROM base\nRUN true\n", &[]).success();
}
