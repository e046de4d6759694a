//! A network of a test's own: a host, and a machine outside.
//!
//! The host is a network namespace, where kiln finds nothing that other tests have made, and where
//! a test may switch and filter as it likes. One more namespace is the world outside: `203.0.113.2`,
//! connected with the host's `203.0.113.1`, which has its default route there.

use std::process::Command;

use crate::environment::{Kiln, Output, base_layout, run};

/// What a script has at hand: `kiln`, `build TEXT [FLAG…]` for Dockerfiles, `out COMMAND…` for the
/// outside, `call ADDRESS PORT`, which shows what a server says, and `until_there COMMAND…`, which
/// tries a command until it succeeds.
const PRELUDE: &str = r#"
set -eu
PATH=$(dirname "$KILN"):$PATH
ip link set lo up
unshare --net sleep 1000 &
outside=$!
until [ "$(readlink /proc/$outside/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.02; done
out() { nsenter --net=/proc/$outside/ns/net -- "$@"; }
ip link add out0 type veth peer name in0 netns /proc/$outside/ns/net
ip address add 203.0.113.1/24 dev out0
ip link set out0 up
out ip link set lo up
out ip address add 203.0.113.2/24 dev in0
out ip link set in0 up
ip route add default via 203.0.113.2
build() {
    text=$1
    shift
    printf "$text" | kiln build --progress plain --build-context "base=oci-layout://$BASE" "$@" - 2>&1
}
call() { timeout 10 busybox nc -w 2 "$1" "$2" </dev/null; }
until_there() {
    for _ in $(seq 400); do
        if "$@"; then return 0; fi
        sleep 0.05
    done
    return 1
}
"#;

/// Runs a shell script in a world of its own. What it leaves running is killed at its end.
///
/// # Panics
/// Panics where the script can't be started.
pub fn run_in_world(kiln: &Kiln, script: &str) -> Output {
    let path = kiln.write("world.sh", format!("{PRELUDE}{script}"));
    let mut command = Command::new("timeout");
    command
        .args(["--signal=KILL", "180", "unshare"])
        .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg("sh")
        .arg(path)
        .env_clear()
        .envs(kiln.command::<&str>(&[]).get_envs().filter_map(|(name, value)| Some((name, value?))))
        .env("KILN", kiln.binary())
        // What is only told to those who look for it helps whoever reads of a failed test.
        .env("KILN_LOG", "kiln_worker=debug")
        .env("BASE", base_layout())
        .current_dir(kiln.path("."));
    run(&mut command)
}
