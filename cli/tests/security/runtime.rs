//! The parts of the machine and of kiln that a `RUN` step can reach.

use crate::arena::{Arena, SECRET, host, rounds};
use crate::images::Tar;

#[test]
fn the_running_program_can_not_be_overwritten() {
    let Some(mut arena) = Arena::new("the_running_program_can_not_be_overwritten") else { return };
    // A file that the user who runs kiln may write.
    arena.kiln.own_binary();
    let binary = arena.kiln.path("kiln");
    let kiln = || kiln_oci::Digest::of(&std::fs::read(&binary).unwrap());
    let before = kiln();
    let attack = "RUN for e in /proc/*/exe /proc/*/task/*/exe /proc/1/fd/*; do \
                  (echo overwritten >> $e) 2>/dev/null; (: > $e) 2>/dev/null; done; true\n";
    // A shell that is the runtime itself: the kernel starts /proc/self/exe.
    let layer = Tar::default().symlink("bin/sh", "/proc/self/exe").end();
    let image = arena.image("evil", &layer);
    arena.build(&format!("FROM base\nUSER root\n{attack}"), &[]).success();
    arena.build("FROM evil\nRUN true\n", &[&image]).failure();
    arena.build("FROM evil\nRUN [\"/proc/self/exe\", \"--version\"]\n", &[&image]);
    assert_eq!(kiln(), before);
    arena.finish();
}

#[test]
fn descriptors_lead_nowhere() {
    let Some(arena) = Arena::new("descriptors_lead_nowhere") else { return };
    let read = format!(
        "for up in . .. ../.. ../../.. ../../../../../../../..; do cat $up{} $up/secret; done \
         2>/dev/null; ls -A; true",
        arena.canary("secret")
    );
    let all: Vec<u32> = if rounds(1) > 1 { (3..1024).collect() } else { vec![3, 5, 7, 9, 12, 100] };
    for number in all {
        let directory = format!("/proc/self/fd/{number}");
        arena.build(&format!("FROM base\nWORKDIR {directory}\nRUN {read}\n"), &["--no-cache"]);
        let image = arena.image_with("evil", &Tar::default().end(), |config| {
            config["config"]["WorkingDir"] = directory.as_str().into();
        });
        arena.build(&format!("FROM evil\nRUN {read}\n"), &[&image, "--no-cache"]);
    }
    let seen = arena.build("FROM base\nRUN echo fds: $(ls /proc/self/fd) end\n", &[]);
    assert!(seen.stderr.contains("fds: 0 1 2 3 end"), "{}", seen.stderr);
    arena.build("FROM base\nWORKDIR /new/place\nRUN test $(pwd) = /new/place\n", &[]).success();
    arena.finish();
}

#[test]
fn every_step_is_confined() {
    let Some(arena) = Arena::new("every_step_is_confined") else { return };
    let lines = "grep -E '^(Seccomp|NoNewPrivs|CapInh|CapPrm|CapEff|CapBnd|CapAmb|Groups):' \
                 /proc/self/status > /out; id -G >> /out";
    let dockerfile = format!(
        "FROM base AS a\nRUN {lines}\nFROM base AS b\nRUN touch /out && chmod 666 /out\n\
         USER nobody\nRUN {lines}\nFROM scratch\nCOPY --from=a /out /a\nCOPY --from=b /out /b\n"
    );
    let out = arena.kiln.path("out");
    let output = format!("type=local,dest={}", out.display());
    arena.build(&dockerfile, &["--output", &output]).success();
    let bounding = "00000000a80425fb";
    for (name, held, groups) in [("a", bounding, "0"), ("b", "0000000000000000", "65534")] {
        let seen = std::fs::read_to_string(out.join(name)).unwrap();
        let seen: Vec<String> = seen.lines().map(|line| line.replace('\t', " ")).collect();
        let expected = |line: &str| seen.iter().any(|seen| seen.trim() == line);
        for line in [
            "Seccomp: 2",
            "NoNewPrivs: 0",
            "CapInh: 0000000000000000",
            "CapAmb: 0000000000000000",
            &format!("CapBnd: {bounding}"),
            &format!("CapPrm: {held}"),
            &format!("CapEff: {held}"),
            &format!("Groups: {groups}"),
            groups,
        ] {
            assert!(expected(line), "{name}: {line} in {seen:?}");
        }
    }
    let insecure = arena.build("FROM base\nRUN --security=insecure true\n", &[]).failure();
    assert!(insecure.contains("insecure"), "{insecure}");
    arena.build("FROM base\nRUN --security=madness true\n", &[]).failure();
    arena.build("FROM base\nRUN --security=sandbox true\n", &[]).success();
    arena.finish();
}

