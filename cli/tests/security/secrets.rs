//! What builds are told in confidence.

use kiln_testkit::{Answer, FileServer};

use crate::arena::{Arena, SECRET, host, search};

#[test]
fn secrets_are_kept() {
    let Some(arena) = Arena::new("secrets_are_kept") else { return };
    let server = FileServer::start();
    server.put("/f", Answer::of("content\n"));
    let host = server.url("/f");
    let with_password = host.replace("http://", &format!("http://user:{SECRET}@"));
    let value = arena.kiln.write("value", format!("{SECRET}-file"));
    let dockerfile = format!(
        "FROM base\nARG NO_PROXY\n\
         RUN --mount=type=secret,id=file cat /run/secrets/file | wc -c > /length\n\
         RUN --mount=type=secret,id=env,env=TOKEN test ${{#TOKEN}} = 23\n\
         RUN --mount=type=secret,id=other,target=/a/b/key,mode=0444,uid=7 test -s /a/b/key\n\
         RUN test -n \"$HTTP_PROXY$https_proxy\"\n\
         ADD {with_password} /f\nRUN test -s /f && test ! -e /run/secrets && cat /length\n"
    );
    arena.kiln.write("text/Dockerfile", &dockerfile);
    let file = format!("id=file,src={}", value.display());
    let other = format!("id=other,src={}", value.display());
    for output in ["oci", "docker", "tar"] {
        let name = format!("out/{output}");
        std::fs::create_dir_all(arena.kiln.path("out")).unwrap();
        let output = format!("type={output},dest={}", arena.kiln.path(&name).display());
        let mut command = arena.command(
            "text",
            &[
                "--secret",
                &file,
                "--secret",
                &other,
                "--secret",
                "id=env,env=CANARY_TOKEN",
                "--build-arg",
                &format!("HTTP_PROXY=http://u:{SECRET}@127.0.0.1:1"),
                "--build-arg",
                &format!("https_proxy=http://u:{SECRET}@127.0.0.1:1"),
                "--output",
                &output,
                "--debug",
            ],
        );
        command.env("CANARY_TOKEN", format!("{SECRET}-env"));
        let mut seen = kiln_testkit::environment::run(&mut command);
        assert_eq!(seen.code, 0, "{}", seen.stderr);
        // The step's text, as the Dockerfile has it, is all that may be said of it.
        seen.stderr = seen.stderr.replace(&with_password, "");
        arena.note(seen);
    }
    assert!(search(&arena.kiln.path("text"), SECRET).len() == 1);
    // The history knows how it was built, but nothing that was told in confidence.
    for arguments in [&["builds", "ls", "--no-trunc"][..], &["builds", "inspect", "--format=json"]]
    {
        let seen = arena.note(arena.kiln.run(arguments)).success();
        assert!(arguments[1] == "ls" || seen.contains("HTTP_PROXY"), "{seen}");
    }
    // An innocent secret is what it was given as.
    let dockerfile = format!(
        "FROM base\nRUN --mount=type=secret,id=file test \"$(cat /run/secrets/file | md5sum)\" = \
         \"$(echo -n {} | md5sum)\"\n",
        "plain"
    );
    let plain = arena.kiln.write("plain", "plain");
    arena.build(&dockerfile, &["--secret", &format!("id=file,src={}", plain.display())]).success();
    arena.build("FROM base\nRUN --mount=type=secret,id=none,required true\n", &[]).failure();
    arena.finish();
}

#[test]
fn the_history_keeps_no_credentials() {
    let Some(arena) = Arena::new("the_history_keeps_no_credentials") else { return };
    // Said by kiln itself, for the Dockerfile has it in names, errors and warnings.
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
    let query = "import sqlite3, sys; \
                 print(sqlite3.connect(sys.argv[1]).execute('select * from builds').fetchall())";
    let database = arena.kiln.root().join("kiln.db");
    let rows = host("python3", &["-c", query, database.to_str().unwrap()]).success();
    assert!(rows.contains("COPY ***") && !rows.contains(SECRET), "{rows}");
    let text = arena.kiln.run(&["builds", "inspect"]).success();
    assert!(text.contains("NPM_TOKEN (value not kept)") && !text.contains(SECRET), "{text}");

    // What a step prints is in its log, and nowhere else.
    let dockerfile = "FROM base\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo; exit 3\n";
    let value = arena.kiln.write("value", SECRET);
    let secret = format!("id=s,src={}", value.display());
    arena.kiln.write("ctx/Dockerfile", dockerfile);
    let failed = kiln_testkit::environment::run(&mut arena.command("ctx", &["--secret", &secret]));
    assert!(failed.failure().contains(SECRET));
    assert!(arena.kiln.run(&["builds", "logs"]).success().contains(SECRET));
    assert!(!arena.kiln.run(&["builds", "inspect", "--format=json"]).success().contains(SECRET));
}
