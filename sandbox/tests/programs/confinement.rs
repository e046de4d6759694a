//! Tests of forbidden actions.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use kiln_sandbox::{Exit, Network, Security, User};

use crate::Test;
use crate::room::Room;

pub(crate) const TESTS: &[(&str, Test)] = &[
    ("capabilities_and_filters_are_dockers", capabilities),
    ("another_user_has_no_capabilities", other_user),
    ("forbidden_calls_are_refused", forbidden_calls),
    ("programs_of_32_bits_run_and_are_filtered", narrow),
    ("no_network_is_no_network", no_network),
    ("proc_and_sys_are_masked", masks),
    ("modes_in_proc_stay", shared_modes),
    ("devices_work_and_others_do_not", devices),
    ("the_host_s_program_can_not_be_overwritten", overwrite_program),
    ("an_insecure_program_has_everything", insecure),
];

fn status_of(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(&format!("{name}:")));
    line.unwrap_or_default().split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

fn capabilities(room: &Room) {
    let status = room.spec(&["cat", "/proc/self/status"]);
    let status = room.run(&status).ok();
    for (name, value) in [
        ("CapInh", "0000000000000000"),
        ("CapPrm", "00000000a80425fb"),
        ("CapEff", "00000000a80425fb"),
        ("CapBnd", "00000000a80425fb"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "0"),
        ("Seccomp", "2"),
        ("Groups", "0"),
        ("SigIgn", "0000000000000000"),
        ("SigBlk", "0000000000000000"),
    ] {
        assert_eq!(status_of(&status, name), value, "{name}");
    }
}

fn other_user(room: &Room) {
    let mut spec = room.script("cat /proc/self/status; id; echo err >/dev/stderr; echo $HOME");
    spec.process.user = User::Named("bob".to_owned());
    let seen = room.run(&spec);
    assert_eq!(seen.stderr, "err\n");
    let seen = seen.ok();
    assert_eq!(status_of(&seen, "CapEff"), "0000000000000000");
    assert_eq!(status_of(&seen, "CapPrm"), "0000000000000000");
    assert_eq!(status_of(&seen, "CapBnd"), "00000000a80425fb");
    assert!(seen.contains("uid=1000(bob) gid=1000(bob) groups=50(staff),1000(bob)"), "{seen}");
    assert!(seen.ends_with("/home/bob\n"));
    spec.process.user = User::Named("nobody-here".to_owned());
    let error = room.run(&spec).setup_error();
    assert_eq!(error, "unable to find user nobody-here: no matching entries in passwd file");
    spec.process.user = User::Named("4294967295".to_owned());
    assert!(room.run(&spec).setup_error().contains("must be in range"));
}

fn forbidden_calls(room: &Room) {
    for script in [
        "mount -t tmpfs none /tmp",
        "umount /proc",
        "unshare -U true",
        "unshare -m true",
        "echo x > /proc/sys/kernel/hostname",
        "mount -o remount,rw /sys",
        "hostname other",
    ] {
        let outcome = room.sh(&format!("{script} && echo DONE"));
        assert!(!outcome.stdout.contains("DONE"), "{script} works");
    }
    // Threads and processes still start although clone3 fails.
    assert_eq!(room.sh("(echo a) | cat").ok(), "a\n");
}

