//! The packet filters of other programs.
//!
//! A packet passes only if every filter of the host accepts it. Docker sets the policy of the
//! `FORWARD` chain to drop and offers the chain `DOCKER-USER` for exceptions. On such hosts kiln
//! adds two exceptions there, with the program that created the chain: one for packets from the
//! bridge, one for packets to it. The table `inet kiln` has filtered both. kiln changes nothing
//! else of other programs. With other firewalls that drop forwarded packets, the administrator must
//! allow `kiln0`.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::ffi::OsStr;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use tokio::time::timeout;

use super::host::BRIDGE;
use super::rules::Program;

const PATIENCE: Duration = Duration::from_secs(5);

/// Lets the bridge's packets through Docker's filter, if there is one. `chains` is `nft`'s list of
/// chains.
///
/// Failures are ignored: kiln doesn't know here whether the filter blocks anything. If it does, the
/// step reports its own error.
pub(super) async fn open(chains: &str, path: &OsStr) {
    if !drops(chains) && !has_legacy_filter() {
        return;
    }
    let Some(iptables) = Program::find("iptables", path) else { return };
    match ask(&iptables, &["-S", "FORWARD"]).await {
        Ok((true, rules)) if rules.lines().any(|line| line == "-P FORWARD DROP") => {}
        _ => return,
    }
    let has_docker = ask(&iptables, &["-S", "DOCKER-USER"]).await.is_ok_and(|(found, _)| found);
    let chain = if has_docker { "DOCKER-USER" } else { "FORWARD" };
    for direction in ["-i", "-o"] {
        let rule = [chain, direction, BRIDGE, "-j", "ACCEPT"];
        let check = [&["-C"], &rule[..]].concat();
        if ask(&iptables, &check).await.is_ok_and(|(found, _)| !found) {
            let _ = ask(&iptables, &[&["-I"], &rule[..]].concat()).await;
        }
    }
}

/// Returns `true` if the policy of iptables' chain `FORWARD` is drop.
fn drops(chains: &str) -> bool {
    let filter = chains.split("table ").find(|table| table.starts_with("ip filter {"));
    let forward =
        filter.and_then(|table| table.split("chain ").find(|c| c.starts_with("FORWARD {")));
    forward.is_some_and(|chain| chain.contains("policy drop"))
}

/// Returns `true` if the table `filter` exists in iptables' legacy form, which `nft` doesn't show.
/// Running iptables to find out would create it.
pub(super) fn has_legacy_filter() -> bool {
    std::fs::read_to_string("/proc/net/ip_tables_names")
        .is_ok_and(|names| names.lines().any(|name| name == "filter"))
}

async fn ask(iptables: &Program, arguments: &[&str]) -> io::Result<(bool, String)> {
    let mut command = iptables.command();
    command.arg("-w").args(arguments).stdout(Stdio::piped());
    let output =
        timeout(PATIENCE, command.output()).await.map_err(|_| io::ErrorKind::TimedOut)??;
    Ok((output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_that_drops_is_recognised() {
        let chain = |table: &str, policy: &str| {
            format!(
                "table ip {table} {{\n\tchain INPUT {{\n\t\ttype filter hook input priority \
                 filter; policy drop;\n\t}}\n\tchain FORWARD {{\n\t\ttype filter hook forward \
                 priority filter; policy {policy};\n\t}}\n\tchain DOCKER {{\n\t}}\n}}\n"
            )
        };
        assert!(drops(&format!("table ip nat {{\n}}\n{}", chain("filter", "drop"))));
        assert!(!drops(&chain("filter", "accept")));
        assert!(!drops(&chain("mine", "drop")));
        assert!(!drops(""));
    }
}
