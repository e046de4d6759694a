//! What a container may, and what it shares with the host: the flags of docker's that change either.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use kiln_worker::sandbox::{
    Capabilities, Mount, MountKind, Network, Privileges, Security, SharedNamespaces, Spec, Sysctl,
};

use super::container_path;
use crate::arguments::flags::truth;
use crate::commands::run::{RunArguments, RunNetwork};
use crate::printer::Printer;

/// What was typed.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct ConfinementArguments {
    /// Give the container a capability, as `NET_ADMIN`, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_add: Vec<String>,
    /// Take a capability from the container, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    pub(crate) cap_drop: Vec<String>,
    /// Give the container all capabilities, system calls and devices: it can take the machine over
    #[arg(long)]
    pub(crate) privileged: bool,
    /// no-new-privileges, or seccomp=unconfined
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Give the command's user another group: a name or a number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Give the container a device of the host, or all those of a directory
    #[arg(long = "device", value_name = "HOST[:CONTAINER[:rwm]]")]
    pub(crate) devices: Vec<String>,
    /// Set a kernel parameter of the container's namespaces, as net.core.somaxconn=1024
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    pub(crate) sysctls: Vec<String>,
    /// Shared memory and message queues: private, or the host's
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// The host's name, with host
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// Users: those of kiln itself, with host, as in any case
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
    /// How soon the kernel kills the container where memory is short, from -1000 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub(crate) oom_score_adj: Option<i32>,
    /// Run a process beside the command that passes signals on and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
}

/// What was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Confinement {
    security: Security,
    privileges: Privileges,
    shared: SharedNamespaces,
    sysctls: Vec<Sysctl>,
    groups: Vec<String>,
    oom_score_adj: Option<i32>,
    has_init: bool,
    devices: Vec<Mount>,
}

impl Confinement {
    /// Makes out what was asked for.
    pub(super) fn new(run: &RunArguments) -> Result<Self> {
        let arguments = &run.confinement;
        let mut privileges = Privileges {
            capabilities: capabilities(&arguments.cap_add, &arguments.cap_drop)?,
            ..Privileges::default()
        };
        for option in &arguments.security_opt {
            set_option(&mut privileges, option)
                .with_context(|| format!("invalid --security-opt {option:?}"))?;
        }
        let shared =
            SharedNamespaces { ipc: ipc(arguments)?, uts: host(arguments.uts.as_deref(), "uts")? };
        host(arguments.userns.as_deref(), "userns")?;
        if shared.uts && run.hostname.as_ref().is_some_and(|name| !name.is_empty()) {
            bail!("--hostname and --uts host can't be combined");
        }
        if arguments.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            bail!("invalid --oom-score-adj: it must be from -1000 to 1000");
        }
        let sysctl = |text: &String| {
            sysctl(text, shared, run.network).with_context(|| format!("invalid --sysctl {text:?}"))
        };
        let mut mounts = Vec::new();
        for text in &arguments.devices {
            mounts.extend(devices(text).with_context(|| format!("invalid --device {text:?}"))?);
        }
        Ok(Self {
            security: if arguments.privileged { Security::Privileged } else { Security::Sandbox },
            privileges,
            shared,
            sysctls: arguments.sysctls.iter().map(sysctl).collect::<Result<_>>()?,
            groups: arguments.group_add.clone(),
            oom_score_adj: arguments.oom_score_adj,
            has_init: arguments.init,
            devices: mounts,
        })
    }

    /// Checks that a runtime does what was asked for.
    pub(super) fn check_runtime(&self) -> Result<()> {
        if self.has_init {
            bail!("--init isn't there with --oci-runtime, whose process 1 is the command");
        }
        if !self.devices.is_empty() || self.security == Security::Privileged {
            bail!("--oci-runtime passes no devices on: leave out --device and --privileged");
        }
        Ok(())
    }

    /// Checks that parameters are not those of the host's network, which a container may have got because
    /// no other could be had.
    pub(super) fn check_network(&self, network: Network) -> Result<()> {
        let of_network = self.sysctls.iter().find(|sysctl| sysctl.name.starts_with("net."));
        match of_network {
            Some(Sysctl { name, .. }) if network == Network::Host => {
                bail!("--sysctl {name} takes a network of the container's own")
            }
            _ => Ok(()),
        }
    }

    /// Says what is given away.
    pub(super) fn warn(&self, printer: &Printer) {
        if self.security == Security::Privileged {
            printer.note(
                "WARNING: --privileged gives the container all capabilities, system calls and devices: \
                 it can take this machine over",
            );
        }
    }

    /// Tells whether control groups would keep the container from its devices.
    pub(super) fn opens_devices(&self) -> bool {
        self.security == Security::Privileged || !self.devices.is_empty()
    }

    /// Tells whether the host's name is the container's.
    pub(super) fn has_host_name(&self) -> bool {
        self.shared.uts
    }

    /// Writes it into a specification.
    pub(super) fn apply(self, spec: &mut Spec) {
        spec.security = self.security;
        spec.privileges = self.privileges;
        spec.shared = self.shared;
        spec.sysctls = self.sysctls;
        spec.process.groups = self.groups;
        spec.process.oom_score_adj = self.oom_score_adj;
        spec.process.has_init = self.has_init;
        spec.mounts.extend(self.devices);
    }
}

