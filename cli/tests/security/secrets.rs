//! Secrets of builds, of every kind.

use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use kiln_testkit::environment::{Output, base_layout, run};
use kiln_testkit::fake_registry::{FakeRegistry, TOKEN};
use kiln_testkit::{Answer, FileServer, Need, skip};
use serde_json::Value;

use crate::arena::{Arena, SECRET, host, search};

/// The environment variables for proxies. Each gets a canary.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "ALL_PROXY",
    "all_proxy",
    "NO_PROXY",
    "no_proxy",
];

/// Returns a canary that contains the name of its place, so that a finding shows its origin.
fn canary(place: &str) -> String {
    format!("{SECRET}-{place}")
}

fn base64(text: &str) -> String {
    let mut child = Command::new("base64")
        .arg("-w0")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Starts a registry with the base image that requires a password.
fn registry() -> FakeRegistry {
    let registry = FakeRegistry::start();
    let blob = |digest: &Value| {
        let digest = digest.as_str().unwrap();
        std::fs::read(base_layout().join("blobs/sha256").join(&digest[7..])).unwrap()
    };
    let index = std::fs::read(base_layout().join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let manifest = blob(&index["manifests"][0]["digest"]);
    let parts: Value = serde_json::from_slice(&manifest).unwrap();
    for part in parts["layers"].as_array().unwrap().iter().chain([&parts["config"]]) {
        registry.put_blob(&blob(&part["digest"]));
    }
    let kind = index["manifests"][0]["mediaType"].as_str().unwrap();
    registry.put_manifest("base", "latest", kind, &manifest);
    registry.switch(|switches| {
        switches.require_token = true;
        switches.login = Some(("user".to_owned(), canary("login")));
    });
    registry
}

/// Starts a server with a file, a file at a secret address, and a repository.
fn server(arena: &Arena) -> FileServer {
    let server = FileServer::start();
    server.put("/f", Answer::of("content\n"));
    let signed = format!("/g?signature={}", canary("signature"));
    server.put("/signed", Answer::redirect(&server.url(&signed)));
    server.put(&signed, Answer::of("content\n"));
    let (work, served) = (arena.kiln.path("repository"), arena.kiln.path("served"));
    std::fs::create_dir(&served).unwrap();
    let script = "git init -q -b main $0 && cd $0 && echo content > f && git add f && \
                  git -c user.name=x -c user.email=x@example.com commit -q -m x && \
                  git clone -q --bare . $1/r.git && git -C $1/r.git update-server-info";
    run(Command::new("sh").args(["-ec", script]).arg(&work).arg(&served)).success();
    server.serve_directory(served);
    server
}

/// A build with secrets of every kind.
struct Confidant {
    arena: Arena,
    server: FileServer,
    registry: FakeRegistry,
    arguments: Vec<String>,
    dockerfile: String,
    _agent: UnixListener,
}

impl Confidant {
    fn new(arena: Arena) -> Self {
        let (server, registry) = (server(&arena), registry());
        let with_password = |path: &str, place: &str| {
            server.url(path).replace("http://", &format!("http://user:{}@", canary(place)))
        };
        let socket = arena.kiln.path("agent");
        let agent = UnixListener::bind(&socket).unwrap();
        let mut arguments = Vec::new();
        let mut add = |flag: &str, value: String| arguments.extend([flag.to_owned(), value]);
        for name in ["file", "other"] {
            let path = arena.kiln.write(&format!("told/{name}"), canary(name));
            add("--secret", format!("id={name},src={}", path.display()));
        }
        add("--secret", "id=env,env=CANARY_TOKEN".to_owned());
        for name in PROXIES {
            add("--build-arg", format!("{name}=http://u:{}@127.0.0.1:1", canary(name)));
        }
        add("--ssh", format!("default={}", socket.display()));
        add("--build-context", format!("elsewhere={}", with_password("/r.git", "context")));
        let auth = base64(&format!("user:{}", canary("login")));
        let auths = serde_json::json!({"auths": {registry.address(): {"auth": auth}}});
        arena.kiln.write("docker/config.json", auths.to_string());
        let dockerfile = format!(
            "FROM {registry}/base AS remote\nFROM base\n\
             RUN --mount=type=secret,id=file cat /run/secrets/file | wc -c > /length\n\
             RUN --mount=type=secret,id=env,env=TOKEN test ${{#TOKEN}} = {length}\n\
             RUN --mount=type=secret,id=other,target=/a/b/key,mode=0444,uid=7 test -s /a/b/key\n\
             RUN --mount=type=ssh test -S $SSH_AUTH_SOCK\n\
             RUN test -n \"$HTTP_PROXY$https_proxy\"\n\
             ADD {url} /f\nADD {signed} /g\nADD {git} /git\nADD {token} /token\n\
             COPY --from=elsewhere f /elsewhere\nCOPY --from=remote /bin/busybox /busybox\n\
             RUN test -s /f && test -s /g && test -s /git/f && test -s /token/f && \
             test ! -e /run/secrets && cat /length\n",
            registry = registry.address(),
            length = canary("env").len(),
            url = with_password("/f", "url"),
            signed = server.url("/signed"),
            git = with_password("/r.git", "git"),
            token = server.url("/r.git"),
        );
        Self { arena, server, registry, arguments, dockerfile, _agent: agent }
    }

    /// Runs a build with all secrets. Records its output without lines of the Dockerfile.
    fn build(&self, dockerfile: &str, arguments: &[&str]) -> Output {
        self.arena.kiln.write("text/Dockerfile", dockerfile);
        let told = self.arguments.iter().map(String::as_str);
        let all: Vec<&str> = told.chain(arguments.iter().copied()).collect();
        let mut command = self.arena.command("text", &all);
        command.env("CANARY_TOKEN", canary("env")).env("DOCKER_CONFIG", "docker");
        for name in ["https_proxy", "HTTPS_PROXY"] {
            command.env(name, format!("http://u:{}@127.0.0.1:1", canary("own-proxy")));
        }
        let mut seen = run(&mut command);
        // The output may quote the step's text from the Dockerfile, and nothing else.
        for line in dockerfile.lines().filter(|line| line.contains(SECRET)) {
            seen.stderr = seen.stderr.replace(line, "");
        }
        self.arena.note(seen)
    }
}

/// More than twenty canaries, each passed in a different way, appear nowhere.
#[test]
fn secrets_are_kept() {
    if skip("secrets_are_kept", &[Need::Program("git")]) {
        return;
    }
    let Some(arena) = Arena::new("secrets_are_kept") else { return };
    let confidant = Confidant::new(arena);
    let out = confidant.arena.kiln.path("out");
    std::fs::create_dir_all(&out).unwrap();
    for output in ["oci", "docker", "tar", "local"] {
        // Docker archives can't hold attestations.
        let provenance = format!("--provenance=mode=max,disabled={}", output == "docker");
        let output = format!("type={output},dest={}", out.join(output).display());
        let arguments = ["--no-cache", "--debug", &provenance, "--output", &output];
        confidant.build(&confidant.dockerfile, &arguments).success();
    }
    check_provenance(&confidant, &out.join("local/provenance.json"));
    // kiln doesn't send a token for repositories over plain http.
    let token = confidant.arena.kiln.write("token", canary("token"));
    let token = format!("id=GIT_AUTH_TOKEN,src={}", token.display());
    let arguments = ["--no-cache", "-t", "img", "--secret", &token];
    confidant.build(&confidant.dockerfile, &arguments).success();
    // The secrets were used: each server received its credentials.
    let asked = confidant.server.take_requests();
    let token = base64(&format!("x-access-token:{}", canary("token")));
    assert!(!format!("{asked:?}").contains(&token), "{asked:?}");
    for (user, place) in [("user", "url"), ("user", "git"), ("user", "context")] {
        let expected = base64(&format!("{user}:{}", canary(place)));
        let is_it = |value: &String| value.ends_with(&expected);
        let is_told =
            asked.iter().any(|asked| asked.headers.get("authorization").is_some_and(is_it));
        assert!(is_told, "{place}: {asked:?}");
    }
    assert!(asked.iter().any(|asked| asked.path.contains(&canary("signature"))));
    let asked = confidant.registry.take_requests();
    assert!(asked.iter().any(|asked| asked.headers.contains_key("authorization")));
    // The history has the build's options, but no secrets.
    for arguments in [&["builds", "ls", "--no-trunc"][..], &["builds", "inspect", "--format=json"]]
    {
        let seen = confidant.arena.note(confidant.arena.kiln.run(arguments)).success();
        assert!(arguments[1] == "ls" || seen.contains("HTTP_PROXY"), "{seen}");
    }
    // Failed builds don't reveal secrets either.
    let failing = [
        confidant.dockerfile.replace("/f /f\n", "/missing /f\n"),
        confidant.dockerfile.replace("/r.git /git\n", "/missing.git /git\n"),
        confidant.dockerfile.replace("wc -c > /length\n", "wc -c > /length; false\n"),
        confidant.dockerfile.replace("/base AS remote", "/missing AS remote"),
    ];
    for dockerfile in failing {
        confidant.build(&dockerfile, &["--no-cache", "--debug"]).failure();
    }
    confidant.registry.switch(|switches| {
        switches.login = Some(("user".to_owned(), "another".to_owned()));
    });
    confidant.build(&confidant.dockerfile, &["--no-cache", "--debug", "--pull"]);
    for command in [&["images"][..], &["inspect", "img"], &["run", "--rm", "img", "env"]] {
        confidant.arena.note(confidant.arena.kiln.run(command)).success();
    }
    check_encoded(&confidant.arena);
    confidant.arena.check();
    // The text of a Dockerfile with secrets isn't stored anywhere else.
    assert_eq!(search(&confidant.arena.kiln.path("text"), SECRET).len(), 1);
    confidant.arena.finish();
}

/// Asserts that provenance names the build's sources and contains no secrets.
fn check_provenance(confidant: &Confidant, path: &std::path::Path) {
    let provenance: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let (build, run) =
        (&provenance["predicate"]["buildDefinition"], &provenance["predicate"]["runDetails"]);
    let source = &run["metadata"]["buildkit_metadata"]["source"]["infos"][0]["data"];
    let text = kiln_llb::base64::decode(source.as_str().unwrap()).unwrap();
    let text = String::from_utf8(text).unwrap();
    assert!(text.contains("ADD http://127.0.0.1") && !text.contains(SECRET), "{text}");
    let request = &build["externalParameters"]["request"];
    let ids: Vec<_> = request["secrets"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    for id in ["file", "env", "other"] {
        assert!(ids.contains(&&Value::from(id)), "{ids:?}");
    }
    assert!(!request.to_string().contains("PROXY"), "{request}");
    let dependencies = build["resolvedDependencies"].as_array().unwrap();
    let digest =
        |uri: &str| dependencies.iter().find(|it| it["uri"] == uri).unwrap()["digest"].clone();
    assert!(digest(&confidant.server.url("/f"))["sha256"].is_string());
    assert!(digest(&confidant.server.url("/signed"))["sha256"].is_string());
    assert!(digest(&confidant.server.url("/r.git"))["sha1"].is_string());
}

/// Searches for encoded secrets.
fn check_encoded(arena: &Arena) {
    let basic = |place: &str| base64(&format!("user:{}", canary(place)));
    let words = [TOKEN.to_owned(), basic("url"), basic("git"), basic("context"), basic("login")];
    for word in &words {
        for place in [arena.kiln.root(), arena.kiln.path("out"), arena.kiln.path("home")] {
            let found = search(&place, word);
            assert!(found.is_empty(), "{word} is in {found:?}");
        }
        assert!(!arena.has_said(word), "{word} was said");
    }
}

#[test]
fn secrets_are_what_was_given() {
    let Some(arena) = Arena::new("secrets_are_what_was_given") else { return };
    let dockerfile = format!(
        "FROM base\nRUN --mount=type=secret,id=file test \"$(cat /run/secrets/file | md5sum)\" = \
         \"$(echo -n {} | md5sum)\"\n",
        "plain"
    );
    let plain = arena.kiln.write("plain", "plain");
    arena.build(&dockerfile, &["--secret", &format!("id=file,src={}", plain.display())]).success();
    arena.build("FROM base\nRUN --mount=type=secret,id=none,required true\n", &[]).failure();
    // A graph names secrets without their values.
    let graph = arena.kiln.path("out/graph");
    std::fs::create_dir_all(arena.kiln.path("out")).unwrap();
    let secret = arena.kiln.write("told", SECRET);
    let (secret, dump) = (format!("id=file,src={}", secret.display()), graph.display().to_string());
    arena.build(&dockerfile, &["--secret", &secret, "--dump-llb", &dump]).success();
    assert!(graph.metadata().unwrap().len() > 0);
    arena.finish();
}

/// Returns every row of the index.
fn rows(arena: &Arena) -> String {
    let query = "import sqlite3, sys\n\
                 index = sqlite3.connect(sys.argv[1])\n\
                 tables = index.execute('select name from sqlite_master where type = \"table\"')\n\
                 for (name,) in tables.fetchall():\n\
                 \x20   print(name, index.execute('select * from ' + name).fetchall())";
    let database = arena.kiln.root().join("kiln.db");
    host("python3", &["-c", query, database.to_str().unwrap()]).success()
}

#[test]
fn the_history_keeps_no_credentials() {
    let Some(arena) = Arena::new("the_history_keeps_no_credentials") else { return };
    // The Dockerfile uses the secret in names, errors and warnings, which kiln prints itself.
    let dockerfile = "FROM base\nARG NPM_TOKEN PLAIN\nARG LEVEL\nENV A=$PLAIN\nWORKDIR /$NPM_TOKEN\n\
                      COPY ${NPM_TOKEN} /x\n";
    let context = format!("more=https://u:{SECRET}@127.0.0.1:1/x.git");
    let arguments = [
        "--build-arg",
        &format!("NPM_TOKEN={SECRET}"),
        "--build-arg=LEVEL=5",
        &format!("--build-arg=ALL_PROXY=http://u:{SECRET}@h"),
        &format!("--label=api-key={SECRET}"),
        "--build-context",
        &context,
    ];
    arena.kiln.write("ctx/Dockerfile", dockerfile);
    let mut command = arena.command("ctx", &arguments);
    let failed = kiln_testkit::environment::run(&mut command);
    assert_ne!(failed.code, 0);
    let seen = arena.kiln.run(&["builds", "inspect", "--format", "json"]).success();
    assert!(seen.contains("\"LEVEL\": \"5\"") && seen.contains("COPY ***"), "{seen}");
    assert!(!seen.contains(SECRET), "{seen}");
    let rows = rows(&arena);
    assert!(rows.contains("COPY ***") && !rows.contains(SECRET), "{rows}");
    // The same holds for the records of results and for recipes.
    assert!(rows.contains("WORKDIR /***") && rows.contains("local://context"), "{rows}");
    arena.kiln.write("ctx/Dockerfile", dockerfile.replace("COPY", "RUN true\n# COPY"));
    let other = format!("{SECRET}-other");
    for token in [SECRET, &other] {
        let token = format!("NPM_TOKEN={token}");
        let mut command = arena.command("ctx", &["--explain", "--build-arg", &token]);
        let seen = kiln_testkit::environment::run(&mut command);
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        let (_, explained) = seen.stderr.split_once("why steps ran:").unwrap();
        assert!(!explained.contains(SECRET), "{explained}");
        let is_first = token.ends_with(SECRET);
        let cause = "build argument NPM_TOKEN has another value, which is not kept";
        assert_eq!(explained.contains(cause), !is_first, "{explained}");
    }
    let rows = self::rows(&arena);
    assert!(rows.contains("variable NPM_TOKEN") && !rows.contains(SECRET), "{rows}");
    let text = arena.kiln.run(&["builds", "inspect"]).success();
    assert!(text.contains("NPM_TOKEN (value not kept)") && !text.contains(SECRET), "{text}");

    // The output of a step is in its log only.
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo; exit 3\n";
    let value = arena.kiln.write("value", SECRET);
    let secret = format!("id=s,src={}", value.display());
    arena.kiln.write("ctx/Dockerfile", dockerfile);
    let failed = kiln_testkit::environment::run(&mut arena.command("ctx", &["--secret", &secret]));
    assert!(failed.failure().contains(SECRET));
    assert!(arena.kiln.run(&["builds", "logs"]).success().contains(SECRET));
    assert!(!arena.kiln.run(&["builds", "inspect", "--format=json"]).success().contains(SECRET));
}
