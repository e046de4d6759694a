//! What is to run, and what it is to see: plain data that a test can read.
//!
//! Paths of the host (layers, sources) are trusted. Everything that names something inside the
//! container (targets, selectors, the working directory, the user) may come from a hostile
//! Dockerfile or image and is resolved by the sandbox inside the root it belongs to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_tree::Upper;
use serde::{Deserialize, Serialize};

use super::capabilities::Capabilities;
use super::cgroup::{DeviceRule, Membership, Shown};
use super::seccomp::SeccompProfile;

/// What runs in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The root file system.
    pub rootfs: Tree,
    /// Whether the root file system can't be written.
    pub readonly_rootfs: bool,
    /// Mounts besides `/proc`, `/dev` and `/sys`, made in this order.
    pub mounts: Vec<Mount>,
    /// The targets of mounts, `/` for the root file system, whose trees are kept when the program has ended:
    /// a [`Seal`](super::Seal) closes them.
    pub kept: Vec<PathBuf>,
    /// The process.
    pub process: Process,
    /// The host name.
    pub hostname: String,
    /// The NIS domain name; `None` for that of the host.
    pub domainname: Option<String>,
    /// What the process can reach.
    pub network: Network,
    /// How much the process may do.
    pub security: Security,
    /// What it may where it's in the sandbox.
    pub privileges: Privileges,
    /// Whether it can't change modes in `/proc` that hold for all programs of the machine. This takes
    /// about a millisecond.
    pub protects_proc: bool,
    /// The namespaces of the host that it shares.
    pub shared: SharedNamespaces,
    /// Settings of the kernel for its namespaces.
    pub sysctls: Vec<Sysctl>,
    /// The control groups that the process runs in.
    pub cgroups: Membership,
    /// Those that it sees below `/sys/fs/cgroup`; with version 2 alone, it does in any case.
    pub shown_cgroups: Vec<Shown>,
    /// Size of `/dev/shm` in bytes; `None` for none at all.
    pub shm_size: Option<u64>,
    /// The devices that it may open besides harmless ones, where its control groups see to that. A runtime
    /// sees to it by itself.
    pub devices: Vec<DeviceRule>,
    /// What a runtime is told besides. The sandbox makes nothing of it.
    pub annotations: BTreeMap<String, String>,
    /// The OCI runtime that runs it, in place of the sandbox itself.
    pub runtime: Option<PathBuf>,
}

impl Spec {
    /// Returns the specification of `args` in `rootfs`, run by root in `/` with the host's network,
    /// no environment and no further mounts.
    pub fn new(rootfs: Tree, args: Vec<String>) -> Self {
        Self {
            rootfs,
            readonly_rootfs: false,
            mounts: Vec::new(),
            kept: Vec::new(),
            process: Process {
                args,
                env: Vec::new(),
                cwd: "/".into(),
                user: User::Named(String::new()),
                groups: Vec::new(),
                terminal: None,
                rlimits: Vec::new(),
                oom_score_adj: None,
                has_init: false,
            },
            hostname: DEFAULT_HOSTNAME.to_owned(),
            domainname: None,
            network: Network::Host,
            security: Security::Sandbox,
            privileges: Privileges::default(),
            protects_proc: false,
            shared: SharedNamespaces::default(),
            sysctls: Vec::new(),
            cgroups: Membership::default(),
            shown_cgroups: Vec::new(),
            shm_size: Some(DEFAULT_SHM_SIZE),
            devices: Vec::new(),
            annotations: BTreeMap::new(),
            runtime: None,
        }
    }
}

impl Spec {
    /// Tells whether device nodes in the root file system and in `/dev` may be opened.
    pub(super) fn opens_devices(&self) -> bool {
        !self.security.is_sandbox() || self.cgroups.filters_devices
    }
}

/// The host name of steps that don't ask for one, BuildKit's.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// The size of `/dev/shm` where nobody asks for another.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// A file tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// A directory of the host as it is.
    Directory(PathBuf),
    /// Directories on top of each other.
    Overlay {
        /// The read-only directories, uppermost first. None at all is the same as
        /// [`Tree::Directory`] of the upper one.
        lowers: Vec<PathBuf>,
        /// Where changes go; `None` for a tree that can't be written.
        upper: Option<Upper>,
    },
}