/// The name of all capabilities.
const ALL: &str = "ALL";

/// Adds capabilities to the default ones, and drops some, in docker's order: dropping all comes before
/// adding, everything else after it.
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

fn set_option(privileges: &mut Privileges, option: &str) -> Result<()> {
    let split = option.split_once('=').or_else(|| option.split_once(':'));
    match split.unwrap_or((option, "")) {
        ("no-new-privileges", "") => privileges.no_new_privileges = true,
        ("no-new-privileges", value) => {
            privileges.no_new_privileges = truth(value).map_err(anyhow::Error::msg)?;
        }
        ("seccomp", "unconfined") => privileges.is_filtered = false,
        ("seccomp", "builtin") => privileges.is_filtered = true,
        ("seccomp", _) => {
            bail!(
                "kiln has its own system call filter, Docker's default one: seccomp=unconfined turns \
                 it off, and --cap-add widens it"
            )
        }
        // No profile and no label is ever set.
        ("apparmor", "unconfined") | ("label", "disable") => {}
        ("apparmor", _) if !Path::new("/sys/module/apparmor").exists() => {
            bail!("this machine has no AppArmor")
        }
        ("apparmor", _) => bail!("kiln sets no AppArmor profile: apparmor=unconfined says so"),
        ("label", _) => bail!("kiln sets no SELinux label: label=disable says so"),
        _ => bail!("expected no-new-privileges or seccomp=unconfined"),
    }
    Ok(())
}

fn ipc(arguments: &ConfinementArguments) -> Result<bool> {
    match arguments.ipc.as_deref() {
        Some("private" | "shareable") => Ok(false),
        Some("none") => bail!("invalid --ipc: every container has a /dev/shm"),
        mode => host(mode, "ipc"),
    }
}

/// Tells whether the host's is wanted.
fn host(mode: Option<&str>, flag: &str) -> Result<bool> {
    match mode {
        None | Some("") => Ok(false),
        Some("host") => Ok(true),
        Some(mode) if mode.starts_with("container:") => {
            bail!("invalid --{flag} {mode:?}: containers don't know each other")
        }
        Some(mode) => bail!("invalid --{flag} {mode:?}: expected host"),
    }
}

/// Kernel parameters that every IPC namespace has of its own.
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

/// Reads `NAME=VALUE`, of a parameter that is the container's alone.
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

