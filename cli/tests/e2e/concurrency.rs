//! Several builds at once.

use std::process::Stdio;

use kiln_testkit::environment::base_layout;
use kiln_testkit::peers::wait_until;
use kiln_testkit::{Need, skip};

use crate::kiln;

#[test]
fn steps_that_turn_out_to_be_the_same_run_once() {
    if skip("steps_that_turn_out_to_be_the_same_run_once", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("one/f", "same");
    kiln.write("two/f", "same");
    let contexts = ["one", "two"].map(|name| format!("{name}={}", kiln.path(name).display()));
    // The builds only know the copied file after reading it, and each run produces another one.
    let stage = |from: &str| {
        format!("COPY --from={from} f /f\nRUN sleep 0.2 && head -c 16 /dev/urandom > /id\n")
    };
    let dockerfile = format!(
        "FROM base AS a\n{}FROM base AS b\n{}FROM base\nCOPY --from=a /id /a\n\
         COPY --from=b /id /b\nRUN cmp /a /b\n",
        stage("one"),
        stage("two")
    );
    let [one, two] = &contexts;
    let arguments = ["--build-context", one, "--build-context", two];
    kiln.build_text(&dockerfile, &arguments).success();
    // The same holds without the cache.
    kiln.build_text(&dockerfile, &[&arguments[..], &["--no-cache"]].concat()).success();
}

#[test]
fn two_builds_at_once_run_each_step_once() {
    if skip("two_builds_at_once_run_each_step_once", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    // Each run of a step produces different files.
    let step = |step| format!("RUN sleep 0.2 && head -c 16 /dev/urandom > /id{step}\n");
    let steps = (0..6).map(step).collect::<Vec<_>>().concat();
    let other = "COPY --from=0 /id5 /\nRUN head -c 16 /dev/urandom > /x\n";
    kiln.write("ctx/Dockerfile", format!("FROM base\n{steps}FROM base\n{other}"));
    let base = format!("base=oci-layout://{}", base_layout().display());
    let start = |name: &str| {
        kiln.command(&["build", "--progress=plain", "--build-context", &base, "-t", name, "ctx"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    let builds = [start("one"), start("two")];
    for build in builds {
        let output = build.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let layers = |name: &str| {
        let inspected = kiln.run(&["inspect", name]).success();
        let images: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        images[0]["RootFS"]["Layers"].clone()
    };
    assert_eq!(layers("one").as_array().unwrap().len(), 3);
    assert_eq!(layers("one"), layers("two"));
}

/// A step that prints when it runs. A secret, which is not part of its key, determines how long it
/// runs.
const SLOW: &str = "FROM base
RUN --mount=type=secret,id=time echo going; sleep $(cat /run/secrets/time); head -c 16 /dev/urandom > /id
";

#[test]
fn a_build_waits_for_the_step_of_another_and_takes_it_over_when_that_is_killed() {
    if skip(
        "a_build_waits_for_the_step_of_another_and_takes_it_over_when_that_is_killed",
        &[Need::Root],
    ) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/Dockerfile", SLOW);
    let base = format!("base=oci-layout://{}", base_layout().display());
    let start = |name: &str, seconds: &str| {
        let secret =
            format!("id=time,src={}", kiln.write(&format!("{name}.time"), seconds).display());
        let log = std::fs::File::create(kiln.path(name)).unwrap();
        let plain = ["build", "--progress=plain", "--build-context", &base];
        kiln.command(&[&plain[..], &["--secret", &secret, "-t", name, "ctx"]].concat())
            .stderr(log)
            .spawn()
            .unwrap()
    };
    let shown = |name: &str| std::fs::read_to_string(kiln.path(name)).unwrap();
    let is_going = |name: &str| shown(name).lines().any(|line| line.ends_with(" going"));
    let waits = |name: &str| shown(name).contains("waiting for another build that runs this step");

    let mut first = start("first", "1000");
    wait_until("the first build runs the step", || is_going("first"));
    let (mut second, mut third) = (start("second", "1"), start("third", "0"));
    wait_until("the others wait for it", || waits("second") && waits("third"));
    assert!(!is_going("second") && !is_going("third"));
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success(), "{}", shown("second"));
    assert!(third.wait().unwrap().success(), "{}", shown("third"));
    let ran = ["second", "third"].map(is_going);
    assert!(ran[0] != ran[1], "one of the two has run it: {ran:?}");
    let layers = |name: &str| {
        let inspected = kiln.run(&["inspect", name]).success();
        let images: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        images[0]["RootFS"]["Layers"].clone()
    };
    assert_eq!(layers("second"), layers("third"));
    assert_eq!(kiln.run(&["system", "check"]).success(), "The store is in order.\n");
}
