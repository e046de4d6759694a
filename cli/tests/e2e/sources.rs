//! Files at URLs, and repositories.

use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::{base_layout, run};
use kiln_testkit::{Answer, FileServer, Kiln, Need, skip};

use crate::kiln;
use crate::repository::{GIT, Repository};

fn cat(kiln: &Kiln, image: &str, path: &str) -> String {
    kiln.run(&["run", "--rm", "--entrypoint", "cat", image, path]).success()
}

fn shell(kiln: &Kiln, image: &str, script: &str) -> String {
    kiln.run(&["run", "--rm", image, "sh", "-c", script]).success()
}

/// Returns `true` if a plain report shows that a step ran.
fn ran(report: &str, step: &str) -> bool {
    let line = report.lines().find(|line| line.contains(step)).expect("the step is shown");
    let number = line.split(' ').next().unwrap();
    report.contains(&format!("{number} DONE"))
}

#[test]
fn files_are_downloaded_once_and_asked_for_again() {
    if skip("files_are_downloaded_once_and_asked_for_again", &[Need::Root]) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    let file = |content: &str, etag: &str| {
        Answer::of(content)
            .with("ETag", etag)
            .with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT")
    };
    server.put("/d/f.txt", file("one\n", "\"1\""));
    server.put("/away", Answer::redirect(&server.url("/d/f.txt")));
    let dockerfile = format!(
        "FROM base\nADD {} /got/\nADD --chmod=640 {} /other\nRUN cat /got/f.txt > /copy\n",
        server.url("/d/f.txt?x=1#y").split('?').next().unwrap(),
        server.url("/away"),
    );
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/copy"), "one\n");
    let seen = shell(&kiln, "a", "stat -c '%a %u %Y' /got/f.txt; stat -c %a /other");
    assert_eq!(seen, "600 0 784111777\n640\n");

    server.take_requests();
    let again = kiln.build_text(&dockerfile, &["-t", "a"]);
    assert!(!ran(&again.stderr, "RUN cat"), "{}", again.stderr);
    let asked = server.take_requests();
    assert!(asked.iter().any(|r| r.headers.get("if-none-match").is_some_and(|tag| tag == "\"1\"")));

    server.put("/d/f.txt", file("two\n", "\"2\""));
    let again = kiln.build_text(&dockerfile, &["-t", "a"]);
    assert!(ran(&again.stderr, "RUN cat"), "{}", again.stderr);
    assert_eq!(cat(&kiln, "a", "/copy"), "two\n");
}

#[test]
fn checksums_are_verified_and_spare_the_network() {
    if skip("checksums_are_verified_and_spare_the_network", &[Need::Root]) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    server.put("/f", Answer { cuts: 1, ..Answer::of("content\n") });
    let digest = "sha256:434728a410a78f56fc1b5899c3593436e61ab0c731e9072d95e96db290205e53";
    let dockerfile = format!("FROM base\nADD --checksum={digest} {} /f\n", server.url("/f"));
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/f"), "content\n");
    server.take_requests();
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    assert!(server.take_requests().is_empty());

    server.put("/g", Answer::of("something else\n"));
    let dockerfile = format!("FROM base\nADD --checksum={digest} {} /f\n", server.url("/g"));
    for _ in 0..2 {
        let stderr = kiln.build_text(&dockerfile, &[]).failure();
        assert!(stderr.contains("digest mismatch") && stderr.contains("Dockerfile:2"), "{stderr}");
    }
}

