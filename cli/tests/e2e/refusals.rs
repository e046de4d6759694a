//! kiln's errors on machines that forbid user namespaces or restrict root in them.

use std::process::Command;

use kiln_testkit::environment::run;
use kiln_testkit::{Kiln, Need, skip};

const BINARY: &str = env!("CARGO_BIN_EXE_kiln");

fn skipped(test: &str) -> bool {
    skip(test, &[Need::Accounts, Need::Program("unshare"), Need::Program("setpriv")])
}

/// Returns a command that runs `script` under `unshare`, with kiln's command line as its arguments.
fn apart(kiln: &Kiln, how: &[&str], script: &str, arguments: &[&str]) -> Command {
    let inner = kiln.command(arguments);
    let mut command = Command::new("unshare");
    command.args(how).args(["sh", "-c", &format!("{script} \"$@\""), "sh"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}

#[test]
fn a_switch_that_forbids_namespaces_is_named() {
    if skipped("a_switch_that_forbids_namespaces_is_named") {
        return;
    }
    // A root without privileges, in a namespace with the kernel's setting off.
    let kiln = Kiln::new(BINARY);
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && \
                  exec setpriv --bounding-set=-sys_admin --inh-caps=-sys_admin";
    let run_it = |arguments: &[&str]| {
        run(&mut apart(&kiln, &["--user", "--map-root-user"], script, arguments))
    };
    let refused = run_it(&["--isolation", "userns", "run", "img", "id"]);
    assert_eq!(refused.code, 125);
    let expected = "can't become root of a user namespace: user.max_user_namespaces is 0 (as root: \
                    sysctl -w user.max_user_namespaces=10000";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    let refused = run_it(&["--isolation", "root", "run", "img", "id"]);
    assert_eq!(refused.code, 125);
    let expected = "isolation root can't be used here: needs CAP_SYS_ADMIN";
    assert!(refused.stderr.contains(expected), "{}", refused.stderr);
    // Without a choice, another rung is used.
    let info = run_it(&["info"]).success();
    let expected = "Isolation: none\n root: needs CAP_SYS_ADMIN\n userns: unshare: no space left on \
                    device (user.max_user_namespaces is 0)\n chroot: setuid: operation not permitted\n";
    assert!(info.contains(expected), "{info}");
}

#[test]
fn root_that_may_not_configure_networks_has_none_for_a_step() {
    if skipped("root_that_may_not_configure_networks_has_none_for_a_step") {
        return;
    }
    let kiln = Kiln::new(BINARY);
    kiln.write("text/Dockerfile", "FROM base\nRUN --network=none test $(ls /sys/class/net) = lo\n");
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let inner = kiln.command(&["--isolation", "root", "build", "--build-context", &base, "text"]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-net_admin", "--inh-caps=-net_admin"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    run(command.current_dir(kiln.path(""))).success();
}

#[test]
fn a_hidden_proc_is_no_obstacle() {
    if skipped("a_hidden_proc_is_no_obstacle") {
        return;
    }
    let kiln = Kiln::rootless(BINARY);
    kiln.build_text("FROM base\n", &["-t", "img"]).success();
    let script = "mount -t tmpfs none /proc/fs &&";
    let command = ["run", "img", "id", "-u"];
    assert_eq!(run(&mut apart(&kiln, &["--mount"], script, &command)).success(), "0\n");
    assert_eq!(kiln.run(&["run", "img", "id", "-u"]).success(), "0\n");
    let refused = kiln.run(&["run", "--oci-runtime", "sh", "img", "id"]).failure();
    assert!(refused.contains("--oci-runtime takes root"), "{refused}");
}

#[test]
fn programs_that_may_not_map_ids_are_done_without() {
    if skipped("programs_that_may_not_map_ids_are_done_without") {
        return;
    }
    let kiln = Kiln::rootless(BINARY);
    kiln.write("text/Dockerfile", "FROM base\nRUN test $(wc -l < /proc/self/uid_map) = 1\n");
    let base = format!("base=oci-layout://{}", kiln.base().display());
    let inner = kiln.command(&["build", "--build-context", &base, "text"]);
    let mut command = Command::new("setpriv");
    command.arg("--no-new-privs").arg(inner.get_program()).args(inner.get_args());
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let built = run(command.current_dir(kiln.path("")));
    assert!(built.stderr.contains("WARNING: subordinate ids can't be used"), "{}", built.stderr);
    built.success();
}