impl Tree {
    /// Returns the directory that it is, where it is a single one.
    pub(super) fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Overlay { lowers, upper } => match (lowers.as_slice(), upper) {
                ([], Some(upper)) => Some(&upper.fs),
                // The kernel makes no overlay of one directory.
                ([lower], None) => Some(lower),
                _ => None,
            },
        }
    }

    /// Returns the directory that receives changes.
    pub fn upper(&self) -> Option<&PathBuf> {
        match self {
            Self::Directory(_) => None,
            Self::Overlay { upper, .. } => upper.as_ref().map(|upper| &upper.fs),
        }
    }
}

/// A mount inside the root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// Where: an absolute path in the container. Links on the way are followed inside it. What is
    /// missing is made, and in the root file system removed again afterwards.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory.
    Bind {
        /// The tree that it is in.
        tree: Tree,
        /// Which part of the tree, resolved inside it; empty for all of it. (A file of the host is
        /// `Directory(its path)` with an empty selector.)
        selector: PathBuf,
        /// Whether it can't be written.
        readonly: bool,
        /// Whether what is mounted below it comes along.
        recursive: bool,
        /// Whether mounts that are made later come along. Of a directory of the host as a whole alone.
        propagation: Propagation,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// Most bytes that it may hold; `None` for the kernel's default, half of the memory.
        size: Option<u64>,
        /// Permission bits of its root.
        mode: u32,
        /// What else it's mounted with.
        options: TmpfsOptions,
    },
    /// A device of the host, to read and write.
    Device(
        /// Its path there.
        PathBuf,
    ),
    /// A file with this content, kept in memory: it never gets to a disk. It may grow by a mebibyte
    /// at most.
    File {
        /// The content.
        #[serde(with = "hex_bytes")]
        contents: Vec<u8>,
        /// Permission bits.
        mode: u32,
        /// Owner.
        uid: u32,
        /// Group.
        gid: u32,
        /// Whether it can't be written.
        readonly: bool,
    },
}

/// Whether mounts that are made below another one later are seen on its other side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// No.
    #[default]
    Private,
    /// The container sees those of the host.
    Slave,
    /// Either sees those of the other.
    Shared,
}

/// Options of a file system in memory. Device nodes in it can never be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// Whether it can't be written.
    pub readonly: bool,
    /// Whether nothing in it can be executed.
    pub noexec: bool,
    /// Whether setuid bits have their effect.
    pub suid: bool,
    /// Most files and directories; `None` for the kernel's default.
    pub inodes: Option<u64>,
    /// The user that its root belongs to.
    pub uid: u32,
    /// The group that its root belongs to.
    pub gid: u32,
    /// When times of access are noted.
    pub access_times: AccessTimes,
}

/// When the times at which files were read are noted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessTimes {
    /// After a change, and once a day.
    #[default]
    Relative,
    /// Never.
    Never,
    /// Each time.
    Always,
}

/// The process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program, looked up in the `PATH` of `env`, and its arguments.
    pub args: Vec<String>,
    /// The whole environment, as `NAME=value`. `HOME` is added where it is missing.
    pub env: Vec<String>,
    /// The working directory; made, and given to the user, where it is missing.
    pub cwd: PathBuf,
    /// Who runs it.
    pub user: User,
    /// Further groups of the user: names, looked up in the root file system, or numbers.
    pub groups: Vec<String>,
    /// A terminal of this size for standard input, output and error; `None` for pipes.
    pub terminal: Option<TerminalSize>,
    /// Resource limits that differ from the caller's.
    pub rlimits: Vec<Rlimit>,
    /// How soon the kernel kills it where memory is short, from -1000 to 1000; `None` for the caller's.
    pub oom_score_adj: Option<i32>,
    /// Whether kiln stays as process 1, passes signals on to the program and reaps orphans.
    pub has_init: bool,
}

/// Who runs a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// As in `USER`: looked up in the root file system; empty for root.
    Named(String),
    /// By numbers.
    Ids {
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
        /// Supplementary groups.
        groups: Vec<u32>,
    },
}