#[test]
fn servers_are_hostile() {
    if skip("servers_are_hostile", &[Need::Root]) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    let secret = kiln.write("canary", "canary-secret\n");
    server.put("/file", Answer::redirect(&format!("file://{}", secret.display())));
    server.put("/loop", Answer::redirect(&server.url("/loop")));
    server.put("/gone", Answer { status: 410, ..Answer::default() });
    server.put("/endless", Answer { is_endless: true, ..Answer::of([b'x'; 4096]) });
    for (path, word) in [
        ("/file", "file address"),
        ("/loop", "redirects"),
        ("/gone", "410"),
        ("/endless", "larger than the limit"),
        ("/none", "404"),
    ] {
        let url = server.url(path);
        let dockerfile = format!("FROM base\nADD {url} /f\n");
        let stderr = kiln.build_text(&dockerfile, &["--input-limit", "8m"]).failure();
        assert!(stderr.contains(word) && stderr.contains(&url), "{path}: {stderr}");
    }
    // The name in the URL counts; kiln ignores the server's.
    let disposition = "attachment; filename=\"../../../../x\"";
    server.put("/named", Answer::of("named\n").with("Content-Disposition", disposition));
    let dockerfile = format!("FROM base\nADD {} /d/\n", server.url("/named"));
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    assert_eq!(shell(&kiln, "a", "ls /d"), "named\n");
    assert!(!kiln.path("x").exists());
}

#[test]
fn credentials_go_to_their_server_only() {
    if skip("credentials_go_to_their_server_only", &[Need::Root]) {
        return;
    }
    let (kiln, server, foreign) = (kiln(), FileServer::start(), FileServer::start());
    foreign.put("/f", Answer::of("x"));
    server.put("/f", Answer::redirect(&foreign.url("/f")));
    let token = kiln.write("token", "canary-token\n");
    let secret = format!("id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", token.display());
    let dockerfile = format!("FROM base\nADD {} /f\n", server.url("/f"));
    kiln.build_text(&dockerfile, &["--secret", &secret]).success();
    let asked = server.take_requests();
    assert_eq!(asked[0].headers["authorization"], "Bearer canary-token");
    assert!(!foreign.take_requests()[0].headers.contains_key("authorization"));
}

#[test]
fn repositories_are_checked_out() {
    if skip("repositories_are_checked_out", &GIT) {
        return;
    }
    let kiln = kiln();
    let repository = Repository::new(&kiln);
    repository.write("f", "one\n");
    repository.write("d/e/g", "deep\n");
    repository.write("run", "#!/bin/sh\n");
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    std::fs::set_permissions(repository.work.join("run"), executable).unwrap();
    let first = repository.commit();
    repository.git(&["tag", "--annotate", "--message=x", "v1"]);
    repository.write("f", "two\n");
    repository.commit();

    let url = repository.url();
    let dockerfile = format!(
        "FROM base\nADD {url} /head\nADD {url}#v1 /tag\nADD {url}#{first} /commit\n\
         ADD {url}#main:d/e /sub\nADD --keep-git-dir=true {url}#main /kept\n\
         RUN ls -A /head /sub > /list\n"
    );
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    let script = "cat /head/f /tag/f /commit/f /kept/f; stat -c '%a %u' /head/run /head/f /head/d; \
                  ls -d /kept/.git/HEAD; cat /list";
    let expected = "two\none\none\ntwo\n755 0\n644 0\n755 0\n/kept/.git/HEAD\n\
                    /head:\nd\nf\nrun\n\n/sub:\ng\n";
    assert_eq!(shell(&kiln, "a", script), expected);
    let again = kiln.build_text(&dockerfile, &["-t", "a"]);
    assert!(!ran(&again.stderr, "RUN ls -A"), "{}", again.stderr);

    repository.write("new", "x");
    repository.commit();
    let again = kiln.build_text(&dockerfile, &["-t", "a"]);
    assert!(ran(&again.stderr, "RUN ls -A"), "{}", again.stderr);
    assert!(cat(&kiln, "a", "/list").contains("new"));

    // A commit ID is enough, so kiln sends no request.
    let pinned = format!("FROM base\nADD {url}#{first} /commit\n");
    drop(repository);
    kiln.build_text(&pinned, &["-t", "a"]).success();
    let gone = kiln.build_text(&dockerfile, &["-t", "a"]).failure();
    assert!(gone.contains(&url), "{gone}");
}

