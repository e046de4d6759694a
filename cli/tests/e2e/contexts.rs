//! Contexts that are no directories: standard input, archives and repositories elsewhere.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_testkit::environment::{Output, base_layout, run};
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

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
