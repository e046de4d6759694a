//! The limits of steps and containers.

use std::path::Path;
use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Need, skip};

use crate::kiln;

#[test]
fn steps_have_the_limits_of_the_build() {
    if skip("steps_have_the_limits_of_the_build", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let script = "ulimit -n; ulimit -Hn; df -k /dev/shm | awk 'END { print $2 }'; \
                  stat -c %a /dev/shm; touch /dev/shm/f";
    let dockerfile = format!("FROM base\nRUN ({script}) > /seen\n");
    let limits = ["--shm-size", "3m", "--ulimit", "nofile=64:128", "--ulimit", "core=0"];
    kiln.build_text(&dockerfile, &[&limits[..], &["-t", "a"]].concat()).success();
    let seen = kiln.run(&["run", "a", "cat", "/seen"]).success();
    assert_eq!(seen, "64\n128\n3072\n1777\n");
    let refused = kiln.build_text("FROM base\n", &["--ulimit", "colour=1"]).failure();
    assert!(refused.contains("there is no limit \"colour\""), "{refused}");
    let refused = kiln.build_text("FROM base\n", &["--shm-size", "much"]).failure();
    assert!(refused.contains("invalid --shm-size"), "{refused}");
}

#[test]
fn containers_have_what_was_asked_for() {
    if skip("containers_have_what_was_asked_for", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    kiln.build_text("FROM base\nENV A=image\n", &["-t", "a"]).success();
    let run = |arguments: &[&str]| kiln.run(&[&["run", "--rm"], arguments].concat());
    let limits = ["--ulimit", "nofile=64:128", "--shm-size", "3m"];
    let script = "ulimit -n; ulimit -Hn; df -k /dev/shm | awk 'END { print $2 }'";
    let seen = run(&[&limits[..], &["a", "sh", "-c", script]].concat()).success();
    assert_eq!(seen, "64\n128\n3072\n");

    let host = ["--add-host", "db:10.1.2.3", "-H", "box", "a", "sh", "-c"];
    let seen = run(&[&host[..], &["grep db /etc/hosts; hostname"]].concat()).success();
    assert_eq!(seen, "10.1.2.3\tdb\nbox\n");

    let script = "hostname; df -k /dev/shm | awk 'END { print $2 }'; cat /etc/hostname";
    let seen = run(&["-h", "box", "--shm-size", "0", "a", "sh", "-c", script]).success();
    assert_eq!(seen, "box\n65536\nbox\n");
    assert!(run(&["--help"]).success().contains("--hostname"));

    let read_only = ["--read-only", "--tmpfs", "/t:size=1m,mode=750", "a", "sh", "-c"];
    let script = "touch /t/f && stat -c %a /t; touch /f";
    let denied = run(&[&read_only[..], &[script]].concat());
    assert_eq!(denied.stdout, "750\n");
    assert!(denied.failure().contains("Read-only file system"));

    kiln.write("vars", "# some\nA=file\nB=file\n");
    let vars = ["--env-file", "vars", "-e", "B=typed", "a", "sh", "-c", "echo $A $B"];
    assert_eq!(run(&vars).success(), "file typed\n");
}

#[test]
fn rights_are_given_by_who_builds() {
    if skip("rights_are_given_by_who_builds", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let host = "FROM base\nRUN --network=host true\n";
    let refused = kiln.build_text(host, &[]).failure();
    assert!(refused.contains("network.host is not allowed"), "{refused}");
    assert!(refused.contains(">>> RUN --network=host true"), "{refused}");
    assert!(refused.contains("hint: --allow network.host"), "{refused}");
    kiln.build_text(host, &["--allow", "network.host"]).success();
    kiln.build_text(host, &["--network", "host"]).success();

    let insecure = "# syntax=docker/dockerfile:1-labs\nFROM base\n\
                    RUN --security=insecure mount -t tmpfs none /tmp && echo yes > /seen\n";
    let refused = kiln.build_text(insecure, &["--allow", "network.host"]).failure();
    assert!(refused.contains("security.insecure is not allowed"), "{refused}");
    kiln.build_text(insecure, &["--allow", "security.insecure", "-t", "a"]).success();
    assert_eq!(kiln.run(&["run", "a", "cat", "/seen"]).success(), "yes\n");
    let unknown = kiln.build_text(host, &["--allow", "device.all"]).failure();
    assert!(unknown.contains("possible values: network.host, security.insecure"), "{unknown}");
}

#[test]
fn steps_reach_the_agent_that_is_lent() {
    if skip("steps_reach_the_agent_that_is_lent", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let socket = kiln.path("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let dockerfile = "FROM base\nRUN --mount=type=ssh,mode=640,uid=5,gid=6,required \
                      stat -c '%F %a %u:%g' $SSH_AUTH_SOCK > /seen; echo $SSH_AUTH_SOCK >> /seen\n\
                      RUN --mount=type=ssh,id=other test ! -e /run/buildkit/ssh_agent.0\n\
                      RUN test ! -e /run/buildkit\n";
    let refused = kiln.build_text(dockerfile, &[]).failure();
    assert!(refused.contains("ssh agent default: not found"), "{refused}");
    assert!(refused.contains("hint: --ssh default"), "{refused}");
    let agent = format!("default={}", socket.display());
    kiln.build_text(dockerfile, &["--ssh", &agent, "-t", "a"]).success();
    let seen = kiln.run(&["run", "a", "cat", "/seen"]).success();
    assert_eq!(seen, "socket 640 5:6\n/run/buildkit/ssh_agent.0\n");
    let refused = kiln.build_text(dockerfile, &["--ssh", "default"]).failure();
    assert!(refused.contains("SSH_AUTH_SOCK isn't set"), "{refused}");
}

/// Copies a program of the host and its libraries below a directory.
fn copy_program(program: &str, to: &Path) {
    let libraries = run(Command::new("ldd").arg(program)).success();
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain([program]) {
        let place = to.join(&path[1..]);
        std::fs::create_dir_all(place.parent().unwrap()).unwrap();
        std::fs::copy(path, place).unwrap();
    }
}

#[test]
fn a_step_asks_an_agent_for_its_keys() {
    use std::io::{Read, Write};
    let needs = [Need::Root, Need::Program("ssh-add"), Need::Program("ldd")];
    if skip("a_step_asks_an_agent_for_its_keys", &needs) {
        return;
    }
    let kiln = kiln();
    copy_program("/usr/bin/ssh-add", &kiln.path("context/files"));
    let socket = kiln.path("agent");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    // An agent without keys that counts its requests.
    let agent = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        let mut request = [0; 5];
        client.read_exact(&mut request).unwrap();
        client.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
        request
    });
    let dockerfile = "FROM base\nCOPY files /\n\
                      RUN --mount=type=ssh ssh-add -l > /seen; true\n";
    kiln.write("context/Dockerfile", dockerfile);
    let agent_flag = format!("default={}", socket.display());
    kiln.build("context", &["--ssh", &agent_flag, "-t", "a"]).success();
    assert_eq!(agent.join().unwrap(), [0, 0, 0, 1, 11]);
    let seen = kiln.run(&["run", "a", "cat", "/seen"]).success();
    assert_eq!(seen, "The agent has no identities.\n");
}

#[test]
fn paths_have_the_length_that_archives_take() {
    if skip("paths_have_the_length_that_archives_take", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    // Two chains of directories, one of which then moves into the other: no path is long enough for
    // the result.
    let name = "n".repeat(200);
    let chain = vec![name.as_str(); 15].join("/");
    let script = format!("mkdir -p /a/{chain} /b/{chain} && mv /b/{name} /a/{chain}/");
    let limit = "is longer than 4096 bytes, the limit of a path in an image";
    for snapshotter in ["overlay", "copy"] {
        let dockerfile = format!("FROM base\nRUN {script}\n");
        let refused = kiln.build_text(&dockerfile, &["--snapshotter", snapshotter]).failure();
        assert!(refused.contains(&format!("\"/a/{}\"… {limit}", &name[..78])), "{refused}");
        assert!(refused.contains(">>> RUN mkdir"), "{refused}");
        // Files that are removed before the step ends are not part of the image.
        let back = format!("mv /a/{chain}/{name} /b/ && rm -r /a /b");
        let dockerfile = format!("FROM base\nRUN {script} && {back}\n");
        kiln.build_text(&dockerfile, &["--snapshotter", snapshotter]).success();
    }
    // Each path fits into an archive, but the paths after the copy do not.
    kiln.write("ctx/Dockerfile", format!("FROM base\nCOPY d /{chain}/\n"));
    kiln.write(&format!("ctx/d/{chain}/f"), "f");
    let refused = kiln.build("ctx", &[]).failure();
    assert!(refused.contains(limit), "{refused}");
    assert!(refused.contains(">>> COPY d"), "{refused}");
    let step = format!("FROM base\nRUN mkdir -p /a/{chain} /b/{chain}\nFROM base\n");
    let copy = format!("{step}COPY --from=0 /a /{chain}/\nCOPY --from=0 /b /c/\n");
    assert!(kiln.build_text(&copy, &[]).failure().contains(limit));
    // The same holds for a context, unless the directory is excluded.
    let inner = kiln.path("inner");
    std::fs::create_dir_all(inner.join(&chain)).unwrap();
    let outer = kiln.path("outer");
    std::fs::create_dir_all(outer.join(&chain)).unwrap();
    std::fs::rename(inner.join(&name), outer.join(&chain).join("moved")).unwrap();
    kiln.write("outer/Dockerfile", "FROM base\nCOPY . /c/\n");
    assert!(kiln.build("outer", &[]).failure().contains(limit));
    kiln.write("outer/.dockerignore", "nnn*\n");
    kiln.build("outer", &[]).success();
}
