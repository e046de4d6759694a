//! Packet filter rules, written by the host's `nft` program.
//!
//! The bridge's rules are the same for every kiln and stay in the table `inet kiln`. A process that
//! prepares the bridge writes them again, in one transaction, if the host's rules have changed
//! since ([`super::generation`]). So the next build repairs the damage of a firewall that flushes
//! all rules.
//!
//! The rules of published ports belong to one process and must vanish with it, because their
//! address is another container's next. They are in a table of the process's own, which the kernel
//! ties to the netlink socket that created it (`flags owner`). An `nft` process holds that socket
//! while it waits for input on a pipe from kiln. When kiln ends in any way, the pipe closes, `nft`
//! ends, and the kernel removes the table.

#![expect(clippy::disallowed_methods, reason = "the program is the host's")]

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::error::NetworkError;
use super::host::BRIDGE;
use super::subnet::Subnet;
use super::thread::NamespaceThread;

/// The name of the bridge's table in the family `inet`.
pub(super) const TABLE: &str = "kiln";

/// The further rules of a gateway. Its kernel must not reset a connection of a step because it finds
/// a packet of the connection unusual.
const GATEWAY_RULES: &str = "\
    add chain inet kiln input { type filter hook input priority 0; policy accept; }\n\
    add rule inet kiln input ct state invalid drop\n";

/// The directories to search after those of the search path.
const USUAL: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];

/// The time limit for the program.
const PATIENCE: Duration = Duration::from_secs(10);

/// The path of a program on the host.
#[derive(Clone, Debug)]
pub(super) struct Program(PathBuf);

impl Program {
    /// Finds a program in the directories of `path` and in the usual ones. Ignores relative
    /// directories: they could lead into a build context.
    pub(super) fn find(name: &str, path: &OsStr) -> Option<Self> {
        let directories = path.as_bytes().split(|byte| *byte == b':').map(OsStr::from_bytes);
        directories
            .chain(USUAL.map(OsStr::new))
            .map(Path::new)
            .filter(|directory| directory.is_absolute())
            .map(|directory| directory.join(name))
            .find(|candidate| candidate.is_file())
            .map(Self)
    }

    /// Returns a command with a minimal environment. The program must not read settings from a home
    /// directory or write to it.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::from(self.blocking_command());
        command.kill_on_drop(true);
        command
    }

    /// Returns the same command for a caller that waits on a thread of its own.
    pub(super) fn blocking_command(&self) -> std::process::Command {
        tracing::debug!(program = %self.0.display(), "running a program");
        let mut command = std::process::Command::new(&self.0);
        command.env_clear().env("HOME", "/dev/null").current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        command
    }
}

/// Writes the bridge's rules, in the namespace of `thread` if given. Returns the list of all IPv4
/// chains.
pub(super) async fn write(
    nft: &Program,
    thread: Option<&NamespaceThread>,
    subnet: Subnet,
    guard: &[String],
) -> Result<String, NetworkError> {
    let mut script = bridge_rules(subnet, guard);
    if thread.is_some() {
        script.push_str(GATEWAY_RULES);
    }
    apply(nft, thread, &script).await.map_err(NetworkError::doing("write packet filter rules"))
}

