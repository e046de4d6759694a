//! What steps and containers may use.

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
