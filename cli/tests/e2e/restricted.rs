//! Containers and pods that allow only parts of what kiln's isolation uses.

use std::path::PathBuf;
use std::process::Command;

use kiln_testkit::environment::{run, run_first};
use kiln_testkit::{Kiln, Need, skip};

const BINARY: &str = env!("CARGO_BIN_EXE_kiln");

/// A program that runs another one without some system calls, as Docker's profile refuses them.
const DENY: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int argc, char **argv) {
    int call = strcmp(argv[1], "unshare") == 0 ? SYS_unshare : SYS_pivot_root;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {4, filter};
    if (geteuid() != 0) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) { perror("seccomp"); return 1; }
    execvp(argv[2], argv + 2);
    perror(argv[2]);
    return 1;
}
"#;

/// A program that leaves a changed root in all known ways, and then looks for a file.
const ESCAPE: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
static void look(const char *way, const char *file) {
    printf("%s: %s\n", way, access(file, F_OK) == 0 ? "escaped" : "inside");
}
int main(int argc, char **argv) {
    int top = open("/", O_RDONLY | O_DIRECTORY);
    look("root", argv[1]);
    for (int n = 0; n < 100; n++) if (chdir("..") != 0) break;
    look("above", argv[1] + 1);
    if (mkdir("/away", 0700) != 0 || chroot("/away") != 0) { perror("chroot"); return 1; }
    if (fchdir(top) != 0) { perror("fchdir"); return 1; }
    for (int n = 0; n < 100; n++) if (chdir("..") != 0) break;
    look("below", argv[1] + 1);
    if (chroot(".") != 0) { perror("chroot ."); return 1; }
    look("again", argv[1]);
    return 0;
}
"#;

/// Compiles a C program. Other users can execute it.
fn compile(kiln: &Kiln, name: &str, text: &str) -> PathBuf {
    let source = kiln.write(&format!("{name}.c"), text);
    let program = kiln.path(name);
    let mut cc = Command::new("cc");
    run(cc.args(["-static", "-o"]).arg(&program).arg(source)).success();
    program
}

/// Returns a script that runs its arguments without a system call.
fn without(kiln: &Kiln, call: &str) -> String {
    format!("exec {} {call} \"$@\"", compile(kiln, "deny", DENY).display())
}

/// A script that hides a part of `/proc` and runs its arguments.
const MASKED: &str = "mount -t tmpfs none /proc/acpi || mount -t tmpfs none /proc/fs; exec \"$@\"";

/// The command of a build of `dockerfile` in the directory `c`.
fn build(kiln: &Kiln, dockerfile: &str, arguments: &[&str]) -> Command {
    kiln.write("c/Dockerfile", dockerfile);
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let mut all = vec!["build", "--progress", "plain", "--no-cache", "--build-context", &base];
    all.extend_from_slice(arguments);
    all.push("c");
    kiln.command(&all)
}

#[test]
fn an_outer_proc_shows_command_lines_and_nothing_else() {
    if skip("an_outer_proc_shows_command_lines_and_nothing_else", &[Need::Accounts]) {
        return;
    }
    for kiln in [Kiln::rootless(BINARY), Kiln::rootless_with_single_id(BINARY)] {
        // Two steps run at the same time. Neither may see the other's environment or files.
        let step = "for p in /proc/[0-9]*; do \
                [ ${p#/proc/} -gt 500 ] && kill -9 ${p#/proc/} 2>/dev/null && echo killed; \
            done; \
            for i in 1 2 3; do \
                for p in /proc/[0-9]*; do \
                    for f in environ maps mem; do \
                        n=$(head -c 1 $p/$f 2>/dev/null | wc -c); \
                        [ $n = 0 ] || readlink $p/ns/user; \
                    done; \
                    ls $p/root/etc $p/cwd/ >/dev/null 2>&1 && readlink $p/ns/user; \
                    true; \
                done; \
            done 2>/dev/null | sort | uniq > /seen; \
            readlink /proc/self/ns/user > /own; diff /seen /own && echo own only; \
            cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -q 'kiln' && echo lines; \
            echo 1 > /proc/sys/vm/drop_caches; \
            for p in /proc/[0-9]*; do \
                for f in oom_score_adj coredump_filter clear_refs autogroup; do \
                    (echo 0 > $p/$f) 2>/dev/null && echo written $p/$f; \
                done; \
            done; \
            for f in /proc/sysrq-trigger /proc/sys/kernel/printk; do \
                (echo 1 > $f) 2>/dev/null && echo written $f; \
            done; true";
        let dockerfile = format!(
            "FROM base AS one\nRUN SECRET=1 {step}\nFROM base AS two\nRUN SECRET=2 {step}\n\
             FROM base\nCOPY --from=one /own /one\nCOPY --from=two /own /two\n\
             RUN ! cmp /one /two && echo apart\n"
        )
        .replace("SECRET=1 for", "export SECRET=1; for")
        .replace("SECRET=2 for", "export SECRET=2; for");
        let built = run(&mut run_first(&build(&kiln, &dockerfile, &[]), MASKED));
        assert_eq!(built.code, 0, "{}", built.stderr);
        assert_eq!(built.stderr.matches("own only\n").count(), 2, "{}", built.stderr);
        assert_eq!(built.stderr.matches(" lines\n").count(), 2, "{}", built.stderr);
        assert!(built.stderr.contains(" apart\n"), "{}", built.stderr);
        assert!(!built.stderr.contains("killed\n"), "{}", built.stderr);
        assert!(!built.stderr.contains(" written /"), "{}", built.stderr);
    }
}