#[test]
fn submodules_and_long_commits_are_taken() {
    if skip("submodules_and_long_commits_are_taken", &GIT) {
        return;
    }
    let kiln = kiln();
    let repository = Repository::new(&kiln);
    repository.write("f", "inner\n");
    repository.commit();
    repository.publish("inner.git");
    repository.git(&["submodule", "--quiet", "add", &repository.daemon.url("inner.git"), "sub"]);
    repository.git(&["config", "--file=.gitmodules", "submodule.sub.url", "../inner.git"]);
    repository.commit();
    let url = repository.url();
    let dockerfile = format!("FROM base\nADD {url} /r\nADD {url}?submodules=false /without\n");
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/r/sub/f"), "inner\n");
    assert_eq!(shell(&kiln, "a", "ls -A /r/sub /without/sub"), "/r/sub:\nf\n\n/without/sub:\n");

    // A repository with SHA-256 object IDs.
    let other = repository.served.path().join("long");
    let mut init = Command::new("git");
    run(init.args(["init", "--quiet", "--object-format=sha256"]).arg(&other)).success();
    std::fs::write(other.join("f"), "long\n").unwrap();
    let git = |arguments: &[&str]| {
        let mut git = Command::new("git");
        git.arg("-C").arg(&other).args(["-c", "user.name=x", "-c", "user.email=x"]).args(arguments);
        run(&mut git).success()
    };
    git(&["add", "f"]);
    git(&["commit", "--quiet", "--message=x"]);
    let dockerfile = format!("FROM base\nADD {} /r\n", repository.daemon.url("long/.git"));
    kiln.build_text(&dockerfile, &["-t", "b"]).success();
    assert_eq!(cat(&kiln, "b", "/r/f"), "long\n");
}

#[test]
fn references_and_directories_are_hostile() {
    if skip("references_and_directories_are_hostile", &GIT) {
        return;
    }
    let kiln = kiln();
    let canary = kiln.write("canary/secret", "canary-secret\n");
    let touched = kiln.path("touched");
    let repository = Repository::new(&kiln);
    repository.write("d/f", "inside\n");
    let link = |target: &Path, name: &str| {
        std::os::unix::fs::symlink(target, repository.work.join(name)).unwrap();
    };
    link(canary.parent().unwrap(), "out");
    link(Path::new("d"), "in");
    link(Path::new("../../../../../../../.."), "up");
    repository.commit();
    let url = repository.url();
    let upload = format!("--upload-pack=touch${{IFS}}{}", touched.display());
    for fragment in [
        upload.as_str(),
        "-x",
        "main:out",
        "main:in",
        "main:up/etc",
        "main:d/f",
        "main:.git",
        "main:none",
        "no-such-branch",
        "0123456789012345678901234567890123456789",
    ] {
        let dockerfile = format!("FROM base\nADD {url}#{} /r\n", fragment.replace('$', "\\$"));
        let stderr = kiln.build_text(&dockerfile, &[]).failure();
        assert!(!stderr.contains("canary-secret"), "{fragment}: {stderr}");
    }
    assert!(!touched.exists());
    // `..` stops at the root, and a link stays a link.
    let dockerfile = format!("FROM base\nADD {url}#main:../../d /up\nADD {url}#main /r\n");
    kiln.build_text(&dockerfile, &["-t", "a"]).success();
    assert_eq!(
        shell(&kiln, "a", "cat /up/f; readlink /r/in; test -e /r/out || echo nothing"),
        "inside\nd\nnothing\n"
    );
}