/// Size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// Lines.
    pub rows: u16,
    /// Characters of a line.
    pub columns: u16,
}

/// A resource limit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// Its name, as `nofile`.
    pub name: String,
    /// What is enforced; `None` for no limit.
    pub soft: Option<u64>,
    /// What the process may raise it to.
    pub hard: Option<u64>,
}

/// What a process can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network as kiln itself sees it.
    Host,
    /// Its own loopback interface.
    None,
    /// A network namespace that is there already: [`Io::namespace`](super::Io::namespace).
    Namespace,
}

/// How much a process may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// What Docker lets a container do by default.
    #[default]
    Sandbox,
    /// Everything that kiln itself may (`RUN --security=insecure`): all capabilities and system
    /// calls, device nodes, a `/proc` and a `/sys` that can be written. It's no sandbox: such a
    /// program can take the machine over.
    Insecure,
    /// The same for root alone, with all devices of the machine (`docker run --privileged`).
    Privileged,
}

impl Security {
    /// Tells whether the process is confined at all.
    pub(super) fn is_sandbox(self) -> bool {
        self == Self::Sandbox
    }
}

/// What a process in the sandbox may; by default what Docker lets a container do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// The capabilities that root has, and the most that a setuid program gains.
    pub capabilities: Capabilities,
    /// Whether setuid bits and capabilities of files have no effect. Holds outside of the sandbox, too.
    pub no_new_privileges: bool,
    /// Which system calls can be made.
    pub calls: CallFilter,
    /// Whether parts of `/proc` and `/sys` can't be seen, and others can't be written.
    pub hides_system: bool,
    /// The AppArmor profile that confines the program, which the kernel has loaded; `None` for none. Holds
    /// outside of the sandbox, too.
    pub apparmor: Option<String>,
}

/// Which system calls a process can make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallFilter {
    /// In the sandbox, those that the capabilities need; outside of it all.
    #[default]
    Builtin,
    /// All.
    Unconfined,
    /// Those that a profile allows. Holds outside of the sandbox, too.
    Profile(SeccompProfile),
}

impl Default for Privileges {
    fn default() -> Self {
        Self {
            capabilities: Capabilities::DEFAULT,
            no_new_privileges: false,
            calls: CallFilter::Builtin,
            hides_system: true,
            apparmor: None,
        }
    }
}

/// Namespaces that a process has in common with the host.
#[expect(clippy::struct_excessive_bools, reason = "each is a namespace of its own")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNamespaces {
    /// Message queues, semaphores and shared memory, with `/dev/shm`.
    pub ipc: bool,
    /// The host's name.
    pub uts: bool,
    /// Processes. What the process has started ends with it all the same.
    pub pid: bool,
    /// The place in the hierarchies of control groups.
    pub cgroup: bool,
}

/// A setting of the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// Its name, as `net.ipv4.ip_forward`.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Bytes as a string of hexadecimal digits, which JSON can carry whatever they are.
mod hex_bytes {
    use std::fmt::Write as _;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing to a string doesn't fail.
            let _ = write!(text, "{byte:02x}");
        }
        to.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(from)?;
        let digit = |byte: u8| {
            char::from(byte).to_digit(16).ok_or_else(|| D::Error::custom("no hexadecimal digit"))
        };
        text.as_bytes()
            .chunks(2)
            .map(|pair| match pair {
                [high, low] => Ok((digit(*high)? << 4 | digit(*low)?) as u8),
                _ => Err(D::Error::custom("half a byte")),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spec_survives_the_way_to_the_sandbox() {
        let mut spec = Spec::new(Tree::Directory("/r".into()), vec!["true".into()]);
        spec.mounts.push(Mount {
            target: "/run/secret".into(),
            kind: MountKind::File {
                contents: vec![0, 255, 10],
                mode: 0o400,
                uid: 0,
                gid: 0,
                readonly: true,
            },
        });
        let text = serde_json::to_string(&spec).unwrap();
        assert_eq!(serde_json::from_str::<Spec>(&text).unwrap(), spec);
    }
}
