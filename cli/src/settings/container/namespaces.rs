//! Namespaces that a container shares with the host: `--ipc`, `--pid`, `--uts`, `--userns`,
//! `--cgroupns`.

use anyhow::{Result, bail};
use kiln_sandbox::SharedNamespaces;

use crate::arguments::namespaces::NamespaceArguments;

impl NamespaceArguments {
    /// Returns the namespaces that the container shares with the host.
    pub(super) fn shared(&self) -> Result<SharedNamespaces> {
        host("userns", self.userns.as_deref(), &[])?;
        Ok(SharedNamespaces {
            ipc: host("ipc", self.ipc.as_deref(), &["private", "shareable", "none"])?,
            uts: host("uts", self.uts.as_deref(), &[])?,
            pid: host("pid", self.pid.as_deref(), &["private"])?,
            cgroup: host("cgroupns", self.cgroupns.as_deref(), &["private"])?,
        })
    }

    /// Returns `true` if the container has a `/dev/shm`.
    pub(super) fn has_shared_memory(&self) -> bool {
        self.ipc.as_deref() != Some("none")
    }
}

/// Returns `true` if the mode is `host`. Fails if the mode is neither empty, `host`, nor in
/// `others`.
fn host(flag: &str, mode: Option<&str>, others: &[&str]) -> Result<bool> {
    match mode {
        None | Some("") => Ok(false),
        Some("host") => Ok(true),
        Some(mode) if others.contains(&mode) => Ok(false),
        Some(mode) if mode.starts_with("container:") => {
            bail!("invalid --{flag} {mode:?}: containers don't know each other")
        }
        Some(mode) => {
            let expected = [others, &["host"]].concat().join(" or ");
            bail!("invalid --{flag} {mode:?}: expected {expected}")
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::arguments::flags::tests::run as run_arguments;
    use kiln_sandbox::SharedNamespaces;

    #[test]
    fn namespaces_are_the_hosts_by_name_alone() {
        let read = |typed: &[&str]| {
            run_arguments(&[typed, &["img"]].concat()).confinement.namespaces.shared()
        };
        let own = ["--ipc", "private", "--uts", "", "--pid=", "--cgroupns", "private"];
        assert_eq!(read(&own).unwrap(), SharedNamespaces::default());
        let all = SharedNamespaces { ipc: true, uts: true, pid: true, cgroup: true };
        let typed = ["--ipc=host", "--uts", "host", "--userns", "host", "--pid=host"];
        assert_eq!(read(&[&typed[..], &["--cgroupns=host"]].concat()).unwrap(), all);
        for typed in [
            ["--ipc", "x"],
            ["--uts", "private"],
            ["--ipc", "container:x"],
            ["--pid", "container:x"],
            ["--cgroupns", "x"],
            ["--userns", "x"],
        ] {
            assert!(read(&typed).is_err(), "{typed:?}");
        }
        let none = run_arguments(&["--ipc", "none", "img"]).confinement.namespaces;
        assert!(!none.has_shared_memory());
    }
}
