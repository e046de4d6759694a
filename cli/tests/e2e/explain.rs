//! `kiln build --explain` and `kiln builds explain`, in addition to the mutation tests.

use kiln_testkit::environment::base_layout;
use kiln_testkit::{Kiln, Need, skip};
use serde_json::Value;

use crate::kiln;

/// Returns the explanation of a build's steps.
fn explained(kiln: &Kiln, arguments: &[&str]) -> Value {
    let all = [&["builds", "explain", "--format", "json"], arguments].concat();
    serde_json::from_str(&kiln.run(&all).success()).unwrap()
}

/// Returns the first cause of the step whose name contains `name`.
fn cause<'a>(explained: &'a Value, name: &str) -> &'a Value {
    let steps = explained["steps"].as_array().unwrap();
    let step = steps.iter().find(|step| step["name"].as_str().unwrap().contains(name));
    assert!(step.is_some(), "no step {name} in {explained}");
    &step.unwrap()["causes"][0]
}

#[test]
fn what_has_become_of_results_is_told() {
    if skip("what_has_become_of_results_is_told", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base\n\
        RUN --mount=type=cache,target=/c echo x >> /c/runs && cp /c/runs /runs\n\
        RUN grep -c x /runs > /count\n";
    kiln.build_text(dockerfile, &["--output", "type=cacheonly"]).success();
    kiln.run(&["prune", "--force"]).success();
    let said = kiln.build_text(dockerfile, &["-t", "img", "--explain"]);
    let (_, why) = said.stderr.split_once("why steps ran:").unwrap();
    assert!(why.contains("RUN grep -c x /runs > /count\n      pruned on 20"), "{why}");
    assert_eq!(cause(&explained(&kiln, &[]), "RUN --mount")["kind"], "pruned");
    // The cache mount has outlived the step.
    let count = kiln.run(&["run", "--rm", "--entrypoint", "cat", "img", "/count"]).success();
    assert_eq!(count, "2\n");

    let failing = format!("{dockerfile}RUN test -e /never\n");
    kiln.build_text(&failing, &[]).failure();
    assert_eq!(cause(&explained(&kiln, &[]), "RUN test")["kind"], "never-built");
    kiln.build_text("FROM base\nRUN true\n", &[]).success();
    let said = kiln.build_text(&failing, &["--explain"]).failure();
    let id = explained(&kiln, &["^2"])["build"].as_str().unwrap().to_owned();
    assert!(said.contains(&format!("(failed)\n      it has failed in build {id}")), "{said}");
    let found = explained(&kiln, &[]);
    let unfinished = cause(&found, "RUN test");
    assert_eq!((&unfinished["kind"], &unfinished["build"]), (&"unfinished".into(), &id.into()));
}

#[test]
fn any_two_builds_are_compared() {
    if skip("any_two_builds_are_compared", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base AS a\nCOPY f /f\nRUN cat /f > /g\nRUN echo same\n\
                      FROM base\nCOPY --from=a /g /g\n";
    kiln.write("ctx/Dockerfile", dockerfile);
    kiln.write("ctx/f", "one\n");
    kiln.build("ctx", &["--explain"]).success();
    kiln.write("ctx/f", "two!\n");
    kiln.write("ctx/Dockerfile", dockerfile.replace("RUN echo same\n", ""));
    // The explanation is printed with any display.
    let base = format!("base=oci-layout://{}", base_layout().display());
    for progress in ["quiet", "tty"] {
        let flag = format!("--progress={progress}");
        let said = kiln.run(&["build", &flag, "--explain", "--build-context", &base, "ctx"]);
        let expected = if progress == "quiet" { "file f: content" } else { "no step ran" };
        assert!(said.stderr.contains(expected), "{progress}: {}", said.stderr);
    }
    kiln.write("ctx/f", "one\n");
    kiln.build("ctx", &["--explain"]).success();

    let found = explained(&kiln, &["^3", "^2"]);
    assert_eq!(found["compared_with"], explained(&kiln, &["^3"])["build"]);
    let file = cause(&found, "COPY f");
    assert_eq!((&file["kind"], &file["path"]), (&"file".into(), &"f".into()));
    assert_eq!((&file["change"]["old"], &file["change"]["new"]), (&4.into(), &5.into()));
    assert_eq!(cause(&found, "COPY --from=a")["path"], "g");
    assert_eq!(cause(&found, "RUN echo same")["kind"], "removed");
    let text = kiln.run(&["builds", "explain", "^2", "^3"]).success();
    assert!(text.contains("RUN echo same\n      not there before"), "{text}");
    assert_eq!(explained(&kiln, &["^1", "^2"])["steps"].as_array().unwrap().len(), 0);
    // No step ran, although another file has changed, so there is nothing to explain.
    assert_eq!(explained(&kiln, &["latest"])["steps"].as_array().unwrap().len(), 0);
    assert!(kiln.run(&["builds", "explain", "none"]).failure().contains("there is no build none"));

    // kiln recognizes the same project in another directory by its steps.
    kiln.write("elsewhere/Dockerfile", dockerfile.replace("RUN echo same\n", ""));
    kiln.write("elsewhere/f", "three\n");
    kiln.build("elsewhere", &[]).success();
    assert_eq!(cause(&explained(&kiln, &[]), "COPY f")["path"], "f");
    kiln.build_text("FROM base\nRUN echo another\n", &[]).success();
    assert_eq!(cause(&explained(&kiln, &[]), "RUN echo another")["kind"], "never-built");
}

#[test]
fn what_has_no_key_is_told() {
    if skip("what_has_no_key_is_told", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("more/f", "x");
    let more = format!("more={}", kiln.path("more").display());
    let dockerfile = "FROM more\nCOPY --from=base /etc/passwd /\n";
    for _ in 0..2 {
        kiln.build_text(dockerfile, &["--build-context", &more]).success();
        let found = explained(&kiln, &[]);
        assert_eq!(cause(&found, "COPY --from=base")["kind"], "ephemeral", "{found}");
    }
    let anew = "FROM base AS a\nRUN echo one\nFROM a AS b\nRUN echo two\n";
    kiln.build_text(anew, &[]).success();
    kiln.build_text(anew, &["--no-cache-filter", "a"]).success();
    let found = explained(&kiln, &[]);
    assert_eq!(cause(&found, "RUN echo one")["option"], "--no-cache-filter");
    let fresh = cause(&found, "RUN echo two");
    assert_eq!(fresh["kind"], "fresh");
    assert!(fresh["step"].as_str().unwrap().contains("RUN echo one"), "{fresh}");
}
