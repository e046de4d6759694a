//! Steps and containers under runc, whose behaviour serves as a reference for the sandbox.

use std::process::Stdio;
use std::time::{Duration, Instant};

use kiln_testkit::environment::base_layout;
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

const NEEDS: [Need; 2] = [Need::Root, Need::Program("runc")];

/// A script whose output must be the same in both.
const REPORT: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:|SigBlk|SigIgn|Umask)' /proc/self/status; \
    env -0 | tr '\\0' '\\n' | sort; ls /proc/self/fd; pwd; hostname; ulimit -n; ulimit -Hn; \
    ls -l /dev | awk '{ print $1, $3, $4, $NF }' | grep -v total; df -k /dev/shm | tail -n 1 | awk '{ print $2 }'; \
    list=$(ps -o comm); echo \"$list\"; cat /proc/self/cgroup; ls /sys/class/net; \
    for f in /proc/kcore /proc/keys /proc/timer_list; do test -e $f && cat $f | wc -c; done; \
    (echo x > /proc/sys/kernel/hostname) 2>&1; (mount -t tmpfs none /tmp) 2>&1; \
    mknod -m 666 /tmp/n c 1 3 && echo x > /tmp/n && echo null; \
    mknod /tmp/b b 7 0 && (: < /tmp/b) 2>/dev/null || echo no disk; rm -f /tmp/n /tmp/b; \
    awk '{ print $2, $3 }' /proc/mounts | grep -vE '^/proc/|^/sys/|^/dev/[a-z]* (dev)?tmpfs' | sort -u; \
    stat -c '%U %a' . /etc/hosts; cat /etc/resolv.conf | wc -l; test -t 0 || echo no terminal; \
    touch /proc/x /sys/x 2>&1; id";

/// Builds with the sandbox and with runc. Returns the last output of each.
fn both(kiln: &Kiln, dockerfile: &str, arguments: &[&str]) -> [String; 2] {
    ["", "runc"].map(|runtime| {
        let output = kiln.path(&format!("image-{runtime}"));
        let output = format!("type=oci,tar=false,dest={}", output.display());
        let more =
            ["--no-cache", "--oci-runtime", runtime, "-t", "it", "-o", &output, "-o", "type=image"];
        kiln.build_text(dockerfile, &[arguments, &more].concat()).success();
        let inspected = kiln.run(&["inspect", "it"]).success();
        let document: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        document[0]["RootFS"].to_string()
    })
}

#[test]
fn runc_makes_the_same_layers() {
    if skip("runc_makes_the_same_layers", &NEEDS) {
        return;
    }
    let kiln = kiln();
    let touch = "find / -xdev -newer /etc/passwd ! -path '/proc*' -exec touch -h -d @1000000 {} +; \
                 touch -d @1000000 / /etc /tmp /x 2>/dev/null; true";
    let dockerfile = format!(
        "FROM base\nENV A=b\nRUN mkdir /x && echo 1 > /x/f && ln -s f /x/l && chown 7:8 /x/f && \
         echo > /tmp/id && chown nobody /tmp/id && chmod 4755 /x/f && mkfifo /x/p && mknod /x/d c 1 3 && rm /bin/vi; {touch}\n\
         USER nobody\nRUN id > /tmp/id; touch -d @1000000 /tmp/id\n\
         USER root\nRUN --mount=type=tmpfs,target=/deep/er --mount=type=cache,target=/c \
         --mount=type=bind,target=/bound,from=base,source=/etc,rw echo x > /c/x && echo y > /bound/y \
         && echo z > /deep/er/z; {touch}\n\
         RUN --mount=type=tmpfs,target=/dev/mine --mount=type=tmpfs,target=/dev/shm/x \
         touch /dev/mine/x /dev/shm/x/y; {touch}\n"
    );
    let [ours, theirs] = both(&kiln, &dockerfile, &[]);
    assert!(ours.contains("sha256:"), "{ours}");
    assert_eq!(ours, theirs);
}

#[test]
fn runc_gives_a_step_the_same_world() {
    if skip("runc_gives_a_step_the_same_world", &NEEDS) {
        return;
    }
    let kiln = kiln();
    let seen = |runtime: &str, user: &str| {
        let dockerfile = format!(
            "FROM base\nENV A=b\nUSER {user}\nWORKDIR /tmp/w\nRUN ({REPORT}) > /tmp/report\n"
        );
        let limits = ["--ulimit", "nofile=64:128", "--shm-size", "3m", "--network", "none"];
        let more = ["--no-cache", "--oci-runtime", runtime, "-t", "it"];
        kiln.build_text(&dockerfile, &[&limits[..], &more].concat()).success();
        kiln.run(&["run", "it", "cat", "/tmp/report"]).success()
    };
    for user in ["root", "nobody"] {
        let (ours, theirs) = (seen("", user), seen("runc", user));
        let alone = |these: &str, those: &str| {
            let those: Vec<&str> = those.lines().collect();
            let alone = these.lines().filter(|line| !those.contains(line));
            alone.map(str::to_owned).collect::<Vec<_>>()
        };
        let differences = (alone(&ours, &theirs), alone(&theirs, &ours));
        assert!(ours == theirs, "{user}: {differences:?}\n{ours}");
        assert!(ours.contains("NoNewPrivs:\t0") && ours.contains("no disk"), "{ours}");
    }
}

