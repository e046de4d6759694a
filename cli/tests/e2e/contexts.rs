//! Contexts other than directories: standard input, and remote archives and repositories.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use kiln_testkit::environment::{Output, base_layout, run};
use kiln_testkit::{Answer, FileServer, Kiln, Need, skip};

use crate::repository::{GIT, Repository};
use crate::{kiln, steps};

/// Builds with `input` on standard input.
fn build_stream(kiln: &Kiln, input: &[u8], arguments: &[&str]) -> Output {
    let base = format!("base=oci-layout://{}", base_layout().display());
    let mut all = vec!["build", "--progress", "plain", "--build-context", &base];
    all.extend_from_slice(arguments);
    let mut command = kiln.command(&all);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A build that fails early doesn't read everything.
    let writer = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    Output {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Returns a directory as an archive. `compression` holds options of tar.
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
    // If both files exist, the one with the default name counts.
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
    // The context has no files.
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

    // The limit defines which archive counts as a bomb.
    kiln.write("ctx/Dockerfile", "FROM scratch\nCOPY big /\n");
    std::fs::File::create(kiln.path("ctx/big")).unwrap().set_len(64 << 20).unwrap();
    let archive = tar(&kiln.path("ctx"), &["-z"]);
    let limited = build_stream(&kiln, &archive, &["--input-limit", "32m", "-"]).failure();
    assert!(limited.contains("exceeds the limit"), "{limited}");
    build_stream(&kiln, &archive, &["--input-limit", "65m", "-"]).success();
}

/// Builds a remote context.
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

    // As a named context, a file is just a file.
    let named = format!("more={}", server.url("/d"));
    let dockerfile = "FROM base\nCOPY --from=more context /c\n";
    kiln.build_text(dockerfile, &["-t", "c", "--build-context", &named]).success();
    assert!(cat(&kiln, "c", "/c").contains("fetched"));

    let gone = build_url(&kiln, &server.url("/none"), &[]).failure();
    assert!(gone.contains("404") && gone.contains("/none"), "{gone}");
}

