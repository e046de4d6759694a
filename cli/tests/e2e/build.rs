//! `kiln build`: arguments, contexts, stages, failures.

use std::os::unix::fs::PermissionsExt;

use kiln_testkit::environment::{run, under_umask};
use kiln_testkit::{Need, skip};

use crate::{kiln, steps};

/// Returns the contents of a file in an image by running `cat` in a container.
fn cat(kiln: &kiln_testkit::Kiln, image: &str, path: &str) -> String {
    kiln.run(&["run", "--rm", "--entrypoint", "cat", image, path]).success()
}

#[test]
fn arguments_files_and_targets_are_taken() {
    if skip("arguments_files_and_targets_are_taken", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/a.txt", "a\n");
    kiln.write(
        "ctx/Other.Dockerfile",
        "FROM base AS one\nARG WHO=nobody\nCOPY a.txt /a.txt\nRUN echo \"$WHO\" > /who\n\
         FROM base AS two\nRUN exit 3\n",
    );
    let file = kiln.path("ctx/Other.Dockerfile");
    let arguments =
        ["-f", file.to_str().unwrap(), "--target", "one", "--build-arg", "WHO=me", "-t", "img"];
    kiln.build("ctx", &arguments).success();
    assert_eq!(cat(&kiln, "img", "/who"), "me\n");
    assert_eq!(cat(&kiln, "img", "/a.txt"), "a\n");
}

#[test]
fn named_contexts_are_directories_too() {
    if skip("named_contexts_are_directories_too", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("more/x", "named\n");
    kiln.write("more/y", "ignored\n");
    kiln.write("more/.dockerignore", "y\n");
    let more = format!("more={}", kiln.path("more").display());
    let dockerfile = "FROM base\nCOPY --from=more . /more\nRUN test ! -e /more/y\n";
    kiln.build_text(dockerfile, &["-t", "img", "--build-context", &more]).success();
    assert_eq!(cat(&kiln, "img", "/more/x"), "named\n");
}

#[test]
fn a_failing_step_is_shown_with_its_lines_and_its_output() {
    if skip("a_failing_step_is_shown_with_its_lines_and_its_output", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile =
        "FROM base\nRUN echo fine\nRUN echo some output && \\\n    exit 42\nRUN echo never\n";
    let stderr = kiln.build_text(dockerfile, &["-t", "img"]).failure();
    assert!(stderr.contains("some output"), "{stderr}");
    assert!(stderr.contains("exit code: 42"), "{stderr}");
    assert!(stderr.contains("Dockerfile:3"), "{stderr}");
    assert!(!stderr.contains("echo never\n#"), "{stderr}");
    assert_eq!(kiln.run(&["images", "-q"]).success(), "\n".trim_start());
    // Steps that succeeded before the failure don't run again.
    let again = kiln.build_text(dockerfile, &["-t", "img"]).failure();
    assert!(steps(&again).0 >= 1, "{again}");
}

#[test]
fn a_mistake_in_the_dockerfile_names_its_line() {
    let kiln = kiln();
    let stderr = kiln.build_text("FROM scratch\nRUM echo\n", &[]).failure();
    assert!(
        stderr.contains("dockerfile parse error on line 2: unknown instruction: RUM"),
        "{stderr}"
    );
}

#[test]
fn what_is_not_there_yet_is_refused_with_its_line() {
    let kiln = kiln();
    let dockerfile = "FROM base\nRUN --mount=type=ssh,required=true true\n";
    let stderr = kiln.build_text(dockerfile, &[]).failure();
    assert!(
        stderr.contains("ssh agent default: not found") && stderr.contains("Dockerfile:2"),
        "{stderr}"
    );
}

#[test]
fn a_changed_file_reruns_what_needs_it_and_nothing_else() {
    if skip("a_changed_file_reruns_what_needs_it_and_nothing_else", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("ctx/a", "1");
    kiln.write("ctx/b", "1");
    kiln.write(
        "ctx/Dockerfile",
        "FROM base AS x\nCOPY a /a\nRUN echo x > /out\nFROM base AS y\nCOPY b /b\nRUN echo y > /out\n\
         FROM scratch\nCOPY --from=x /out /x\nCOPY --from=y /out /y\n",
    );
    kiln.build("ctx", &["-t", "img"]).success();
    let touched = std::fs::File::options().append(true).open(kiln.path("ctx/a")).unwrap();
    touched.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    let report = kiln.build("ctx", &["-t", "img"]);
    assert!(!report.stderr.contains("RUN echo x > /out\n#") || steps(&report.stderr).0 >= 6);
    let done = |report: &str, step: &str| {
        let line = report.lines().find(|line| line.contains(step)).expect("the step is shown");
        let number = line.split(' ').next().unwrap().to_owned();
        report.contains(&format!("{number} DONE"))
    };
    assert!(!done(&report.stderr, "RUN echo x"), "{}", report.stderr);

    kiln.write("ctx/a", "2");
    let report = kiln.build("ctx", &["-t", "img"]).stderr;
    assert!(done(&report, "RUN echo x"), "{report}");
    assert!(!done(&report, "RUN echo y"), "{report}");
    // x produces the same files as before, and the copy finds its result by their content.
    assert!(!done(&report, "COPY --from=x"), "{report}");
}

#[test]
fn no_cache_runs_everything_again() {
    if skip("no_cache_runs_everything_again", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base\nRUN head -c 16 /dev/urandom | od -An -tx1 > /id\n";
    let id = || cat(&kiln, "img", "/id");
    kiln.build_text(dockerfile, &["-t", "img"]).success();
    let first = id();
    kiln.build_text(dockerfile, &["-t", "img"]).success();
    assert_eq!(id(), first);
    kiln.build_text(dockerfile, &["-t", "img", "--no-cache"]).success();
    assert_ne!(id(), first);
}

#[test]
fn modes_do_not_depend_on_the_umask() {
    if skip("modes_do_not_depend_on_the_umask", &[Need::Root]) {
        return;
    }
    let listing = |umask: &str| {
        let kiln = kiln();
        for name in ["d/f", "d/e/g"] {
            let path = kiln.write(&format!("ctx/{name}"), name);
            std::fs::set_permissions(path, PermissionsExt::from_mode(0o664)).unwrap();
        }
        std::fs::set_permissions(kiln.path("ctx/d/e"), PermissionsExt::from_mode(0o2775)).unwrap();
        let dockerfile = "FROM base AS made\nRUN mkdir /made && touch /made/f\n\
                          FROM scratch\nWORKDIR /a/b\nCOPY d /x/y/\nADD --chmod=u=rw,go= d/f /p/q/\n\
                          COPY <<EOF /m/n/text\ntext\nEOF\nCOPY --from=made /made /o/made\n";
        kiln.write("ctx/Dockerfile", dockerfile);
        let base = format!("base=oci-layout://{}", kiln.base().display());
        let dest = format!("type=tar,dest={}", kiln.path("out.tar").display());
        let all = ["build", "--build-context", &base, "--output", &dest, "ctx"];
        run(&mut under_umask(&kiln.command(&all), umask)).success();
        let mut tar = std::process::Command::new("tar");
        let tar = tar.args(["--numeric-owner", "-tvf"]).arg(kiln.path("out.tar"));
        let lines = run(tar).success();
        let without_time = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            format!("{} {} {}", words[0], words[1], words[5..].join(" "))
        };
        lines.lines().map(without_time).collect::<Vec<_>>()
    };
    let usual = listing("022");
    for line in [
        "drwxr-xr-x 0/0 a/b/",
        "drwxrwsr-x 0/0 x/y/e/",
        "-rw-rw-r-- 0/0 x/y/e/g",
        "-rw------- 0/0 p/q/f",
        "-rw-r--r-- 0/0 m/n/text",
        "drwxr-xr-x 0/0 o/made/",
    ] {
        assert!(usual.iter().any(|found| found == line), "{line}: {usual:?}");
    }
    assert_eq!(listing("077"), usual);
}

#[test]
fn quiet_prints_the_image_id_alone_and_the_iidfile_holds_it() {
    if skip("quiet_prints_the_image_id_alone_and_the_iidfile_holds_it", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let iidfile = kiln.path("iid");
    let output =
        kiln.build_text("FROM base\n", &["-q", "--iidfile", iidfile.to_str().unwrap(), "-t", "i"]);
    assert_eq!(output.stderr, "");
    let id = output.success();
    assert!(id.starts_with("sha256:") && id.len() == 72, "{id}");
    assert_eq!(std::fs::read_to_string(iidfile).unwrap(), id.trim());
}

#[test]
fn steps_leave_no_trace_of_what_they_were_given() {
    if skip("steps_leave_no_trace_of_what_they_were_given", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let dockerfile = "FROM base\nRUN test -s /etc/resolv.conf && test -s /etc/hosts\n";
    let tar = kiln.path("out.tar");
    let output = format!("type=tar,dest={}", tar.display());
    kiln.build_text(dockerfile, &["--output", &output]).success();
    let listing =
        kiln_testkit::environment::run(std::process::Command::new("tar").arg("-tf").arg(&tar))
            .success();
    assert!(listing.contains("bin/busybox"), "{listing}");
    for name in ["etc/resolv.conf", "etc/hosts", "dev/null", "proc/1"] {
        assert!(!listing.lines().any(|line| line == name), "{name} in {listing}");
    }
}
