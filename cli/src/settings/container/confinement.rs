//! The flags of docker's that set a container's privileges and the namespaces that it shares with
//! the host.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kiln::container::Confinement;
use kiln_sandbox::{Capabilities, Privileges, Security, SharedNamespaces, Sysctl};

use super::devices::devices;
use super::security;
use crate::arguments::run::{RunArguments, RunNetwork};

/// Parses the arguments.
pub(super) fn confinement(run: &RunArguments) -> Result<Confinement> {
    let arguments = &run.confinement;
    let mut privileges = Privileges {
        capabilities: capabilities(&arguments.cap_add, &arguments.cap_drop)?,
        ..Privileges::default()
    };
    let is_privileged = arguments.privileged;
    let capabilities = if is_privileged {
        Capabilities::available().context("look at capabilities")?
    } else {
        privileges.capabilities
    };
    for option in &arguments.security_opt {
        security::set(&mut privileges, option, capabilities)
            .with_context(|| format!("invalid --security-opt {option:?}"))?;
    }
    let shared = arguments.namespaces.shared()?;
    if shared.uts {
        refuse_name("--hostname", run.hostname.as_deref())?;
        refuse_name("--domainname", run.domainname.as_deref())?;
    }
    if arguments.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
        bail!("invalid --oom-score-adj: it must be from -1000 to 1000");
    }
    let sysctl = |text: &String| {
        sysctl(text, shared, run.network).with_context(|| format!("invalid --sysctl {text:?}"))
    };
    Ok(Confinement {
        security: if is_privileged { Security::Privileged } else { Security::Sandbox },
        privileges,
        shared,
        sysctls: arguments.sysctls.iter().map(sysctl).collect::<Result<_>>()?,
        groups: arguments.group_add.clone(),
        oom_score_adj: arguments.oom_score_adj,
        has_init: arguments.init,
        devices: devices(&arguments.devices, &arguments.device_rules)?,
        has_shared_memory: arguments.namespaces.has_shared_memory(),
        annotations: annotations(&arguments.annotations)?,
    })
}

/// Rejects a name for a container that has the host's name.
fn refuse_name(flag: &str, name: Option<&str>) -> Result<()> {
    if name.is_some_and(|name| !name.is_empty()) {
        bail!("{flag} and --uts host can't be combined");
    }
    Ok(())
}

/// Parses annotations: `NAME=VALUE`, or a name alone.
fn annotations(typed: &[String]) -> Result<BTreeMap<String, String>> {
    let read = |text: &String| {
        let (name, value) = text.split_once('=').unwrap_or((text, ""));
        if name.is_empty() {
            bail!("invalid --annotation {text:?}: expected NAME=VALUE");
        }
        Ok((name.to_owned(), value.to_owned()))
    };
    typed.iter().map(read).collect()
}

/// The name that stands for all capabilities.
const ALL: &str = "ALL";

/// Returns the container's capabilities: the default ones, less `drop`, plus `add`. Like docker, it
/// applies `ALL` in `drop` before the additions, and drops single capabilities after adding `ALL`.
fn capabilities(add: &[String], drop: &[String]) -> Result<Capabilities> {
    let is_all = |name: &String| name.eq_ignore_ascii_case(ALL);
    let set = |names: &[String]| {
        let mut set = Capabilities::NONE;
        for name in names.iter().filter(|name| !is_all(name)) {
            let one = Capabilities::named(name);
            set = set | one.with_context(|| format!("there is no capability {name:?}"))?;
        }
        Ok::<_, anyhow::Error>(set)
    };
    let added = set(add).context("invalid --cap-add")?;
    let dropped = set(drop).context("invalid --cap-drop")?;
    if add.iter().any(is_all) {
        return Ok(Capabilities::available().context("look at capabilities")? - dropped);
    }
    if drop.iter().any(is_all) {
        return Ok(added);
    }
    Ok((Capabilities::DEFAULT - dropped) | added)
}

