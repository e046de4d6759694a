//! Tests of options that replace the defaults.

use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::PathBuf;

use kiln_sandbox::{
    CallFilter, Capabilities, Exit, Mount, MountKind, Network, Security, Sysctl, TmpfsOptions, User,
};

use crate::Test;
use crate::room::Room;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("setuid_programs_gain_the_bounding_set", setuid),
    ("capabilities_are_those_that_were_chosen", capabilities),
    ("a_program_can_be_unfiltered", unfiltered),
    ("a_privileged_program_has_everything_where_it_is_root", privileged),
    ("groups_are_added", groups),
    ("process_1_reaps_and_passes_on", init),
    ("namespaces_can_be_shared_and_set", namespaces),
    ("file_systems_in_memory_have_options", tmpfs),
    ("devices_are_passed", devices),
];

/// Lets every user become root by a setuid program.
fn allow_su(room: &Room) {
    let su = room.path("base/bin/su");
    std::fs::copy("/bin/busybox", &su).unwrap();
    std::fs::set_permissions(&su, PermissionsExt::from_mode(0o4755)).unwrap();
    let passwd = "root::0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n";
    std::fs::write(room.path("base/etc/passwd"), passwd).unwrap();
}

fn setuid(room: &Room) {
    allow_su(room);
    let script = "/bin/su -c 'id -u; grep -E \"CapEff|CapBnd|Seccomp:\" /proc/self/status; \
                  mount -t tmpfs none /tmp && echo mounted; unshare -m true && echo unshared'";
    let mut spec = room.script(script);
    spec.process.user = User::Named("bob".to_owned());
    let seen = room.run(&spec);
    let expected = "0\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nSeccomp:\t2\n";
    assert_eq!(seen.stdout, expected, "{}", seen.stderr);
    spec.privileges.no_new_privileges = true;
    let outcome = room.run(&spec);
    assert_eq!(outcome.stdout, "", "{}", outcome.stderr);
    // A setuid program may also be the program itself.
    spec.privileges.no_new_privileges = false;
    spec.process.args = ["su", "-c", "id -u"].map(str::to_owned).to_vec();
    assert_eq!(room.run(&spec).ok(), "0\n");
}

fn capabilities(room: &Room) {
    let mut spec = room.script(
        "grep -E 'CapEff|CapBnd|Seccomp:' /proc/self/status; \
         mount -t tmpfs none /tmp && echo mounted; chown 5 /tmp && echo changed; \
         chroot / true && echo root",
    );
    let admin = Capabilities::named("SYS_ADMIN").unwrap();
    spec.privileges.capabilities = Capabilities::DEFAULT | admin;
    let more = "00000000a82425fb";
    let expected =
        format!("CapEff:\t{more}\nCapBnd:\t{more}\nSeccomp:\t2\nmounted\nchanged\nroot\n");
    assert_eq!(room.run(&spec).ok(), expected);
    spec.process.user = User::Named("bob".to_owned());
    let expected = format!("CapEff:\t0000000000000000\nCapBnd:\t{more}\nSeccomp:\t2\n");
    assert_eq!(room.run(&spec).stdout, expected);
    spec.process.user = User::Named(String::new());
    spec.privileges.capabilities = Capabilities::NONE;
    let none = "0000000000000000";
    let expected = format!("CapEff:\t{none}\nCapBnd:\t{none}\nSeccomp:\t2\n");
    assert_eq!(room.run(&spec).stdout, expected);
}

fn unfiltered(room: &Room) {
    let mut spec = room.script("grep -E 'CapEff|Seccomp:' /proc/self/status");
    spec.privileges.calls = CallFilter::Unconfined;
    assert_eq!(room.run(&spec).ok(), "CapEff:\t00000000a80425fb\nSeccomp:\t0\n");
}

fn privileged(room: &Room) {
    let all = std::fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find(|line| line.starts_with("CapEff")).unwrap();
    let mut spec = room.script("grep -E 'CapEff' /proc/self/status; ls /dev");
    spec.security = Security::Privileged;
    let seen = room.run(&spec).ok();
    assert!(seen.starts_with(&format!("{all}\n")), "{seen}");
    for entry in std::fs::read_dir("/dev").unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        // Each container has its own of these.
        let is_own = matches!(name.as_str(), "console" | "ptmx");
        if entry.file_type().unwrap().is_char_device() && !is_own {
            assert!(seen.lines().any(|line| line == name), "{name}: {seen}");
        }
    }
    spec.process.user = User::Named("bob".to_owned());
    assert!(room.run(&spec).ok().starts_with("CapEff:\t0000000000000000\n"));
}

