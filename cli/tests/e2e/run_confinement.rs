//! Rights of containers, and namespaces shared with the host, with the sandbox and with runc.

use std::path::Path;
use std::process::{Command, Stdio};

use kiln_testkit::environment::run as execute;
use kiln_testkit::needs::find_program;
use kiln_testkit::peers::{DockerRegistry, wait_until};
use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;
use crate::run_options::{prepared, run};

/// Returns the options for each runtime: none for the sandbox, and those for runc if it is
/// installed.
fn runtimes() -> Vec<&'static [&'static str]> {
    let runc: Option<&[&str]> = find_program("runc").map(|_| &["--oci-runtime", "runc"][..]);
    [&[][..]].into_iter().chain(runc).collect()
}

/// Runs a script as root of the container.
fn root(kiln: &Kiln, options: &[&str], script: &str) -> kiln_testkit::Output {
    run(kiln, &[&["-u", "0", "--network", "none"], options].concat(), script)
}

#[test]
fn system_calls_are_those_of_a_profile() {
    if skip("system_calls_are_those_of_a_profile", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let profile = r#"{
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [{ "architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"] },
                    { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"] }],
        "syscalls": [
            { "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 },
            { "name": "chmod", "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 1, "value": 511, "op": "SCMP_CMP_EQ" }] },
            { "names": ["fchmodat", "fchmodat2"], "action": "SCMP_ACT_ERRNO",
              "args": [{ "index": 2, "value": 511, "op": "SCMP_CMP_EQ" }] },
            { "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "excludes": { "caps": ["CAP_SYS_TIME"] } },
            { "names": ["symlink", "symlinkat"], "action": "SCMP_ACT_ERRNO", "includes": { "caps": ["CAP_SYS_TIME"] } }
        ]
    }"#;
    let path = kiln.write("profile.json", profile);
    let option = format!("seccomp={}", path.display());
    let script = "mkdir /w/d 2>&1; ln -s x /w/l && echo linked; : > /w/f; chmod 777 /w/f 2>/dev/null || echo kept; \
                  chmod 700 /w/f && echo changed; hostname x 2>/dev/null && echo named; grep Seccomp: /proc/self/status";
    for runtime in runtimes() {
        let says = |options: &[&str]| {
            let typed = [&["--security-opt", &option], runtime, options].concat();
            root(&kiln, &typed, script).success()
        };
        let full = "mkdir: can't create directory '/w/d': No space left on device\n";
        let rest = "kept\nchanged\n";
        assert_eq!(says(&[]), format!("{full}linked\n{rest}Seccomp:\t2\n"), "{runtime:?}");
        let time = says(&["--cap-add", "SYS_TIME"]);
        assert!(!time.contains("linked"), "{runtime:?}: {time}");
        // The profile applies to a privileged container, too, which has the capability.
        let privileged = says(&["--privileged"]);
        assert_eq!(
            privileged.replace("ln: /w/l: Operation not permitted\n", ""),
            format!("{full}{rest}named\nSeccomp:\t2\n")
        );
        // It also applies to a user other than root, who can't install a filter.
        let typed = [&["--privileged", "--security-opt", &option], runtime].concat();
        assert_eq!(run(&kiln, &typed, "mkdir /tmp/d 2>/dev/null; id -u").success(), "1000\n");
        let paths = [&["--security-opt", "systempaths=unconfined"], runtime].concat();
        let open = "grep -c -E ' /proc/(sys|kcore|keys) ' /proc/mounts; true";
        assert_eq!(root(&kiln, &paths, open).success(), "0\n", "{runtime:?}");
        assert_ne!(root(&kiln, runtime, open).success(), "0\n", "{runtime:?}");
        let builtin =
            [&["--security-opt", &option, "--security-opt", "seccomp=builtin"], runtime].concat();
        assert_eq!(root(&kiln, &builtin, "mkdir /w/d && echo made").success(), "made\n");
    }
    kiln.write(
        "profile.json",
        "{ \"defaultAction\": \"SCMP_ACT_ALLOW\",\n\"syscalls\": [{ \"name\": 1 }] }",
    );
    let refused = root(&kiln, &["--security-opt", &option], "true");
    assert_eq!(refused.code, 125);
    let shown = refused.stderr;
    for part in ["profile.json", "invalid type: integer `1`, expected a string at line 2"] {
        assert!(shown.contains(part), "{shown}");
    }
    // A profile may refuse the system calls that start the program. Then the run fails with an
    // error.
    kiln.write("profile.json", "{ \"defaultAction\": \"SCMP_ACT_ERRNO\" }");
    assert_ne!(root(&kiln, &["--security-opt", &option], "true").code, 0);
}

#[test]
fn devices_are_opened_as_far_as_is_allowed() {
    if skip("devices_are_opened_as_far_as_is_allowed", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let script = "head -c 1 /dev/mine >/dev/null 2>&1 && echo read; (echo x > /dev/mine) 2>/dev/null && echo wrote; true";
    // A device that containers may not open by default, but that the test's user can open.
    let can_open = std::fs::File::open("/dev/fuse").is_ok();
    let opened = |text: &'static str| if can_open { text } else { "" };
    for runtime in runtimes() {
        let says =
            |options: &[&str], script: &str| root(&kiln, &[options, runtime].concat(), script);
        let make = "mknod /w/fuse c 10 229; ls /dev/fuse 2>/dev/null; (: < /w/fuse) 2>/dev/null && echo opened; true";
        assert_eq!(says(&[], make).success(), "", "{runtime:?}");
        assert_eq!(says(&["--device", "/dev/zero:/dev/mine"], script).success(), "read\nwrote\n");
        let all =
            "test -e /dev/fuse && (: < /dev/fuse) && echo opened; grep CapEff /proc/self/status";
        let seen = says(&["--privileged"], all).success();
        assert!(seen.starts_with(opened("opened\n")), "{runtime:?}: {seen}");
        assert!(!seen.contains("00000000a80425fb"), "{seen}");
        let rule = ["--device", "/dev/zero:/x:rw", "--device-cgroup-rule", "c 10:229 r"];
        let limited = says(&rule, make);
        if limited.stderr.contains("can't be enforced") {
            assert_eq!(limited.code, 125);
            continue;
        }
        assert_eq!(limited.success(), opened("opened\n"), "{runtime:?}");
        if can_open {
            let open = "(: < /dev/mine) 2>/dev/null && echo read; (: >> /dev/mine) 2>/dev/null && echo wrote; true";
            let seen = |mode: &str| {
                says(&["--device", &format!("/dev/fuse:/dev/mine{mode}")], open).success()
            };
            assert_eq!(seen(":r"), "read\n", "{runtime:?}");
            assert_eq!(seen(":w"), "wrote\n", "{runtime:?}");
            assert_eq!(seen(""), "read\nwrote\n", "{runtime:?}");
        }
    }
    let refused = root(&kiln, &["--device-cgroup-rule", "c 1:3"], "true");
    assert!(refused.code == 125 && refused.stderr.contains("\"c 1:3 rwm\""), "{}", refused.stderr);
}

#[test]
fn an_insecure_step_may_all_that_kiln_may() {
    if skip("an_insecure_step_may_all_that_kiln_may", &[Need::Root]) {
        return;
    }
    let kiln = kiln();
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    let capabilities = |file: &str| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().find(|line| line.starts_with("CapEff")).unwrap().to_owned()
    };
    let own = capabilities("/proc/self/status");
    // A step could open the nodes that kiln itself can open.
    let nodes = [("c", 1, 11), ("b", 7, 0), ("c", 10, 229), ("c", 10, 237)];
    let openable = nodes.iter().filter(|(kind, major, minor)| {
        let node = kiln.path("node");
        let _ = std::fs::remove_file(&node);
        let numbers = [major.to_string(), minor.to_string()];
        execute(Command::new("mknod").arg(&node).arg(kind).args(numbers)).success();
        std::fs::File::open(&node).is_ok()
    });
    let name = |(kind, major, minor): &(&str, u32, u32)| format!("{kind} {major} {minor}");
    let openable: Vec<String> = openable.map(|node| name(node) + "\n").collect();
    let openable = openable.concat();
    let open: Vec<String> = nodes
        .iter()
        .map(name)
        .map(|node| format!("mknod /n {node}; (: < /n) 2>/dev/null && echo {node}; rm /n; "))
        .collect();
    let open = open.concat();
    let script = format!(
        "({open} grep -E '^(CapEff|Seccomp|NoNewPrivs):' /proc/self/status; hostname inside && hostname; \
         ls -d /proc/[0-9]* | wc -l; mount -t tmpfs none /mnt && echo mounted; \
         test -b /dev/loop0 && test -c /dev/loop-control && echo loops; \
         f=/proc/sys/kernel/msgmax; cat $f > $f && echo set; grep -q ' /sys sysfs rw' /proc/mounts && echo writable) > /seen 2>&1; umount /mnt; true"
    );
    let seen = |flags: &str, arguments: &[&str]| {
        let text = format!(
            "# syntax=docker/dockerfile:1-labs\nFROM base\nRUN mkdir -p /mnt\nRUN {flags} {script}\n"
        );
        let more = ["--no-cache", "--network", "none", "--allow", "security.insecure", "-t", "a"];
        kiln.build_text(&text, &[&more, arguments].concat()).success();
        kiln.run(&["run", "--network", "none", "a", "cat", "/seen"]).success()
    };
    // With and without limits, beside a step with a device filter.
    for arguments in [&[][..], &["--memory", "256m"]] {
        let insecure = seen("--security=insecure", arguments);
        let expected = format!("{openable}{own}\nNoNewPrivs:\t0\nSeccomp:\t0\ninside\n");
        assert!(insecure.starts_with(&expected), "{arguments:?}: {insecure}\n{expected}");
        assert!(insecure.ends_with("mounted\nloops\nset\nwritable\n"), "{insecure}");
        // It still has its own processes and its own name.
        let processes = insecure.strip_prefix(&expected).unwrap().lines().next().unwrap();
        assert!(processes.trim().parse::<u32>().unwrap() < 6, "{insecure}");
    }
    assert_eq!(nix::unistd::gethostname().unwrap().into_string().unwrap(), host);
    let sandbox = seen("", &[]);
    assert!(
        sandbox.starts_with("CapEff:\t00000000a80425fb\nNoNewPrivs:\t0\nSeccomp:\t2\n"),
        "{sandbox}"
    );
    for word in ["mounted", "loops", "\nset", "writable"] {
        assert!(!sandbox.contains(word), "{word}: {sandbox}");
    }
}

#[test]
fn processes_are_the_hosts_and_end_with_the_container() {
    if skip("processes_are_the_hosts_and_end_with_the_container", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let own = std::process::id();
    let look = format!("test -d /proc/{own} && echo seen; test $$ != 1 && echo other");
    assert_eq!(root(&kiln, &["--pid", "private"], &look).stdout, "");
    for (number, runtime) in runtimes().into_iter().enumerate() {
        let word = format!("9{number}.{own}");
        let runs =
            || execute(Command::new("pgrep").args(["-f", &format!("^sleep {word}$")])).code == 0;
        let shared = [&["--pid", "host"], runtime].concat();
        assert_eq!(root(&kiln, &shared, &look).success(), "seen\nother\n", "{runtime:?}");
        // Its remaining processes end with it, even in sessions of their own.
        let leave = format!(
            "setsid sh -c 'sleep {word} & sleep {word}' >/dev/null 2>&1 & sleep 0.3; exit 3"
        );
        assert_eq!(root(&kiln, &shared, &leave).code, 3, "{runtime:?}");
        assert!(!runs(), "{runtime:?}");
        // The container dies with kiln.
        let options = ["run", "--rm", "-u", "0", "--network", "none", "--pid", "host"];
        let script = format!("sleep {word} & sleep {word}");
        let arguments = [&options[..], runtime, &["img", "sh", "-c", &script]].concat();
        let mut running = kiln.command(&arguments).stdout(Stdio::null()).spawn().unwrap();
        wait_until("the container runs", runs);
        running.kill().unwrap();
        running.wait().unwrap();
        wait_until("the container is gone", || !runs());
    }
    let init = root(
        &kiln,
        &["--pid", "host", "--init"],
        "(sleep 0.1 &); sleep 0.4; ps -o stat,comm | grep -c '^Z.*sleep'",
    );
    assert_eq!(init.stdout, "0\n", "{}", init.stderr);
}

#[test]
fn process_1_of_runc_is_kilns_own() {
    let needs = [Need::Root, Need::Program("runc")];
    if skip("process_1_of_runc_is_kilns_own", &needs) {
        return;
    }
    let kiln = prepared();
    let options = ["--oci-runtime", "runc", "--init"];
    let is_static = !execute(Command::new("ldd").arg(kiln.binary())).stdout.contains("=>");
    if !is_static {
        let refused = root(&kiln, &options, "true");
        assert_eq!(refused.code, 125);
        assert!(refused.stderr.contains("it takes a static kiln"), "{}", refused.stderr);
    }
    // The libraries of the kiln under test.
    let libraries: Vec<String> = ["/lib", "/lib64", "/usr/lib", "/usr/lib64"]
        .into_iter()
        .filter(|path| Path::new(path).is_dir())
        .map(|path| format!("{path}:{path}:ro"))
        .collect();
    let mut typed = options.to_vec();
    typed.extend(libraries.iter().flat_map(|volume| ["-v", volume.as_str()]));
    let script = "(sleep 0.1 &); sleep 0.3; ps -o comm,stat | grep -c Z; cat /proc/1/comm; trap 'exit 7' TERM; kill -TERM 1; sleep 1 & wait";
    let seen = root(&kiln, &typed, script);
    assert_eq!((seen.code, seen.stdout.as_str()), (7, "0\nkiln-init\n"), "{}", seen.stderr);
    let command =
        [&["run", "--rm", "-u", "0", "--network", "none"], &typed[..], &["img", "nope"]].concat();
    let missing = kiln.run(&command);
    assert_eq!(missing.code, 127, "{}", missing.stderr);
    assert!(missing.stderr.contains("\"nope\": executable file not found"), "{}", missing.stderr);
}

#[test]
fn names_streams_and_memory_are_chosen() {
    if skip("names_streams_and_memory_are_chosen", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    for runtime in runtimes() {
        let says = |options: &[&str], script: &str| {
            root(&kiln, &[options, runtime].concat(), script).success()
        };
        let named = says(
            &["-h", "box", "--domainname", "x.test"],
            "cat /proc/sys/kernel/domainname; grep box /etc/hosts",
        );
        assert_eq!(named, "x.test\n127.0.0.1\tbox.x.test box\n", "{runtime:?}");
        assert_eq!(
            says(&["--ipc", "none"], "grep -c ' /dev/shm ' /proc/mounts; true"),
            "0\n",
            "{runtime:?}"
        );
        let host = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let seen = says(&["--cgroupns", "host"], "cat /proc/self/cgroup");
        assert_eq!(seen.lines().count(), host.lines().count());
        let own = says(&["--cgroupns", "private"], "cat /proc/self/cgroup");
        assert!(own.lines().all(|line| line.ends_with(":/")), "{runtime:?}: {own}");
        says(&["--annotation", "org.example=x", "--isolation", "default"], "true");
    }
    let both = "echo out; echo err >&2; cat";
    let attached = |streams: &[&str]| {
        let options: Vec<&str> = streams.iter().flat_map(|name| ["-a", name]).collect();
        let output = root(&kiln, &options, both);
        (output.stdout, output.stderr)
    };
    assert_eq!(attached(&["stdout"]), ("out\n".to_owned(), String::new()));
    assert_eq!(attached(&["STDERR"]), (String::new(), "err\n".to_owned()));
    assert_eq!(attached(&["stdout", "stderr"]), ("out\n".to_owned(), "err\n".to_owned()));
    assert_eq!(root(&kiln, &["-a", "out"], "true").code, 125);
    // A variable that isn't set here isn't set in the container either.
    assert_eq!(
        root(&kiln, &["-e", "PATH_NOT_SET", "-e", "A="], "env | grep -E '^(A|PATH_)'").success(),
        "A=\n"
    );
    let limits =
        root(&kiln, &["-m", "64m", "--memory-swappiness", "0", "--oom-kill-disable"], "echo ran");
    assert_eq!(limits.success(), "ran\n");
}

/// Runs a shell script in a mount namespace of its own.
fn apart(kiln: &Kiln, script: &str) -> kiln_testkit::Output {
    let mut command = Command::new("unshare");
    command.args(["-m", "--propagation", "private", "sh", "-e", "-c", script]);
    let arguments = ["run", "--rm", "-u", "0", "--network", "none"];
    let template = kiln.command(&arguments);
    command.arg("sh").arg(template.get_program()).args(template.get_args());
    for (name, value) in template.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    if let Some(directory) = template.get_current_dir() {
        command.current_dir(directory);
    }
    execute(&mut command)
}

#[test]
fn mounts_come_and_go_as_they_are_linked() {
    let needs = [Need::Root, Need::Program("unshare")];
    if skip("mounts_come_and_go_as_they_are_linked", &needs) {
        return;
    }
    let kiln = prepared();
    let place = kiln.path("linked");
    std::fs::create_dir_all(&place).unwrap();
    let at = |path: &Path| path.display().to_string();
    let place = at(&place);
    let wait = "n=0; until test -e";
    let until = "; do n=$((n + 1)); test $n -lt 200 || exit 9; sleep 0.05; done";
    for runtime in runtimes() {
        let runtime = runtime.join(" ");
        // The host mounts a file system, and the container sees it if the mounts are linked.
        let comes = |mode: &str| {
            let script = format!(
                "mount -t tmpfs none {place}; mount --make-shared {place}; mkdir {place}/sub; \
                 \"$@\" {runtime} -v {place}:/x:{mode} img sh -c 'touch /x/ready; {wait} /x/go{until}; ls /x/sub' & \
                 {wait} {place}/ready{until}; mount -t tmpfs none {place}/sub; touch {place}/sub/new {place}/go; wait $!"
            );
            apart(&kiln, &script).success()
        };
        assert_eq!(comes("rslave"), "new\n", "{runtime}");
        assert_eq!(comes("rshared"), "new\n", "{runtime}");

        assert_eq!(comes("rprivate"), "", "{runtime}");
        // The container mounts a file system, and the host sees it if the mounts are linked in both
        // directions.
        let goes = |mode: &str| {
            let script = format!(
                "mount -t tmpfs none {place}; mount --make-shared {place}; mkdir {place}/sub; \
                 \"$@\" {runtime} --cap-add SYS_ADMIN --mount type=bind,src={place},dst=/x,bind-propagation={mode} img \
                 sh -c 'mount -t tmpfs none /x/sub && touch /x/sub/inner /x/ready; {wait} /x/go{until}' & \
                 {wait} {place}/ready{until}; ls {place}/sub; touch {place}/go; wait $!"
            );
            apart(&kiln, &script).success()
        };
        assert_eq!(goes("rshared"), "inner\n", "{runtime}");
        assert_eq!(goes("slave"), "", "{runtime}");
    }
    let private = format!("mount -t tmpfs none {place}; \"$@\" -v {place}:/x:shared img true");
    let refused = apart(&kiln, &private);
    assert_eq!(refused.code, 125);
    let expected = format!("path {place} is mounted on {place} but it is not a shared mount");
    assert!(refused.stderr.contains(&expected), "{}", refused.stderr);
}

#[test]
fn a_platform_that_the_store_lacks_is_fetched() {
    let needs = [Need::Root, Need::Program("docker-registry")];
    if skip("a_platform_that_the_store_lacks_is_fetched", &needs) {
        return;
    }
    let (registry, kiln) = (DockerRegistry::start(), kiln());
    let name = format!("{}/two:1", registry.address());
    // The programs are this machine's, although the image is for other platforms.
    let dockerfile = "FROM --platform=$BUILDPLATFORM base AS cross\nARG TARGETARCH\nRUN echo $TARGETARCH > /arch\n\
                      FROM scratch\nCOPY --from=cross / /\n";
    let output = format!("type=registry,name={name}");
    let platforms = ["--platform", "linux/amd64,linux/arm64", "-o", &output];
    kiln.build_text(dockerfile, &platforms).success();
    kiln.run(&["system", "prune", "-a", "-f"]).success();
    kiln.run(&["pull", "--platform", "linux/amd64", &name]).success();
    let _ = registry.take_log();
    let says = |options: &[&str]| {
        kiln.run(
            &[&["run", "--rm", "--network", "none"], options, &[&name, "cat", "/arch"]].concat(),
        )
    };
    assert_eq!(says(&["--platform", "linux/amd64"]).success(), "amd64\n");
    assert_eq!(registry.take_log(), [""; 0], "the store has it");
    let refused = says(&["--platform", "linux/arm64", "--pull", "never"]);
    assert!(refused.code == 125 && refused.stderr.contains("linux/arm64"), "{}", refused.stderr);
    assert_eq!(says(&["--platform", "linux/arm64"]).success(), "arm64\n");
    let fetched = registry.take_log();
    assert!(fetched.iter().any(|line| line.contains("/two/blobs/")), "{fetched:#?}");
    // From now on the store has both platforms.
    assert_eq!(says(&["--platform", "linux/arm64"]).success(), "arm64\n");
    assert_eq!(says(&["--platform", "linux/amd64"]).success(), "amd64\n");
    assert_eq!(registry.take_log(), [""; 0]);
    let missing = says(&["--platform", "linux/s390x"]);
    assert!(missing.code == 125 && missing.stderr.contains("linux/s390x"), "{}", missing.stderr);
}
