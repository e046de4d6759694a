//! `kiln run`'s options for rights, mounts and names of containers.

use kiln_testkit::{Kiln, Need, skip};

use crate::kiln;

pub(crate) fn run(kiln: &Kiln, options: &[&str], script: &str) -> kiln_testkit::Output {
    let command = ["img", "sh", "-c", script];
    kiln.run(&[&["run", "--rm"], options, &command].concat())
}

/// Builds the image `img` with a setuid program.
pub(crate) fn prepared() -> Kiln {
    let kiln = kiln();
    let dockerfile = "FROM base\nRUN rm -f /bin/su && cp /bin/busybox /bin/su && chmod 4755 /bin/su && \
                      echo root::0:0:root:/:/bin/sh > /etc/passwd && \
                      echo bob:x:1000:1000::/:/bin/sh >> /etc/passwd && echo staff:x:50: > /etc/group\n\
                      USER bob\nRUN test \"$(/bin/su -c 'id -u')\" = 0\n\
                      VOLUME relvol\nWORKDIR /w\n";
    kiln.build_text(dockerfile, &["-t", "img"]).success();
    kiln
}

#[test]
fn privileges_are_chosen() {
    if skip("privileges_are_chosen", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    let says = |options: &[&str], script: &str| run(&kiln, options, script).success();
    assert_eq!(says(&[], "/bin/su -c 'id -u'"), "0\n");
    let refused = run(&kiln, &["--security-opt", "no-new-privileges"], "/bin/su -c 'id -u'");
    assert_eq!(refused.stdout, "");
    assert_eq!(says(&["--group-add", "staff", "--group-add", "9"], "id -G"), "1000 9 50\n");
    let root =
        |options: &[&str], script: &str| run(&kiln, &[&["-u", "0"], options].concat(), script);
    assert_ne!(root(&["--cap-drop", "CHOWN"], "chown 5 /w").code, 0);
    root(&["--cap-add", "SYS_ADMIN"], "mount -t tmpfs none /w").success();
    let seccomp = "grep Seccomp: /proc/self/status";
    let unconfined = root(&["--security-opt", "seccomp=unconfined"], seccomp).success();
    assert_eq!(unconfined, "Seccomp:\t0\n");
    let privileged = root(&["--privileged"], "mount -t tmpfs none /w && echo mounted");
    assert!(privileged.stderr.contains("WARNING: --privileged gives"), "{}", privileged.stderr);
    assert_eq!(privileged.success(), "mounted\n");
    assert_eq!(
        root(&["--device", "/dev/zero:/dev/mine"], "head -c 2 /dev/mine | wc -c").success(),
        "2\n"
    );
    assert_eq!(root(&["--init"], "echo $$").success(), "2\n");
    let sysctl = ["--network", "none", "--sysctl", "net.ipv4.ip_default_ttl=33"];
    assert_eq!(root(&sysctl, "cat /proc/sys/net/ipv4/ip_default_ttl").success(), "33\n");
    assert_eq!(root(&["--oom-score-adj", "7"], "cat /proc/self/oom_score_adj").success(), "7\n");
    assert_eq!(root(&["--sysctl", "vm.swappiness=1"], "true").code, 125);
    assert_eq!(root(&["--cap-add", "NOPE"], "true").code, 125);
}

#[test]
fn mounts_and_names_are_chosen() {
    if skip("mounts_and_names_are_chosen", &[Need::Root]) {
        return;
    }
    let kiln = prepared();
    kiln.write("shared/f", "host\n");
    let shared = kiln.path("shared").display().to_string();
    let says = |options: &[&str], script: &str| run(&kiln, options, script).success();
    assert_eq!(says(&[], "grep -c ' /relvol ' /proc/mounts; pwd"), "1\n/w\n");
    let bound = format!("type=bind,src={shared},dst=/m,readonly");
    assert_eq!(
        says(&["--mount", &bound], "cat /m/f; touch /m/g 2>/dev/null || echo ro"),
        "host\nro\n"
    );
    let missing = format!("type=bind,src={shared}/none,dst=/m");
    assert_eq!(run(&kiln, &["--mount", &missing], "true").code, 125);
    let memory =
        ["--mount", "type=tmpfs,dst=/m,tmpfs-size=1m,tmpfs-mode=0700", "--tmpfs", "/n:exec"];
    let seen = says(&memory, "grep -E ' /[mn] ' /proc/mounts");
    let (m, n) = seen.split_once('\n').unwrap();
    assert!(m.contains("nosuid,nodev,noexec") && m.contains("mode=700"), "{seen}");
    assert!(n.contains("nosuid,nodev") && !n.contains("noexec"), "{seen}");
    // A subdirectory of a volume. The volume is filled unless an option prevents it.
    says(&["-u", "0", "-v", "kept:/w"], "mkdir -p /w/a && echo part > /w/a/f");
    let part = ["--mount", "src=kept,dst=/p,volume-subpath=a,ro"];
    assert_eq!(says(&part, "cat /p/f"), "part\n");
    assert_eq!(says(&["-v", "empty:/etc:nocopy"], "ls /etc | grep -v -E 'resolv|host'; true"), "");
    // Names of the container.
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert_eq!(says(&["--network", "host"], "hostname").trim(), host);
    assert_eq!(says(&["-h", "box", "-w", ""], "hostname; pwd"), "box\n/w\n");
    assert_eq!(says(&["-h", ""], "hostname").trim().len(), 12);
    let names = ["--network", "none", "--dns", "192.0.2.1", "--dns-search", "x.test"];
    let resolv = says(&names, "cat /etc/resolv.conf");
    assert!(resolv.contains("nameserver 192.0.2.1\nsearch x.test\n"), "{resolv}");
    let id = kiln.path("id").display().to_string();
    let name = says(&["--cidfile", &id], "hostname");
    let written = std::fs::read_to_string(&id).unwrap();
    assert!(written.len() == 64 && written.starts_with(name.trim()), "{written} {name}");
    let again = run(&kiln, &["--cidfile", &id], "true");
    assert!(again.code == 125 && again.stderr.contains("is there already"), "{}", again.stderr);
    // kiln accepts these options without effect.
    let accepted =
        ["--label", "a=b", "--health-cmd", "true", "--stop-signal", "INT", "--expose", "80"];
    says(&accepted, "true");
}
