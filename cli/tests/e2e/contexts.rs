//! Contexts that are no directories: standard input, archives and repositories elsewhere.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_testkit::environment::{Output, base_layout, run};
use kiln_testkit::{Answer, FileServer, Kiln, Need, skip};

use crate::repository::{GIT, Repository};
use crate::{kiln, steps};

/// Builds with something on standard input.
fn build_stream(kiln: &Kiln, input: &[u8], arguments: &[&str]) -> Output {
    let base = format!("base=oci-layout://{}", base_layout().display());
    let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
    all.extend_from_slice(arguments);
    let mut command = kiln.command(&all);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A build that fails early doesn't read all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Returns the directory `name` of the working directory as an archive; `compression` is an option of tar.
fn tar(directory: &Path, compression: &[&str]) -> Vec<u8> {
    let output = Command::new("tar")
        .args(compression)
        .arg("-c")
        .args(["-C"])
        .arg(directory)
        .arg(".")
        .output();
    let output = output.unwrap();
    assert!(output.status.success());
    output.stdout
}

fn cat(kiln: &Kiln, image: &str, path: &str) -> String {
    kiln.run(&["run", "--rm", "--entrypoint", "cat", image, path]).success()
}

#[test]
fn a_dockerfile_may_be_called_in_lower_case() {
    if skip("a_dockerfile_may_be_called_in_lower_case", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.write("lower/dockerfile", "FROM scratch\nCOPY f /\n");
    kiln.write("lower/Dockerfile.dockerignore", "g\n");
    kiln.write("lower/f", "lower");
    let output = |name: &str| format!("type=local,dest={name}");
    kiln.run(&["build", "-o", &output("a"), "lower"]).success();
    kiln.run(&["build", "-o", &output("b"), "-f", "lower/Dockerfile", "lower"]).success();
    let archive = tar(&kiln.path("lower"), &[]);
    build_stream(&kiln, &archive, &["-o", &output("c"), "-"]).success();
    for name in ["a", "b", "c"] {
        assert_eq!(std::fs::read_to_string(kiln.path(name).join("f")).unwrap(), "lower");
    }
    // Where there are both, the usual one counts.
    kiln.write("lower/Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    kiln.run(&["build", "-o", &output("d"), "lower"]).success();
    assert!(kiln.path("d/Dockerfile").exists());
}

#[test]
fn standard_input_is_a_dockerfile_or_an_archive() {
    if skip("standard_input_is_a_dockerfile_or_an_archive", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    build_stream(&kiln, b"FROM base\nRUN echo typed > /f\n", &["-t", "a", "-"]).success();
    assert_eq!(cat(&kiln, "a", "/f"), "typed\n");
    // There are no files.
    let empty = build_stream(&kiln, b"FROM base\nCOPY x /\n", &["-"]).failure();
    assert!(empty.contains("/x"), "{empty}");

    kiln.write("ctx/Dockerfile", "FROM base\nCOPY . /c/\n");
    kiln.write("ctx/d/Other", "FROM base\nCOPY f /other\n");
    kiln.write("ctx/f", "content\n");
    kiln.write("ctx/no", "ignored\n");
    kiln.write("ctx/.dockerignore", "no\n");
    for compression in [&[][..], &["-z"], &["-J"]] {
        let archive = tar(&kiln.path("ctx"), compression);
        build_stream(&kiln, &archive, &["-t", "b", "-"]).success();
        assert_eq!(cat(&kiln, "b", "/c/f"), "content\n");
        assert!(kiln.run(&["run", "--rm", "b", "ls", "/c/no"]).failure().contains("No such file"));
        build_stream(&kiln, &archive, &["-t", "b", "-f", "d/Other", "-"]).success();
        assert_eq!(cat(&kiln, "b", "/other"), "content\n");
    }
}

#[test]
fn standard_input_serves_one_purpose() {
    let kiln = kiln();
    let both = build_stream(&kiln, b"FROM scratch\n", &["-f", "-", "-"]).failure();
    let expected = "invalid argument: can't use stdin for both build context and dockerfile";
    assert!(both.contains(expected), "{both}");
    let both = build_stream(&kiln, b"FROM scratch\n", &["-f", "x", "-"]).failure();
    assert!(both.contains("ambiguous Dockerfile source"), "{both}");
}

#[test]
fn archives_on_standard_input_are_hostile() {
    if skip("archives_on_standard_input_are_hostile", &[Need::Root, Need::Program("python3")]) {
        return;
    }
    let kiln = kiln();
    kiln.write("canary/secret", "canary-secret\n");
    let canary = kiln.path("canary");
    let canary = canary.to_str().unwrap();
    let script = format!(
        "import io, sys, tarfile\n\
         t = tarfile.open(fileobj=sys.stdout.buffer, mode='w|', format=tarfile.PAX_FORMAT)\n\
         def add(name, data=b'', **more):\n\
         \x20   i = tarfile.TarInfo(name); i.size = len(data)\n\
         \x20   for k, v in more.items(): setattr(i, k, v)\n\
         \x20   t.addfile(i, io.BytesIO(data))\n\
         add('Dockerfile', b'FROM base\\nCOPY . /c\\n')\n\
         add('out', type=tarfile.SYMTYPE, linkname='{canary}')\n\
         add('out/planted', b'planted')\n\
         add('../../up', b'planted')\n\
         add('Dockerfile.dockerignore', type=tarfile.SYMTYPE, linkname='{canary}/secret')\n\
         t.close()\n"
    );
    let archive = Command::new("python3").args(["-c", &script]).output().unwrap().stdout;
    let built = build_stream(&kiln, &archive, &["-t", "hostile", "-"]);
    assert!(!built.stderr.contains("canary-secret"), "{}", built.stderr);
    assert_eq!(std::fs::read_dir(kiln.path("canary")).unwrap().count(), 1);
    assert!(!kiln.path("up").exists());
    if built.code == 0 {
        let found =
            run(&mut kiln.command(&["run", "--rm", "hostile", "grep", "-r", "canary-s", "/c"]));
        assert_eq!(found.stdout, "");
    }

    // What is a bomb depends on the limit.
    kiln.write("ctx/Dockerfile", "FROM scratch\nCOPY big /\n");
    std::fs::File::create(kiln.path("ctx/big")).unwrap().set_len(64 << 20).unwrap();
    let archive = tar(&kiln.path("ctx"), &["-z"]);
    let limited = build_stream(&kiln, &archive, &["--input-limit", "32m", "-"]).failure();
    assert!(limited.contains("exceeds the limit"), "{limited}");
    build_stream(&kiln, &archive, &["--input-limit", "65m", "-"]).success();
}

/// Builds what is elsewhere.
fn build_url(kiln: &Kiln, url: &str, arguments: &[&str]) -> Output {
    build_stream(kiln, b"", &[arguments, &[url]].concat())
}

#[test]
fn repositories_are_contexts() {
    if skip("repositories_are_contexts", &GIT) {
        return;
    }
    let kiln = kiln();
    let repository = Repository::new(&kiln);
    let dockerfile = "FROM base\nCOPY . /c/\nRUN ls -A /c > /list\n";
    repository.write("Dockerfile", dockerfile);
    repository.write("f", "one\n");
    repository.write("d/Dockerfile", "FROM base\nCOPY g /g\n");
    repository.write("d/g", "deep\n");
    repository.write("d/Other", "FROM base\nCOPY g /other\n");
    repository.commit();
    let url = repository.url();
    build_url(&kiln, &url, &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/list"), "Dockerfile\nd\nf\n");
    let again = build_url(&kiln, &url, &["-t", "a"]);
    assert!(steps(&again.stderr).0 >= 1, "{}", again.stderr);

    let sub = format!("{url}#main:d");
    build_url(&kiln, &sub, &["-t", "b"]).success();
    assert_eq!(cat(&kiln, "b", "/g"), "deep\n");
    build_url(&kiln, &sub, &["-t", "b", "-f", "Other"]).success();
    assert_eq!(cat(&kiln, "b", "/other"), "deep\n");
    build_stream(&kiln, b"FROM base\nCOPY g /typed\n", &["-t", "c", "-f", "-", &sub]).success();
    assert_eq!(cat(&kiln, "c", "/typed"), "deep\n");

    let named = format!("more={sub}");
    let dockerfile = "FROM base\nCOPY --from=more g /named\n";
    kiln.build_text(dockerfile, &["-t", "d", "--build-context", &named]).success();
    assert_eq!(cat(&kiln, "d", "/named"), "deep\n");

    let missing = build_url(&kiln, &format!("{url}#none"), &[]).failure();
    assert!(missing.contains("does not contain ref none") && missing.contains(&url), "{missing}");
    let missing = build_url(&kiln, &url, &["-f", "no/such"]).failure();
    assert!(missing.contains("no/such"), "{missing}");
}

#[test]
fn a_dockerfile_that_is_a_link_stays_in_its_context() {
    if skip("a_dockerfile_that_is_a_link_stays_in_its_context", &GIT) {
        return;
    }
    let kiln = kiln();
    let canary = kiln.write("canary", "FROM base\nRUN echo canary-secret\n");
    let repository = Repository::new(&kiln);
    repository.write("real", "FROM base\nRUN echo inside > /f\n");
    std::os::unix::fs::symlink("real", repository.work.join("Dockerfile")).unwrap();
    std::os::unix::fs::symlink(&canary, repository.work.join("out")).unwrap();
    repository.commit();
    build_url(&kiln, &repository.url(), &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/f"), "inside\n");
    let stderr = build_url(&kiln, &repository.url(), &["-f", "out"]).failure();
    assert!(!stderr.contains("canary-secret"), "{stderr}");
}

#[test]
fn urls_are_contexts_or_dockerfiles() {
    if skip("urls_are_contexts_or_dockerfiles", &[Need::Root]) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    server.put("/d", Answer::of("FROM base\nRUN echo fetched > /f\n"));
    build_url(&kiln, &server.url("/d"), &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/f"), "fetched\n");

    kiln.write("ctx/Dockerfile", "FROM base\nCOPY f /f\nRUN cat /f > /g\n");
    kiln.write("ctx/f", "archived\n");
    for compression in [&[][..], &["-z"]] {
        server.put("/x.tar", Answer::of(tar(&kiln.path("ctx"), compression)));
        build_url(&kiln, &server.url("/x.tar"), &["-t", "b"]).success();
        assert_eq!(cat(&kiln, "b", "/g"), "archived\n");
    }
    let again = build_url(&kiln, &server.url("/x.tar"), &["-t", "b"]);
    assert!(!again.stderr.contains("failed") && steps(&again.stderr).0 >= 1, "{}", again.stderr);

    // Named, a file is a file.
    let named = format!("more={}", server.url("/d"));
    let dockerfile = "FROM base\nCOPY --from=more context /c\n";
    kiln.build_text(dockerfile, &["-t", "c", "--build-context", &named]).success();
    assert!(cat(&kiln, "c", "/c").contains("fetched"));

    let gone = build_url(&kiln, &server.url("/none"), &[]).failure();
    assert!(gone.contains("404") && gone.contains("/none"), "{gone}");
}