/// Returns the devices that `HOST[:CONTAINER[:PERMISSIONS]]` names.
fn devices(text: &str) -> Result<Vec<Mount>> {
    let is_mode = |text: &str| !text.is_empty() && text.bytes().all(|byte| b"rwm".contains(&byte));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, target, mode) = match *parts.as_slice() {
        [host] => (host, host, "rwm"),
        [host, mode] if is_mode(mode) => (host, host, mode),
        [host, target] => (host, target, "rwm"),
        [host, target, mode] => (host, target, mode),
        _ => bail!("expected HOST[:CONTAINER[:rwm]]"),
    };
    if !is_mode(mode) {
        bail!("{mode:?} is no permission as rwm");
    }
    if !(mode.contains('r') && mode.contains('w')) {
        bail!("kiln passes devices on to be read and written: rwm");
    }
    let (host, target) = (Path::new(host), container_path(target)?);
    let found = host.metadata().with_context(|| format!("look at {}", host.display()))?;
    let mount = |path: PathBuf, target| Mount { target, kind: MountKind::Device(path) };
    if !found.is_dir() {
        if !is_device(&found) {
            bail!("{} is no device", host.display());
        }
        return Ok(vec![mount(host.to_owned(), target)]);
    }
    let mut all = Vec::new();
    for entry in host.read_dir().with_context(|| format!("list {}", host.display()))? {
        let entry = entry?;
        if is_device(&entry.metadata()?) {
            all.push(mount(entry.path(), target.join(entry.file_name())));
        }
    }
    if all.is_empty() {
        bail!("there is no device in {}", host.display());
    }
    Ok(all)
}

fn is_device(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::FileTypeExt;
    let kind = metadata.file_type();
    kind.is_char_device() || kind.is_block_device()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::flags::tests::run as run_arguments;

    fn read(typed: &[&str]) -> Result<Confinement> {
        Confinement::new(&run_arguments(&[typed, &["img"]].concat()))
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
    fn security_options_are_dockers() {
        assert!(privileges(&["--security-opt", "no-new-privileges"]).no_new_privileges);
        assert!(privileges(&["--security-opt", "no-new-privileges:true"]).no_new_privileges);
        assert!(!privileges(&["--security-opt", "no-new-privileges=false"]).no_new_privileges);
        assert!(!privileges(&["--security-opt", "seccomp=unconfined"]).is_filtered);
        for accepted in ["seccomp=builtin", "apparmor=unconfined", "label:disable"] {
            assert_eq!(privileges(&["--security-opt", accepted]), Privileges::default());
        }
        for refused in ["seccomp=/f", "apparmor=x", "label=type:x", "x", "no-new-privileges=x"] {
            let problem = problem(&["--security-opt", refused]);
            assert!(problem.starts_with(&format!("invalid --security-opt {refused:?}: ")));
        }
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
    fn devices_are_named_and_listed() {
        let mounts = |text| devices(text).unwrap();
        let mount = |path: &str, target: &str| Mount {
            target: target.into(),
            kind: MountKind::Device(path.into()),
        };
        assert_eq!(mounts("/dev/null"), [mount("/dev/null", "/dev/null")]);
        assert_eq!(mounts("/dev/null:rw"), [mount("/dev/null", "/dev/null")]);
        assert_eq!(mounts("/dev/null:/dev/x:rwm"), [mount("/dev/null", "/dev/x")]);
        assert!(mounts("/dev:/x").contains(&mount("/dev/zero", "/x/zero")));
        for text in ["/no/such", "/etc/passwd", "/dev/null:x", "/dev/null:/x:r", "/dev/null:/x:q"] {
            assert!(devices(text).is_err(), "{text}");
        }
    }

    #[test]
    fn namespaces_are_the_hosts_by_name_alone() {
        let shared = |typed: &[&str]| read(typed).unwrap().shared;
        assert_eq!(shared(&["--ipc", "private", "--uts", ""]), SharedNamespaces::default());
        let both = SharedNamespaces { ipc: true, uts: true };
        assert_eq!(shared(&["--ipc=host", "--uts", "host", "--userns", "host"]), both);
        for typed in [["--ipc", "none"], ["--uts", "x"], ["--ipc", "container:x"]] {
            assert!(read(&typed).is_err(), "{typed:?}");
        }
        assert!(read(&["--uts", "host", "-h", "x"]).is_err());
        let parameter = read(&["--sysctl", "net.core.somaxconn=1"]).unwrap();
        assert!(parameter.check_network(Network::Host).is_err());
        parameter.check_network(Network::Namespace).unwrap();
        assert!(read(&["--oom-score-adj", "1001"]).is_err());
    }
}