/// Kernel parameters that each IPC namespace has its own values of.
const IPC_PARAMETERS: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Parses `NAME=VALUE`. The parameter must belong to one of the container's own namespaces.
fn sysctl(text: &str, shared: SharedNamespaces, network: Option<RunNetwork>) -> Result<Sysctl> {
    let (name, value) = text.split_once('=').context("expected NAME=VALUE")?;
    let name = name.replace('/', ".");
    let is_plain = |part: &str| {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
        !part.is_empty() && part.bytes().all(is_plain)
    };
    if !name.split('.').all(is_plain) {
        bail!("{name:?} is no parameter's name");
    }
    let is_ipc = IPC_PARAMETERS.contains(&name.as_str()) || name.starts_with("fs.mqueue.");
    if !is_ipc && !name.starts_with("net.") {
        bail!("{name} is the whole machine's, and not the container's");
    }
    if is_ipc && shared.ipc {
        bail!("{name} is the host's with --ipc host");
    }
    if !is_ipc && network == Some(RunNetwork::Host) {
        bail!("{name} is the host's with --network host");
    }
    Ok(Sysctl { name, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::flags::tests::run as run_arguments;

    fn read(typed: &[&str]) -> Result<Confinement> {
        confinement(&run_arguments(&[typed, &["img"]].concat()))
    }

    fn privileges(typed: &[&str]) -> Privileges {
        read(typed).unwrap().privileges
    }

    fn problem(typed: &[&str]) -> String {
        format!("{:#}", read(typed).unwrap_err())
    }

    #[test]
    fn capabilities_are_added_and_dropped_as_docker_does() {
        let names = |typed: &[&str]| privileges(typed).capabilities.names().join(" ");
        assert_eq!(privileges(&[]), Privileges::default());
        assert!(names(&["--cap-add", "net_admin"]).contains("CAP_NET_ADMIN CAP_NET_RAW"));
        assert!(!names(&["--cap-drop", "CAP_MKNOD"]).contains("MKNOD"));
        let some = ["--cap-drop", "ALL", "--cap-add", "CHOWN", "--cap-add", "SYS_TIME"];
        assert_eq!(names(&some), "CAP_CHOWN CAP_SYS_TIME");
        assert_eq!(names(&["--cap-drop", "all"]), "");
        let all = Capabilities::available().unwrap();
        assert_eq!(privileges(&["--cap-add", "ALL"]).capabilities, all);
        let unknown = problem(&["--cap-add", "NO_SUCH"]);
        assert_eq!(unknown, "invalid --cap-add: there is no capability \"NO_SUCH\"");
    }

    #[test]
    fn parameters_are_the_containers_alone() {
        let read = |typed: &[&str]| read(typed).map(|read| read.sysctls.len());
        assert_eq!(read(&["--sysctl", "net.ipv4.ip_forward=1"]).unwrap(), 1);
        assert_eq!(read(&["--sysctl", "net/core/somaxconn=5"]).unwrap(), 1);
        assert_eq!(read(&["--sysctl", "kernel.shm_rmid_forced=1"]).unwrap(), 1);
        for typed in [
            &["--sysctl", "net.ipv4.ip_forward"][..],
            &["--sysctl", "kernel.hostname=x"],
            &["--sysctl", "vm.swappiness=1"],
            &["--sysctl", "net...vm.swappiness=1"],
            &["--sysctl", "net.../x=1"],
            &["--sysctl", "net.core.somaxconn=1", "--network", "host"],
            &["--sysctl", "kernel.sem=1", "--ipc", "host"],
        ] {
            assert!(read(typed).is_err(), "{typed:?}");
        }
    }

    #[test]
    fn what_excludes_each_other_is_refused() {
        assert!(read(&["--uts", "host", "-h", "x"]).is_err());
        assert!(read(&["--uts", "host", "--domainname", "x"]).is_err());
        assert!(read(&["--oom-score-adj", "1001"]).is_err());
        assert!(read(&["--annotation", "=x"]).is_err());
    }

    #[test]
    fn options_are_about_the_capabilities_that_were_chosen() {
        let problem = problem(&["--security-opt", "seccomp=/no/such"]);
        assert!(problem.starts_with("invalid --security-opt \"seccomp=/no/such\": "), "{problem}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("profile");
        let rule = r#"{ "name": "reboot", "action": "SCMP_ACT_LOG", "includes": { "caps": ["CAP_SYS_BOOT"] } }"#;
        let text = format!(r#"{{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{rule}] }}"#);
        std::fs::write(&path, text).unwrap();
        let option = format!("--security-opt=seccomp={}", path.display());
        let without = privileges(&[&option]).calls;
        assert_ne!(privileges(&[&option, "--cap-add", "SYS_BOOT"]).calls, without);
    }
}