#[test]
fn a_covered_root_is_out_of_reach() {
    let needs = [Need::Root, Need::Accounts, Need::Program("cc")];
    if skip("a_covered_root_is_out_of_reach", &needs) {
        return;
    }
    for kiln in [Kiln::new(BINARY), Kiln::rootless(BINARY)] {
        let script = without(&kiln, "pivot_root");
        kiln.write("c/escape", std::fs::read(compile(&kiln, "escape", ESCAPE)).unwrap());
        let marker = kiln.path("c/escape").display().to_string();
        let dockerfile = format!(
            "FROM base\nCOPY --chmod=755 escape /escape\nRUN /escape {marker}\n\
             RUN cut -d ' ' -f 5 /proc/self/mountinfo | grep -v -e ^/proc -e ^/sys -e ^/dev \
             -e ^/etc; true\n"
        );
        let built = run(&mut run_first(&build(&kiln, &dockerfile, &[]), &script));
        assert_eq!(built.code, 0, "{}", built.stderr);
        let mounts = built.stderr.lines().filter(|line| line.starts_with("#7 0."));
        let mounts: Vec<_> = mounts.filter_map(|line| line.split(' ').nth(2)).collect();
        assert_eq!(mounts, ["/"], "{}", built.stderr);
        for way in ["root", "above", "below", "again"] {
            assert!(built.stderr.contains(&format!("{way}: inside\n")), "{}", built.stderr);
        }
        // The same program does escape from a mere change of the root.
        std::fs::create_dir(kiln.path("jail")).unwrap();
        std::fs::copy(kiln.path("escape"), kiln.path("jail/escape")).unwrap();
        let mut jailed = Command::new("chroot");
        jailed.arg(kiln.path("jail")).args(["/escape", &marker]);
        assert!(run(&mut jailed).success().contains("again: escaped"));
    }
}

#[test]
fn images_are_the_same_on_every_rung() {
    let needs = [Need::Root, Need::Accounts, Need::Program("cc")];
    if skip("images_are_the_same_on_every_rung", &needs) {
        return;
    }
    let copies = "FROM base\nCOPY --chown=33:44 --chmod=4711 file /a/file\nADD file /b/\n\
                  LABEL a=b\n";
    let programs = "FROM base\nRUN echo x > /f && chown 33:44 /f && chmod 2755 /f\nUSER 33\n\
                    RUN id -u > /tmp/id\n";
    let output = |kiln: &Kiln, dockerfile: &str, script: &str, arguments: &[&str]| {
        kiln.write("c/file", "text\n");
        let dest = kiln.path("layout");
        let output = format!("type=oci,tar=false,rewrite-timestamp=true,dest={}", dest.display());
        let epoch = ["--output", &output, "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
        let command = build(kiln, dockerfile, &[&epoch[..], arguments].concat());
        let built = run(&mut run_first(&command, script));
        assert_eq!(built.code, 0, "{}", built.stderr);
        (std::fs::read_to_string(dest.join("index.json")).unwrap(), built.stderr)
    };
    let plain = "exec \"$@\"";
    let root = Kiln::new(BINARY);
    let expected = output(&root, copies, plain, &[]).0;
    let expected_of_programs = output(&root, programs, plain, &[]).0;

    // Root of a container maps all of its IDs itself.
    let namespace = Kiln::new(BINARY);
    let found = output(&namespace, programs, plain, &["--isolation", "userns"]).0;
    assert_eq!(found, expected_of_programs);

    let user = Kiln::rootless(BINARY);
    let denied = without(&user, "unshare");
    let (found, stderr) = output(&user, copies, &denied, &[]);
    assert_eq!(found, expected);
    assert!(!stderr.contains("isolation:"), "{stderr}");
    let info = run(&mut run_first(&user.command(&["info"]), &denied)).success();
    let lines = "Isolation: none\n root: needs root\n userns: unshare: operation not permitted \
                 (seccomp)\n chroot: needs root\n";
    assert!(info.contains(lines), "{info}");
    let format = ["info", "--format", "{{.Isolation}} {{(index .IsolationObstacles 0).Reason}}"];
    let formatted = run(&mut run_first(&user.command(&format), &denied)).success();
    assert_eq!(formatted, "none needs root\n");
    let refused = build(&user, copies, &["--isolation", "userns"]);
    let refused = run(&mut run_first(&refused, &denied)).failure();
    assert!(refused.contains("seccomp profile"), "{refused}");

    let container = Kiln::new(BINARY);
    let denied = without(&container, "unshare");
    let (found, _) = output(&container, copies, &denied, &[]);
    assert_eq!(found, expected);
    let info = run(&mut run_first(&container.command(&["info"]), &denied)).success();
    assert!(info.contains("Isolation: chroot\n root: unshare: operation not"), "{info}");
}

#[test]
fn root_without_capabilities_builds_without_namespaces() {
    if skip("root_without_capabilities_builds_without_namespaces", &[Need::Root]) {
        return;
    }
    let kiln = Kiln::new(BINARY);
    // The kernel lets such a root create a user namespace, but not map itself in it.
    let script = "exec setpriv --bounding-set=-all --inh-caps=-all \"$@\"";
    let dockerfile =
        "FROM base\nRUN test \"$(id -u)\" = 0 && chown 5:6 /home && stat -c %u:%g /home\n";
    let built = run(&mut run_first(&build(&kiln, dockerfile, &[]), script));
    assert_eq!(built.code, 0, "{}", built.stderr);
    assert!(built.stderr.contains("isolation: none"), "{}", built.stderr);
    assert!(built.stderr.contains(" 5:6\n"), "{}", built.stderr);
}