fn groups(room: &Room) {
    let mut spec = room.script("id -G");
    spec.process.groups = ["staff", "77", "0"].map(str::to_owned).to_vec();
    assert_eq!(room.run(&spec).ok(), "0 50 77\n");
    spec.process.groups = vec!["nobody-here".to_owned()];
    let error = room.run(&spec).setup_error();
    assert_eq!(error, "unable to find group nobody-here: no matching entries in group file");
}

fn init(room: &Room) {
    let mut spec = room.script("echo $$; readlink /proc/1/fd/1; sh -c 'sleep 0.2 &'; exit 7");
    spec.process.has_init = true;
    let outcome = room.run(&spec);
    assert_eq!((outcome.stdout.as_str(), outcome.exit.unwrap()), ("2\n", Exit::Code(7)));
    // Process 1 forwards signals that it would ignore itself.
    let mut spec = room.script("kill -TERM 1; sleep 5; echo late");
    spec.process.has_init = true;
    let outcome = room.run(&spec);
    assert_eq!((outcome.stdout.as_str(), outcome.exit.unwrap()), ("", Exit::Code(143)));
    let mut spec = room.spec(&["nothing-there"]);
    spec.process.has_init = true;
    assert!(room.run(&spec).exit.is_err());
}

fn namespaces(room: &Room) {
    let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
    let mut spec = room.script(
        "readlink /proc/self/ns/ipc; readlink /proc/self/ns/uts; \
         cat /proc/sys/net/ipv4/ip_default_ttl /proc/self/oom_score_adj",
    );
    spec.network = Network::None;
    let (name, value) = ("net.ipv4.ip_default_ttl".to_owned(), "77".to_owned());
    spec.sysctls.push(Sysctl { name, value });
    spec.process.oom_score_adj = Some(123);
    let apart = room.run(&spec).ok();
    assert!(apart.ends_with("\n77\n123\n"), "{apart}");
    for kind in ["ipc", "uts"] {
        assert!(!apart.contains(own(kind).to_str().unwrap()), "{apart}");
    }
    (spec.shared.ipc, spec.shared.uts) = (true, true);
    let shared = room.run(&spec).ok();
    for kind in ["ipc", "uts"] {
        assert!(shared.contains(own(kind).to_str().unwrap()), "{shared}");
    }
    "net.no.such".clone_into(&mut spec.sysctls[0].name);
    assert!(room.run(&spec).setup_error().starts_with("set net.no.such to 77: "));
}

fn tmpfs(room: &Room) {
    let mut spec = room.script(
        "grep ' /t ' /proc/mounts; stat -c '%a %u %g' /t; touch /t/a; touch /t/b; touch /t/c",
    );
    let options =
        TmpfsOptions { noexec: true, inodes: Some(3), uid: 5, gid: 6, ..Default::default() };
    let kind = MountKind::Tmpfs { size: Some(1 << 20), mode: 0o700, options };
    spec.mounts.push(Mount { target: "/t".into(), kind });
    let outcome = room.run(&spec);
    for word in ["nosuid,nodev,noexec", "size=1024k", "nr_inodes=3", "\n700 5 6\n"] {
        assert!(outcome.stdout.contains(word), "{word}: {}", outcome.stdout);
    }
    assert!(outcome.stderr.contains("/t/c"), "{}", outcome.stderr);
}

fn devices(room: &Room) {
    let mut spec = room.script("head -c 3 /dev/mine | wc -c; head -c 4 /etc/mine | wc -c");
    for target in ["/dev/mine", "/etc/mine"] {
        let kind = MountKind::Device("/dev/zero".into());
        spec.mounts.push(Mount { target: target.into(), kind });
    }
    assert_eq!(room.run(&spec).ok(), "3\n4\n");
    spec.mounts[0].kind = MountKind::Device(PathBuf::from("/etc/passwd"));
    let error = room.run(&spec).setup_error();
    assert_eq!(error, "mount at /dev/mine: mount device /etc/passwd: it is no device");
}