#[test]
fn nothing_of_the_hosts_git_counts_and_nothing_of_the_repositorys_runs() {
    if skip("nothing_of_the_hosts_git_counts_and_nothing_of_the_repositorys_runs", &GIT) {
        return;
    }
    let kiln = kiln();
    let touched = kiln.path("touched");
    let touch = format!("touch {}", touched.display());
    let hook = kiln.write("home/hooks/post-checkout", format!("#!/bin/sh\n{touch}\n"));
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&hook, executable).unwrap();
    let hooks = hook.parent().unwrap().display().to_string();
    let configuration = format!(
        "[core]\n\thooksPath = {hooks}\n[filter \"evil\"]\n\tsmudge = {touch}\n\
         [url \"git://127.0.0.1:1/\"]\n\tinsteadOf = git://\n"
    );
    kiln.write("home/.gitconfig", configuration);
    let repository = Repository::new(&kiln);
    repository.write("f", "content\n");
    repository.write(".gitattributes", "f filter=evil\n");
    repository.commit();
    let url = repository.url();
    kiln.build_text(&format!("FROM base\nADD {url} /r\n"), &["-t", "a"]).success();
    assert_eq!(cat(&kiln, "a", "/r/f"), "content\n");

    // Submodules are fetched like the repository, never from files or by programs.
    let canary = kiln.path("canary.git");
    repository.git(&["clone", "--quiet", "--bare", ".", canary.to_str().unwrap()]);
    for address in [
        canary.display().to_string(),
        format!("file://{}", canary.display()),
        format!("ext::sh -c {}", touch.replace(' ', "% ")),
    ] {
        let head = repository.git(&["rev-parse", "HEAD"]);
        let modules = format!("[submodule \"s\"]\n\tpath = s\n\turl = {address}\n");
        repository.write(".gitmodules", &modules);
        repository.git(&["update-index", "--add", "--cacheinfo", &format!("160000,{head},s")]);
        repository.git(&["add", ".gitmodules"]);
        repository.git(&["commit", "--quiet", "--message=x"]);
        repository.publish("r.git");
        let stderr = kiln.build_text(&format!("FROM base\nADD {url} /r\n"), &[]).failure();
        assert!(stderr.contains("not allowed"), "{stderr}");
    }
    assert!(!touched.exists());
}

#[test]
fn passwords_reach_git_and_nobody_else() {
    if skip("passwords_reach_git_and_nobody_else", &GIT) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    let repository = Repository::new(&kiln);
    repository.write("f", "content\n");
    repository.commit();
    repository.serve_plainly(&server);
    let url = server.url("/r.git");
    let with_password = url.replace("http://", "http://user:canary-password@");
    let tar = kiln.path("out.tar");
    let output = format!("type=tar,dest={}", tar.display());
    kiln.write(
        "text/Dockerfile",
        format!("FROM base\nADD --keep-git-dir=true {with_password} /r\n"),
    );
    kiln.build("text", &["--output", &output]).success();
    let asked = server.take_requests();
    // user:canary-password
    let expected = "basic dXNlcjpjYW5hcnktcGFzc3dvcmQ=";
    assert!(asked.iter().all(|request| request.headers["authorization"] == expected));
    for place in [tar, kiln.root()] {
        let mut grep = Command::new("grep");
        let found = run(grep.args(["-rl", "canary-password"]).arg(&place));
        assert_eq!(found.stdout, "", "{}", place.display());
    }
    // kiln sends a token only over https, whether the secret's name contains the host or not.
    let token = kiln.write("token", "canary-token");
    let dockerfile = format!("FROM base\nADD {url} /r\n");
    for id in ["GIT_AUTH_TOKEN", "GIT_AUTH_TOKEN.127.0.0.1"] {
        let secret = format!("id={id},src={}", token.display());
        kiln.build_text(&dockerfile, &["--no-cache", "--secret", &secret]).success();
    }
    let asked = server.take_requests();
    assert!(!asked.is_empty());
    assert!(asked.iter().all(|request| !request.headers.contains_key("authorization")));
    let missing = dockerfile.replace("r.git", "missing.git");
    let secret = format!("id=GIT_AUTH_TOKEN,src={}", token.display());
    let stderr = kiln.build_text(&missing, &["--secret", &secret]).failure();
    assert!(stderr.contains("GIT_AUTH_TOKEN isn't sent"), "{stderr}");
}

#[test]
fn redirects_do_not_take_credentials_of_git_along() {
    if skip("redirects_do_not_take_credentials_of_git_along", &GIT) {
        return;
    }
    let (kiln, server, other) = (kiln(), FileServer::start(), FileServer::start());
    let repository = Repository::new(&kiln);
    repository.write("f", "content\n");
    repository.commit();
    repository.serve_plainly(&server);
    repository.serve_plainly(&other);
    let refs = |name: &str| format!("/{name}.git/info/refs?service=git-upload-pack");
    server.put(&refs("near"), Answer::redirect(&server.url(&refs("r"))));
    server.put(&refs("far"), Answer::redirect(&other.url(&refs("r"))));
    let has_credentials = |server: &FileServer| {
        let asked = server.take_requests();
        assert!(!asked.is_empty());
        asked.iter().map(|request| request.headers.contains_key("authorization")).collect()
    };
    for (name, is_near) in [("near", true), ("far", false)] {
        let url = server.url(&format!("/{name}.git")).replace("://", "://user:canary@");
        let dockerfile = format!("FROM base\nADD {url} /r\n");
        kiln.build_text(&dockerfile, &["--no-cache", "-t", "a"]).success();
        assert_eq!(cat(&kiln, "a", "/r/f"), "content\n");
        let sent: Vec<bool> = has_credentials(&server);
        assert!(sent.iter().all(|sent| *sent), "{name}");
        if !is_near {
            let sent: Vec<bool> = has_credentials(&other);
            assert!(sent.iter().all(|sent| !*sent), "{name}");
        }
    }
}