async fn apply(
    nft: &Program,
    thread: Option<&NamespaceThread>,
    script: &str,
) -> io::Result<String> {
    let mut command = nft.command();
    command.args(["-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = match thread {
        Some(thread) => thread.run(move || command.spawn()).await??,
        None => command.spawn()?,
    };
    let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let finish = async {
        stdin.write_all(script.as_bytes()).await?;
        drop(stdin);
        child.wait_with_output().await
    };
    let output = timeout(PATIENCE, finish).await.map_err(|_| io::ErrorKind::TimedOut)??;
    if !output.status.success() {
        return Err(said(&output.stderr));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the first line of a program's error output as an error.
fn said(stderr: &[u8]) -> io::Error {
    let text = String::from_utf8_lossy(stderr);
    io::Error::other(text.lines().next().unwrap_or("nft failed").trim().to_owned())
}

/// Returns the script that creates or replaces the bridge's rules.
///
/// `guard` are the interfaces that the host did not forward between before kiln turned forwarding
/// on. A rule keeps dropping packets between them.
pub(super) fn bridge_rules(subnet: Subnet, guard: &[String]) -> String {
    let mut script = String::from(
        "add table inet kiln\n\
         add chain inet kiln postrouting { type nat hook postrouting priority 100; policy accept; }\n\
         add chain inet kiln forward { type filter hook forward priority 0; policy accept; }\n\
         flush chain inet kiln postrouting\n\
         flush chain inet kiln forward\n",
    );
    let mut rule = |chain: &str, text: &str| {
        // Writing to a string doesn't fail.
        let _ = writeln!(script, "add rule inet kiln {chain} {text}");
    };
    rule("postrouting", &format!("ip saddr {subnet} oifname != \"{BRIDGE}\" masquerade"));
    // Namespaces can't send under addresses of others.
    rule("forward", &format!("iifname \"{BRIDGE}\" ip saddr != {subnet} drop"));
    rule("forward", &format!("iifname \"{BRIDGE}\" meta nfproto ipv6 drop"));
    // Packets to namespaces must be answers or belong to published ports.
    rule("forward", &format!("oifname \"{BRIDGE}\" ct state established,related accept"));
    rule("forward", &format!("oifname \"{BRIDGE}\" ct status dnat accept"));
    rule("forward", &format!("oifname \"{BRIDGE}\" drop"));
    if !guard.is_empty() {
        let names = guard.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
        script.push_str(
            "add chain inet kiln guard { type filter hook forward priority 0; policy accept; }\n\
             flush chain inet kiln guard\n",
        );
        let between = format!("iifname {{ {names} }} oifname {{ {names} }} drop");
        let _ = writeln!(script, "add rule inet kiln guard {between}");
    }
    script.push_str("list chains ip\n");
    script
}

/// Rules that exist as long as this value.
#[derive(Debug)]
pub(super) struct OwnRules {
    _nft: Child,
    _stdin: ChildStdin,
    // If the pipe were closed, the program would end at its next output.
    _output: (Lines<BufReader<ChildStdout>>, Lines<BufReader<ChildStderr>>),
}

impl OwnRules {
    /// Creates rules that redirect packets for this machine. Each item is the match and the
    /// statement of one rule.
    pub(super) async fn redirect(nft: &Program, name: &str, rules: &[String]) -> io::Result<Self> {
        let mut child =
            nft.command().arg("-i").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
        let mut stdin = child.stdin.take().ok_or_else(pipe)?;
        let mut stdout = BufReader::new(child.stdout.take().ok_or_else(pipe)?).lines();
        let mut stderr = BufReader::new(child.stderr.take().ok_or_else(pipe)?).lines();
        stdin.write_all(own_rules(name, rules).as_bytes()).await?;
        stdin.flush().await?;
        let answer = async {
            let (mut begun, first) = (false, format!("table inet {name} "));
            loop {
                tokio::select! {
                    line = stdout.next_line() => match line?.as_deref() {
                        // The program prints the whole table, from its header to its brace.
                        Some("}") if begun => return Ok(()),
                        Some(line) => begun |= line.starts_with(&first),
                        None => return Err(pipe()),
                    },
                    Some(line) = async { stderr.next_line().await.transpose() } => {
                        return Err(said(line?.as_bytes()));
                    }
                }
            }
        };
        timeout(PATIENCE, answer).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(Self { _nft: child, _stdin: stdin, _output: (stdout, stderr) })
    }
}

/// Returns the lines that create the table and then list it.
fn own_rules(name: &str, rules: &[String]) -> String {
    // One line is one transaction.
    let mut line = format!(
        "add table inet {name} {{ flags owner; }}; \
         add chain inet {name} prerouting {{ type nat hook prerouting priority -100; }}"
    );
    for rule in rules {
        let _ = write!(
            line,
            "; add rule inet {name} prerouting iifname != {{ \"lo\", \"{BRIDGE}\" }} {rule}"
        );
    }
    format!("{line}\nlist table inet {name}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_looked_up_by_absolute_paths() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("program"), "").unwrap();
        let path = format!("relative::{}", directory.path().display());
        let found = Program::find("program", OsStr::new(&path)).unwrap();
        assert_eq!(found.0, directory.path().join("program"));
        assert!(Program::find("Cargo.toml", OsStr::new(":.")).is_none());
    }

    #[test]
    fn a_guard_is_there_where_it_is_needed() {
        let subnet = Subnet { address: [10, 0, 0, 1].into(), prefix: 24 };
        assert!(!bridge_rules(subnet, &[]).contains("guard"));
        let script = bridge_rules(subnet, &["eth0".to_owned(), "eth1".to_owned()]);
        let rule = "guard iifname { \"eth0\", \"eth1\" } oifname { \"eth0\", \"eth1\" } drop\n";
        assert!(script.contains(rule), "{script}");
        assert!(
            script.contains("postrouting ip saddr 10.0.0.0/24 oifname != \"kiln0\" masquerade")
        );
    }
}
