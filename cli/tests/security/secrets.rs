//! What builds are told in confidence.

use kiln_testkit::{Answer, FileServer};

use crate::arena::{Arena, SECRET, search};

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