#[test]
fn a_repository_without_end_is_given_up() {
    if skip("a_repository_without_end_is_given_up", &GIT) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    let refs = format!("0048{} refs/heads/{:015}\n", "a".repeat(40), 1).repeat(1000);
    let endless = Answer { is_endless: true, ..Answer::of(refs) };
    let endless = endless.with("Content-Type", "application/x-git-upload-pack-advertisement");
    server.put("/r.git/info/refs?service=git-upload-pack", endless);
    let commit = "0123456789abcdef0123456789abcdef01234567";
    for fragment in ["", commit] {
        let dockerfile = format!("FROM base\nADD {}#{fragment} /r\n", server.url("/r.git"));
        let stderr = kiln.build_text(&dockerfile, &["--git-memory", "200m"]).failure();
        assert!(stderr.contains("git needs more than"), "{stderr}");
    }
}

#[test]
fn credentials_in_queries_are_not_shown() {
    if skip("credentials_in_queries_are_not_shown", &[Need::Root]) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    server.put("/f?v=1&token=canary-token", Answer::of("x"));
    let dockerfile = format!("FROM base\nADD {} /f\n", server.url("/f?v=1&token=canary-token"));
    let arguments = ["--progress", "plain", "--debug", "-t", "a"];
    let built = kiln.build_text(&dockerfile, &arguments);
    assert!(built.stderr.contains("/f?v=1&token=***"), "{}", built.stderr);
    let failed = kiln.build_text(&dockerfile.replace("v=1", "v=2"), &arguments);
    for output in [
        built,
        failed,
        kiln.run(&["history", "--no-trunc", "a"]),
        kiln.run(&["inspect", "a"]),
        kiln.run(&["builds", "inspect", "--format=json"]),
    ] {
        let text = format!("{}{}", output.stdout, output.stderr);
        assert!(!text.contains("canary-token"), "{text}");
    }
    let mut grep = Command::new("grep");
    let found = run(grep.args(["-rla", "canary-token"]).arg(kiln.root()));
    assert_eq!(found.stdout, "");
}

#[test]
fn keys_are_lent_by_who_builds_and_not_by_a_dockerfile() {
    if skip("keys_are_lent_by_who_builds_and_not_by_a_dockerfile", &GIT) {
        return;
    }
    let kiln = kiln();
    let repository = Repository::new(&kiln);
    repository.write("Dockerfile", "FROM base\nCOPY Dockerfile /f\n");
    repository.commit();
    // The script runs the remote command on this machine.
    let log = kiln.path("ssh.log");
    let script = format!(
        "#!/bin/sh\necho \"$SSH_AUTH_SOCK $*\" >> {}\nfor last; do :; done\nexec sh -c \"$last\"\n",
        log.display()
    );
    let ssh = kiln.write("bin/ssh", script);
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&ssh, executable).unwrap();
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", ssh.parent().unwrap().display());
    let url = format!("git@host.example:{}/r.git", repository.served.path().display());
    let base = format!("base=oci-layout://{}", base_layout().display());
    let build = |context: &str| {
        let mut command = kiln.command(&["build", "--build-context", &base, "-t", "a", context]);
        run(command.env("PATH", &path).env("SSH_AUTH_SOCK", "/agent"))
    };
    kiln.write("ctx/Dockerfile", format!("FROM base\nADD {url} /r\n"));
    let refused = build("ctx").failure();
    assert!(refused.contains("SSH agent") && !log.exists(), "{refused}");

    build(&url).success();
    assert!(cat(&kiln, "a", "/f").contains("COPY"));
    let log = std::fs::read_to_string(log).unwrap();
    for line in log.lines() {
        assert!(
            line.starts_with("/agent -F /dev/null") && line.contains("git@host.example"),
            "{line}"
        );
        assert!(line.contains("IdentityFile=none") && line.contains("BatchMode=yes"), "{line}");
    }
}