/// Returns the files below a directory, sorted.
fn files_below(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files_below(&entry.path()).iter().map(|below| format!("{name}/{below}")));
        } else {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// A context with an ignore file. Ignore files in other directories have no effect.
const IGNORED: [(&str, &str); 11] = [
    (
        ".dockerignore",
        "# that it is left out changes nothing\n.dockerignore\nDockerfile*\nsecret\n\
      **/*.log\n!keep.log\n!d/e/keep.log\nempty\n",
    ),
    ("Dockerfile", "FROM scratch\nCOPY . /all\nCOPY f *.log /some/\n"),
    ("Dockerfile.own", "FROM scratch\nCOPY . /all\nCOPY f *.log /some/\n"),
    ("Dockerfile.own.dockerignore", "*\n!keep.log\n!f\n"),
    ("secret", ""),
    ("f", "f"),
    ("a.log", ""),
    ("keep.log", ""),
    ("d/e/x.log", ""),
    ("d/e/keep.log", ""),
    ("d/.dockerignore", "e\n"),
];

#[test]
fn ignore_files_count_in_every_context() {
    if skip("ignore_files_count_in_every_context", &GIT) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    let repository = Repository::new(&kiln);
    for (name, text) in IGNORED {
        kiln.write(&format!("ctx/{name}"), text);
        repository.write(name, text);
        repository.write(&format!("sub/dir/{name}"), text);
    }
    repository.commit();
    let archive = tar(&kiln.path("ctx"), &["-z"]);
    server.put("/x.tar.gz", Answer::of(&archive));
    let url = repository.url();
    let sub = format!("{url}#main:sub/dir");
    let archived = server.url("/x.tar.gz");
    let places = ["ctx", "-", &archived, &sub];
    let build = |place: &str, arguments: &[&str]| {
        let _ = std::fs::remove_dir_all(kiln.path("out"));
        let input: &[u8] = if place == "-" { &archive } else { &[] };
        let output = ["--output", "type=local,dest=out"];
        build_stream(&kiln, input, &[&output, arguments, &[place]].concat()).success();
        files_below(&kiln.path("out"))
    };
    let usual = [
        "all/d/.dockerignore",
        "all/d/e/keep.log",
        "all/f",
        "all/keep.log",
        "some/f",
        "some/keep.log",
    ];
    let own = ["all/f", "all/keep.log", "some/f", "some/keep.log"];
    for place in places {
        assert_eq!(build(place, &[]), usual, "{place}");
        assert_eq!(build(place, &["-f", "Dockerfile.own"][..]), own, "{place}");
    }
    // Excluded files affect the result, even with a cache of the other mode.
    let strict = ["--strict-buildkit"];
    for place in &places[1..] {
        let all = build(place, &strict);
        for ignored in ["all/secret", "all/a.log", "all/d/e/x.log", "all/.dockerignore"] {
            assert!(all.iter().any(|found| found == ignored), "{place} {ignored}: {all:?}");
        }
        assert_eq!(build(place, &[]), usual, "{place}");
    }
    assert_eq!(build("ctx", &strict), usual);
}

#[test]
fn what_remote_contexts_leave_out_is_seen_by_no_instruction() {
    if skip("what_remote_contexts_leave_out_is_seen_by_no_instruction", &GIT) {
        return;
    }
    let kiln = kiln();
    let repository = Repository::new(&kiln);
    for (name, text) in IGNORED {
        repository.write(name, text);
    }
    std::os::unix::fs::symlink("secret", repository.work.join("way")).unwrap();
    repository.commit();
    let url = repository.url();
    let build = |dockerfile: &str, arguments: &[&str]| {
        build_stream(&kiln, dockerfile.as_bytes(), &[arguments, &["-f", "-", &url]].concat())
    };
    let seen = "FROM base\nRUN --mount=type=bind,target=/c find /c -type f | sort > /seen\n";
    build(seen, &["-t", "a"]).success();
    let listing = "/c/d/.dockerignore\n/c/d/e/keep.log\n/c/f\n/c/keep.log\n";
    assert_eq!(cat(&kiln, "a", "/seen"), listing);
    // Ignore files don't apply to stages, even if a stage has files that they exclude elsewhere.
    let stage = "FROM base AS s\nRUN touch /secret /a.log\nFROM base\n\
                 COPY --from=s /secret /a.log /\nRUN ls /secret /a.log > /seen\n";
    build(stage, &["-t", "b"]).success();
    assert_eq!(cat(&kiln, "b", "/seen"), "/a.log\n/secret\n");
    let named = format!("more={url}");
    let dockerfile = "FROM base\nCOPY --from=more . /c\nRUN find /c -type f | sort > /seen\n";
    kiln.build_text(dockerfile, &["-t", "c", "--build-context", &named]).success();
    assert_eq!(cat(&kiln, "c", "/seen"), listing);
    for instruction in [
        "COPY secret /",
        "ADD d/e/x.log /",
        "COPY way /",
        "RUN --mount=type=bind,source=secret,target=/s true",
    ] {
        let refused = build(&format!("FROM base\n{instruction}\n"), &[]).failure();
        assert!(refused.contains("not found") || refused.contains("no such file"), "{refused}");
        build(&format!("FROM base\n{instruction}\n"), &["--strict-buildkit"]).success();
    }
    let below = format!("{url}#main:d");
    let line = ["-f", "-", "--check", &below];
    let warned = build_stream(&kiln, b"FROM scratch\nCOPY e /\n", &line);
    assert!(warned.stdout.contains("CopyIgnoredFile"), "{}", warned.stdout);
}

#[test]
fn the_graph_of_a_remote_context_is_buildkits_where_nothing_is_left_out() {
    let test = "the_graph_of_a_remote_context_is_buildkits_where_nothing_is_left_out";
    if skip(test, &GIT) {
        return;
    }
    let kiln = kiln();
    let repository = Repository::new(&kiln);
    for (name, text) in IGNORED {
        repository.write(name, text);
    }
    repository.commit();
    let url = repository.url();
    let graph = |instruction: &str, strict: &str| {
        let dockerfile = format!("FROM scratch\n{instruction}\n");
        let mut command = kiln.command(&["build", "--dump-llb", "-", "-f", "-", &url]);
        command.env("KILN_STRICT_BUILDKIT", strict);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(dockerfile.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    for (instruction, is_alike) in [
        ("COPY f keep.log /", true),
        ("COPY k* f* d/e/k* /", true),
        ("COPY . /", false),
        ("COPY *.log /", false),
        ("COPY d /", false),
        ("COPY --exclude=**/x.log d /", true),
    ] {
        let is_same = graph(instruction, "1") == graph(instruction, "0");
        assert_eq!(is_same, is_alike, "{instruction}");
    }
}

#[test]
fn excludes_are_about_what_is_named_too() {
    if skip("excludes_are_about_what_is_named_too", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    for name in ["a", "b", "a.txt", "d/a", "d/b", "e.txt/x"] {
        kiln.write(&format!("ctx/{name}"), name);
    }
    kiln.write("ctx/.dockerignore", "Dockerfile\n.dockerignore\n");
    let build = |instruction: &str, strict: &[&str]| {
        let dockerfile = format!("FROM scratch AS s\nCOPY . /s\nFROM scratch\n{instruction}\n");
        kiln.write("Dockerfile", dockerfile);
        let _ = std::fs::remove_dir_all(kiln.path("out"));
        let line = ["build", "-f", "Dockerfile", "-o", "type=local,dest=out", "ctx"];
        kiln.run(&[&line, strict].concat()).success();
        files_below(&kiln.path("out")).join(" ")
    };
    for (instruction, expected, of_buildkit) in [
        ("COPY --exclude=a * ./", "a.txt b x", "a a.txt b x"),
        ("COPY --exclude=a a b ./", "b", "a b"),
        ("ADD --exclude=a a b ./", "b", "a b"),
        ("ADD --exclude=*.txt * ./", "a b", "a a.txt b x"),
        ("COPY --link --exclude=a d/* /", "b", "a b"),
        ("COPY --exclude=d/a d/a d/b /", "b", "a b"),
        ("COPY --exclude=d */a */b /x/", "", "x/a x/b"),
        ("COPY --exclude=* --exclude=!b d/* /", "b", "a b"),
        ("COPY --exclude=**/a a d/a d/b /", "b", "a b"),
        // Patterns apply to the contents of the named directory.
        ("COPY --exclude=* --exclude=!a d /", "a", "a"),
        ("COPY --exclude=d d /x", "x/a x/b", "x/a x/b"),
        ("COPY --exclude=a d /", "b", "b"),
        ("COPY --from=s --exclude=a /s/* /", "a.txt b x", "a a.txt b x"),
        ("COPY --from=s --exclude=a /s/a /s/b /", "b", "a b"),
        ("COPY --from=s --exclude=s /s/d /x", "x/a x/b", "x/a x/b"),
        ("COPY --parents --exclude=a * /", "a.txt b d/a d/b e.txt/x", "a.txt b d/a d/b e.txt/x"),
    ] {
        assert_eq!(build(instruction, &[]), expected, "{instruction}");
        assert_eq!(build(instruction, &["--strict-buildkit"]), of_buildkit, "{instruction}");
        assert_eq!(build(instruction, &[]), expected, "{instruction} again");
    }
    // BuildKit fails here, because it misses the file that it excludes.
    kiln.write("Dockerfile", "FROM scratch\nCOPY --parents --exclude=a a d/a b /\n");
    let line = ["build", "-f", "Dockerfile", "-o", "type=local,dest=parents", "ctx"];
    kiln.run(&line).success();
    assert_eq!(files_below(&kiln.path("parents")), ["b", "d/a"]);
    kiln.run(&[&line[..], &["--strict-buildkit"]].concat()).failure();
    // A missing file is still an error.
    kiln.write("Dockerfile", "FROM scratch\nCOPY --exclude=none none b /\n");
    let missing = kiln.run(&["build", "-f", "Dockerfile", "ctx"]).failure();
    assert!(missing.contains("\"/none\": not found"), "{missing}");
    // The graph equals BuildKit's, because the patterns match none of the named files.
    let graph = |text: &str, strict: &[&str]| {
        kiln.write("Dockerfile", text);
        let line = ["build", "-f", "Dockerfile", "--dump-llb", "graph", "ctx"];
        kiln.run(&[&line, strict].concat()).success();
        std::fs::read(kiln.path("graph")).unwrap()
    };
    for (instruction, is_alike) in [
        ("COPY --exclude=none * /", true),
        ("COPY --exclude=a d /", true),
        ("COPY --exclude=a b /", true),
        ("COPY --parents --exclude=a * /", true),
        ("COPY --exclude=a * /", false),
        ("COPY --exclude=a a b /", false),
    ] {
        let text = format!("FROM scratch\n{instruction}\n");
        let is_same = graph(&text, &[]) == graph(&text, &["--strict-buildkit"]);
        assert_eq!(is_same, is_alike, "{instruction}");
    }
}