#[test]
fn masked_paths_stay_masked() {
    let Some(arena) = Arena::new("masked_paths_stay_masked") else { return };
    let pattern = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let attack = "RUN for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /c/core_pattern \
                  /proc/sys/vm/drop_caches /sys/kernel/uevent_helper; do \
                  (echo attacked > $f) 2>/dev/null && echo WRIT''TEN $f; done; \
                  cat /dev/secret /proc/secret /sys/secret /dev/null/secret 2>/dev/null; \
                  for d in /proc/acpi /proc/scsi /sys/firmware; do test ! -d $d || \
                  test $(stat -f -c %T $d) = tmpfs || echo BA''RE $d; done; true\n";
    let canary = arena.canary("");
    for (name, target) in [
        ("dev", canary.as_str()),
        ("dev/null", &arena.canary("secret")),
        ("dev/pts", &canary),
        ("dev/console", &arena.canary("new")),
        ("proc", &canary),
        ("proc/acpi", &canary),
        ("sys", &canary),
        ("sys/firmware", &canary),
        ("etc/resolv.conf", &arena.canary("new")),
        ("etc/hosts", &arena.canary("secret")),
    ] {
        let layer = Tar::default().symlink(name, target).end();
        let image = arena.image("evil", &layer);
        let seen = arena.build(&format!("FROM evil\n{attack}"), &[&image]);
        let said = &seen.stderr;
        assert!(!said.contains("WRITTEN") && !said.contains("BARE"), "{name}: {said}");
    }
    let seen = arena.build(&format!("FROM base\n{attack}"), &[]);
    assert!(!seen.stderr.contains("WRITTEN") && !seen.stderr.contains("BARE"), "{}", seen.stderr);
    seen.success();
    let innocent = "FROM base\nRUN test ! -e /dev/console && echo x > /dev/null && test -e /proc/self/status && \
                    test -d /sys/class && head -c 1 /dev/urandom > /f\n";
    arena.build(innocent, &[]).success();
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), pattern);
    arena.finish();
}

#[test]
fn the_environment_is_what_was_declared() {
    let Some(arena) = Arena::new("the_environment_is_what_was_declared") else { return };
    let dockerfile = "FROM base\nARG GIVEN\nENV DECLARED=a\\ b\nRUN env | sort > /env\n\
                      FROM scratch\nCOPY --from=0 /env /\n";
    arena.kiln.write("ctx/Dockerfile", dockerfile);
    let out = arena.kiln.path("out");
    let output = format!("type=local,dest={}", out.display());
    let mut command = arena.command("ctx", &["--build-arg", "GIVEN=x", "--output", &output]);
    // Typical environment variables of a CI machine.
    for name in ["AWS_SECRET_ACCESS_KEY", "SSH_AUTH_SOCK", "HTTP_PROXY", "LD_PRELOAD_", "DECLARED"]
    {
        command.env(name, SECRET);
    }
    arena.note(kiln_testkit::environment::run(&mut command)).success();
    let seen = std::fs::read_to_string(out.join("env")).unwrap();
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    // The shell adds these three.
    let added = ["OLDPWD", "PWD", "SHLVL"];
    let declared: Vec<&str> =
        seen.lines().filter(|line| !added.iter().any(|name| line.starts_with(name))).collect();
    assert_eq!(declared, ["DECLARED=a b", "GIVEN=x", "HOME=/root", path]);
    arena.finish();
}

#[test]
fn processes_are_alone_and_end_with_their_step() {
    let Some(arena) = Arena::new("processes_are_alone_and_end_with_their_step") else { return };
    let mut bystander = std::process::Command::new("sleep").arg("1000").spawn().unwrap();
    let id = bystander.id();
    let dockerfile = format!(
        "FROM base\nRUN ps -o pid | wc -l > /count; kill -9 {id}; kill -9 -1; true\n\
         RUN (setsid sh -c 'sleep 76543 & sleep 76543' </dev/null >/dev/null 2>&1 &); sleep 0.1\n\
         RUN ! ps | grep 7654[3] && test $(cat /count) -le 5\n"
    );
    arena.build(&dockerfile, &[]).success();
    assert!(bystander.try_wait().unwrap().is_none(), "a step killed a process of the host");
    assert_ne!(host("pgrep", &["-f", "sleep 76543"]).code, 0, "a process outlived its step");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    arena.finish();
}

#[test]
fn no_network_reaches_nothing() {
    let Some(arena) = Arena::new("no_network_reaches_nothing") else { return };
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = std::thread::spawn(move || {
        use std::io::Write as _;
        // The server expects one caller, the harmless one.
        listener.accept().unwrap().0.write_all(b"reached\n").unwrap();
    });
    let call = format!("nc -w 2 127.0.0.1 {port} </dev/null");
    let alone = format!(
        "FROM base\nRUN --network=none ! {call} && test $(ls /sys/class/net) = lo && \
         test $(wc -l < /proc/net/route) -le 1 && ! nc -w 1 192.0.2.1 80 </dev/null\n"
    );
    arena.build(&alone, &[]).success();
    arena.build(&alone.replace("--network=none ", ""), &["--network", "none"]).success();
    let shares = arena.build("FROM base\nRUN : shares\n", &[]);
    if !shares.stderr.contains("steps use the host's network") {
        // On the bridge, the loopback address is the step's own.
        arena.build(&format!("FROM base\nRUN ! {call}\n"), &[]).success();
    }
    let host = format!("FROM base\nRUN {call} | grep reached\n");
    arena.build(&host, &["--network", "host"]).success();
    served.join().unwrap();
    arena.finish();
}
