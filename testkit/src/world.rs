//! A private network for a test: a host and a machine outside.
//!
//! The host is a network namespace without traces of other tests, where a test may change
//! interfaces and filters freely. A second namespace is the outside, `203.0.113.2`. The host has
//! the address `203.0.113.1` on their link, and its default route leads there.

use std::process::Command;

use crate::environment::{Kiln, Output, base_layout, run};

/// The commands that scripts can use: `kiln`; `build TEXT [FLAG…]` builds a Dockerfile;
/// `out COMMAND…` runs a command outside; `call ADDRESS PORT` prints the output of a server;
/// `until_there COMMAND…` repeats a command until it succeeds.
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

/// Runs a shell script in a private network. The processes that it leaves are killed at its end.
///
/// # Panics
/// Panics if the script can't be started.
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
        // Debug messages help to understand a failed test.
        .env("KILN_LOG", "kiln_worker=debug")
        .env("BASE", base_layout())
        .current_dir(kiln.path("."));
    run(&mut command)
}