/// A static program of i386: writes `32` and exits with the errno of a refused call.
const NARROW: [u8; 142] = {
    const CODE: [u8; 58] = [
        0xb8, 4, 0, 0, 0, 0xbb, 1, 0, 0, 0, // write(1,
        0xb9, 0x8b, 0x80, 0x04, 0x08, 0xba, 3, 0, 0, 0, 0xcd, 0x80, // text, 3)
        0xb8, 136, 0, 0, 0, 0xbb, 0, 0, 4, 0, 0xcd, 0x80, // personality(ADDR_NO_RANDOMIZE)
        0xf7, 0xd8, 0x89, 0xc3, 0xb8, 1, 0, 0, 0, 0xcd, 0x80, // exit(-what it returned)
        0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, b'3', b'2', b'\n',
    ];
    const HEADER: [u8; 84] = [
        0x7f, b'E', b'L', b'F', 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, // 32 bits
        2, 0, 3, 0, 1, 0, 0, 0, 0x54, 0x80, 0x04, 0x08, 52, 0, 0, 0, // i386, entry
        0, 0, 0, 0, 0, 0, 0, 0, 52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0, // one segment
        1, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x04, 0x08, 0, 0x80, 0x04, 0x08, // the whole file
        142, 0, 0, 0, 142, 0, 0, 0, 5, 0, 0, 0, 0, 0x10, 0, 0,
    ];
    let mut all = [0; 142];
    let mut at = 0;
    while at < all.len() {
        all[at] = if at < HEADER.len() { HEADER[at] } else { CODE[at - HEADER.len()] };
        at += 1;
    }
    all
};

fn narrow(room: &Room) {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let path = room.path("base/bin/narrow");
    std::fs::write(&path, NARROW).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    let Ok(host) = std::process::Command::new(&path).output() else {
        assert!(std::env::var_os("CI").is_none(), "this kernel runs no programs of 32 bits");
        println!("skipped: this kernel runs no programs of 32 bits");
        return;
    };
    assert_eq!((host.status.code(), host.stdout.as_slice()), (Some(0), &b"32\n"[..]));
    let outcome = room.run(&room.spec(&["narrow"]));
    assert_eq!(outcome.stdout, "32\n");
    assert_eq!(outcome.exit.unwrap(), Exit::Code(libc::EPERM));
}

fn no_network(room: &Room) {
    let mut spec = room.script("ls /sys/class/net; cat /proc/net/route | wc -l");
    spec.network = Network::None;
    assert_eq!(room.run(&spec).ok(), "lo\n1\n");
    let script = "cd /proc/sys/net/ipv4; cat ip_unprivileged_port_start ping_group_range";
    let mut open = room.script(script);
    open.network = Network::None;
    let seen = room.run(&open).ok();
    let words: Vec<&str> = seen.split_whitespace().collect();
    assert_eq!(words, ["0", "0", "2147483647"], "any port, and pings by any group");
    spec.network = Network::Host;
    let host = std::fs::read_dir("/sys/class/net").unwrap().count();
    let seen = room.run(&spec).ok();
    assert_eq!(seen.lines().count(), host + 1);
}

fn masks(room: &Room) {
    let script = "for f in /proc/keys /proc/timer_list /proc/kcore; do \
                  test -e $f || continue; echo $f $(cat $f | wc -c); done; \
                  for d in /proc/scsi /proc/acpi /sys/firmware; do \
                  test -e $d || continue; echo $d $(ls $d | wc -l) $(stat -f -c %T $d); done; \
                  for f in /proc/sysrq-trigger /proc/sys/kernel/core_pattern /proc/irq/x \
                  /sys/kernel/mm/x /proc/bus/x; do \
                  (echo c > $f) 2>/dev/null && echo WRITTEN $f; done; true";
    let core_pattern = std::fs::read("/proc/sys/kernel/core_pattern").unwrap();
    let seen = room.sh(script).ok();
    assert!(!seen.contains("WRITTEN"), "{seen}");
    for line in seen.lines() {
        let mut words = line.split(' ').skip(1);
        assert_eq!(words.next(), Some("0"), "{line}");
        assert!(words.next().is_none_or(|kind| kind == "tmpfs"), "{line}");
    }
    assert!(seen.contains("/proc/timer_list") || seen.contains("/proc/keys"), "{seen}");
    assert_eq!(std::fs::read("/proc/sys/kernel/core_pattern").unwrap(), core_pattern);
}