#[test]
fn the_epoch_is_taken_from_where_a_source_comes() {
    if skip("the_epoch_is_taken_from_where_a_source_comes", &GIT) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    let repository = Repository::new(&kiln);
    repository.write("Dockerfile", "FROM scratch\nCOPY f /\n");
    repository.write("f", "x");
    repository.git(&["add", "--all"]);
    repository.git(&[
        "-c",
        "core.commentChar=;",
        "commit",
        "--quiet",
        "--message=x",
        "--date=@5 +0000",
    ]);
    repository.publish("r.git");
    let time: i64 = repository.git(&["log", "-1", "--format=%ct"]).parse().unwrap();
    let tell = |context: &str, more: &[&str]| {
        let layout = kiln.path("out");
        let _ = std::fs::remove_dir_all(&layout);
        let output = format!("type=local,dest={}", layout.display());
        let mut arguments = vec!["build", context, "--output", &output];
        arguments.extend(more);
        kiln.run(&arguments).success();
        let metadata = std::fs::metadata(layout.join("f")).unwrap();
        std::os::unix::fs::MetadataExt::mtime(&metadata)
    };
    let context = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    assert_eq!(tell(&repository.url(), &context), time);
    let dated = Answer::of("x").with("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT");
    server.put("/f", dated);
    let directory = kiln.path("context");
    std::fs::create_dir_all(&directory).unwrap();
    let text = format!(
        "FROM scratch AS src\nADD {} /\nFROM scratch\nCOPY --from=src /f /\n",
        server.url("/f")
    );
    std::fs::write(directory.join("Dockerfile"), text).unwrap();
    let source = ["--build-arg", "SOURCE_DATE_EPOCH=src"];
    assert_eq!(tell(directory.to_str().unwrap(), &source), 784_111_777);
}

#[test]
fn a_source_policy_of_the_environment_applies() {
    if skip("a_source_policy_of_the_environment_applies", &[Need::Root]) {
        return;
    }
    let (kiln, server) = (kiln(), FileServer::start());
    server.put("/a", Answer::of("a"));
    server.put("/b", Answer::of("b"));
    let (a, b) = (server.url("/a"), server.url("/b"));
    kiln.write("text/Dockerfile", format!("FROM base\nADD {a} /f\n"));
    let build = |rules: &str| {
        let policy = kiln.write("policy.json", format!("{{\"rules\": [{rules}]}}"));
        let base = format!("base=oci-layout://{}", base_layout().display());
        let context = kiln.path("text");
        let arguments = [
            "build",
            "--progress=plain",
            "--build-context",
            &base,
            "-t",
            "x",
            context.to_str().unwrap(),
        ];
        let mut command = kiln.command(&arguments);
        run(command.env("EXPERIMENTAL_BUILDKIT_SOURCE_POLICY", policy))
    };
    build(&format!(
        r#"{{"action": "CONVERT", "selector": {{"identifier": "{a}"}}, "updates": {{"identifier": "{b}"}}}}"#
    ))
    .success();
    assert_eq!(cat(&kiln, "x", "/f"), "b");
    assert!(server.take_requests().iter().all(|request| request.path != "/a"));
    for (rules, problem) in [
        (r#"{"action": "DENY", "selector": {"identifier": "http://*"}}"#, "denied by policy"),
        (r#"{"action": "DENY", "selector": {"identifier": "oci-layout://*"}}"#, "denied by policy"),
        (r#"{"action": "DENI", "selector": {"identifier": "*"}}"#, "read the source policy"),
    ] {
        let refused = build(rules).failure();
        assert!(refused.contains(problem), "{refused}");
    }
}