#[test]
fn runc_fails_as_the_sandbox_does() {
    if skip("runc_fails_as_the_sandbox_does", &NEEDS) {
        return;
    }
    let kiln = kiln();
    for (step, message) in [
        ("RUN exit 7", "exit code: 7"),
        ("RUN [\"nope\"]", "exit code: 127: exec: \"nope\": executable file not found in $PATH"),
        ("RUN --mount=type=tmpfs,target=/proc/sys true", "nothing can be mounted in /proc"),
        ("USER nobody-here\nRUN true", "unable to find user nobody-here"),
    ] {
        for runtime in ["", "runc"] {
            let dockerfile = format!("FROM base\n{step}\n");
            let failed = kiln.build_text(&dockerfile, &["--oci-runtime", runtime]).failure();
            assert!(failed.contains(message), "{runtime}: {failed}");
        }
    }
    let greedy = "FROM base\nRUN x=0123456789; while :; do x=$x$x; done\n";
    let failed = kiln.build_text(greedy, &["-m", "24m", "--oci-runtime", "runc"]).failure();
    assert!(failed.contains("killed: out of memory (limit 24 MiB)"), "{failed}");
    let unknown = kiln.build_text("FROM base\n", &["--oci-runtime", "no-such"]).failure();
    assert!(unknown.contains("there is no OCI runtime no-such on the path"), "{unknown}");
    // A program that isn't a runtime.
    let odd = kiln.build_text("FROM base\nRUN true\n", &["--oci-runtime", "/bin/false"]).failure();
    assert!(odd.contains("did not complete successfully"), "{odd}");
}

#[test]
fn containers_are_run_by_runc() {
    if skip("containers_are_run_by_runc", &NEEDS) {
        return;
    }
    let kiln = kiln();
    kiln.build_text("FROM base\nRUN true\n", &["-t", "img"]).success();
    let run = |arguments: &[&str]| {
        let mut command = kiln.command(&[&["run", "--rm"], arguments].concat());
        command.env("KILN_OCI_RUNTIME", "runc");
        kiln_testkit::environment::run(&mut command)
    };
    // The environment variable sets the runtime.
    assert_eq!(run(&["img", "sh", "-c", "exit 5"]).code, 5);
    assert_eq!(run(&["img", "no-such-program"]).code, 127);
    let seen = run(&["-v", "keep:/k", "img", "sh", "-c", "echo kept > /k/f; cat /k/f"]);
    assert_eq!(seen.success(), "kept\n");
    // Its own group is below the limited one.
    let script = "x=0123456789; while :; do x=$x$x; done";
    let greedy = run(&["-m", "24m", "--cpus", "0.9", "img", "sh", "-c", script]);
    assert_eq!(greedy.code, 137, "{}", greedy.stderr);
    assert!(greedy.stderr.contains("out of memory (limit 24 MiB)"), "{}", greedy.stderr);
    let insecure = "# syntax=docker/dockerfile:1-labs\nFROM base\n\
                    RUN --security=insecure mount -t tmpfs none /tmp && echo yes > /seen\n";
    let allowed = ["--allow", "security.insecure", "--oci-runtime", "runc", "-t", "a"];
    kiln.build_text(insecure, &allowed).success();
    assert_eq!(kiln.run(&["run", "a", "cat", "/seen"]).success(), "yes\n");
}

#[test]
fn what_runc_started_dies_with_kiln() {
    if skip("what_runc_started_dies_with_kiln", &NEEDS) {
        return;
    }
    let kiln = kiln();
    let word = "83.1746";
    kiln.write("ctx/Dockerfile", format!("FROM base\nRUN sleep {word}\n"));
    let base = format!("base=oci-layout://{}", base_layout().display());
    let mut build = kiln
        .command(&["build", "--oci-runtime", "runc", "--build-context", &base, "ctx"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let runs = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            line.split(|byte| *byte == 0).any(|part| part == word.as_bytes())
        })
    };
    let start = Instant::now();
    let until = |condition: &dyn Fn() -> bool| {
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(30), "waited for too long");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    until(&runs);
    build.kill().unwrap();
    build.wait().unwrap();
    until(&|| !runs());
    // A kiln that needs only one group of its own also removes the groups that runc needed
    // everywhere.
    let name = format!("kiln-{}-", build.id());
    let is_left = || !crate::groups::groups_called(&name).is_empty();
    until(&|| {
        kiln.build_text("FROM base\nRUN true\n", &["--no-cache"]).success();
        !is_left()
    });
}

#[test]
fn a_terminal_goes_through_runc() {
    let needs = [Need::Root, Need::Program("runc"), Need::Program("setsid")];
    if skip("a_terminal_goes_through_runc", &needs) {
        return;
    }
    crate::run::pass_a_terminal_through(&kiln(), &["--oci-runtime", "runc"]);
}