/// The kernel shares one mode among all programs of the machine.
fn shared_modes(room: &Room) {
    let modes = || {
        let mode = |path| std::fs::metadata(path).unwrap().mode();
        ["/proc/version", "/proc/driver", "/proc/tty/drivers", "/proc/meminfo"].map(mode)
    };
    let before = modes();
    let script = "for f in version driver tty/drivers meminfo; do \
                  chmod 0700 /proc/$f 2>/dev/null && echo CHANGED $f; \
                  chown 7 /proc/$f 2>/dev/null && echo GIVEN $f; done; \
                  echo 7 > /proc/self/oom_score_adj; echo mine > /proc/self/comm; \
                  cat /proc/self/oom_score_adj; head -n 1 /proc/version | cut -c 1-5";
    let mut spec = room.script(script);
    spec.protects_proc = true;
    assert_eq!(room.run(&spec).ok(), "7\nLinux\n");
    assert_eq!(modes(), before);
}

fn devices(room: &Room) {
    let script = "set -e; echo x > /dev/null; head -c 4 /dev/zero | wc -c; \
                  head -c 4 /dev/urandom | wc -c; ls /dev; \
                  mknod /tmp/null c 1 3; mknod /tmp/disk b 8 0; mknod /dev/disk b 8 0; \
                  for f in /tmp/null /tmp/disk /dev/disk; do \
                  if dd if=$f of=/dev/stdout count=1 2>/dev/null; then echo OPENED $f; fi; done; \
                  chmod 600 /dev/null; stat -c %a /dev/null; echo x > /dev/shm/x; \
                  echo y > /dev/stdout; ls /dev/mqueue";
    let host = std::fs::metadata("/dev/null").unwrap();
    let seen = room.sh(script).ok();
    let core = if std::path::Path::new("/proc/kcore").exists() { "core\n" } else { "" };
    let expected = "4\n4\nCOREfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\n\
                    stdout\ntty\nurandom\nzero\n600\ny\n";
    assert_eq!(seen, expected.replace("CORE", core));
    let after = std::fs::metadata("/dev/null").unwrap();
    assert_eq!((host.mode(), host.ctime()), (after.mode(), after.ctime()));
    assert_eq!(room.changes(), ["/tmp", "/tmp/disk", "/tmp/null"]);
}

fn overwrite_program(room: &Room) {
    let program = std::env::current_exe().unwrap();
    let before = std::fs::metadata(&program).unwrap();
    let script = "for f in /proc/*/exe; do (echo x >> $f) 2>/dev/null; done; true";
    room.sh(script).ok();
    // The program is the container's own init. It must reach the helper's copy only.
    let mut spec = room.spec(&["/init"]);
    symlink("/proc/self/exe", room.path("base/init")).unwrap();
    spec.process.env.clear();
    let outcome = room.run(&spec);
    assert!(!matches!(outcome.exit, Ok(Exit::Code(0))));
    let after = std::fs::metadata(&program).unwrap();
    assert_eq!((before.size(), before.ctime()), (after.size(), after.ctime()));
}

fn insecure(room: &Room) {
    let script = "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; \
                  mount -t tmpfs none /tmp && echo mounted; \
                  grep -q ' /sys sysfs rw' /proc/mounts && mknod /dev/mine c 1 3 && echo x > /dev/mine && echo open; \
                  test -c /dev/net/tun -a -b /dev/loop7 && echo devices; \
                  mount | grep -c ' on /proc/'";
    let mut spec = room.script(script);
    let all = own_capabilities();
    for user in ["", "bob"] {
        spec.process.user = User::Named(user.to_owned());
        spec.security = Security::Sandbox;
        let confined = room.run(&spec).stdout;
        assert!(!confined.contains(&all) && confined.contains("NoNewPrivs:\t0"), "{confined}");
        for word in ["mounted", "open", "devices"] {
            assert!(!confined.contains(word), "{confined}");
        }
        spec.security = Security::Insecure;
        let free = room.run(&spec).stdout;
        let expected =
            format!("CapEff:\t{all}\nNoNewPrivs:\t0\nSeccomp:\t0\nmounted\nopen\ndevices\n0\n");
        assert_eq!(free, expected, "{user}");
    }
}

/// Returns the capabilities of this process.
fn own_capabilities() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:\t"));
    line.unwrap().to_owned()
}
