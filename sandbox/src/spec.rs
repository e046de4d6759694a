//! The specification of a program and its environment, as plain data that a test can inspect.
//!
//! Paths of the host (layers, sources) are trusted. Names inside the container (targets, selectors,
//! the working directory, the user) may come from a hostile Dockerfile or image. The sandbox
//! resolves them inside the root that they belong to.

use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_tree::Upper;
use serde::{Deserialize, Serialize};

use super::capabilities::Capabilities;
use super::cgroup::{DeviceRule, HierarchyView, Membership};
use super::seccomp::SeccompProfile;

/// The specification of a program in a sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The root file system of the program.
    pub rootfs: Tree,
    /// The paths of the device nodes in the root file system, relative to it. `None` if the caller
    /// doesn't know them. Only a sandbox without mounts uses them.
    pub device_nodes: Option<Vec<PathBuf>>,
    /// `true` if the root file system is read-only.
    pub readonly_rootfs: bool,
    /// The mounts besides `/proc`, `/dev` and `/sys`, in the order of mounting.
    pub mounts: Vec<Mount>,
    /// The targets of mounts whose trees are kept after the program has ended; `/` for the root
    /// file system. A [`Seal`](super::Seal) closes them.
    pub kept: Vec<PathBuf>,
    /// The process that runs the program.
    pub process: Process,
    /// The host name of the container.
    pub hostname: String,
    /// The NIS domain name. `None` for the host's.
    pub domainname: Option<String>,
    /// The network of the process.
    pub network: Network,
    /// The level of confinement.
    pub security: Security,
    /// The rights of the process at [`Security::Sandbox`].
    pub privileges: Privileges,
    /// `true` if the process can't change modes in `/proc`, which apply to all programs of the
    /// machine. The protection takes about a millisecond per program.
    pub protects_proc: bool,
    /// The host's namespaces that the process shares.
    pub shared: SharedNamespaces,
    /// The kernel parameters of the process's namespaces.
    pub sysctls: Vec<Sysctl>,
    /// The control groups that the process joins.
    pub cgroups: Membership,
    /// The hierarchies that the process sees below `/sys/fs/cgroup`. A host with version 2 only
    /// always shows it.
    pub shown_cgroups: Vec<HierarchyView>,
    /// The size of `/dev/shm` in bytes. `None` for no `/dev/shm`.
    pub shm_size: Option<u64>,
    /// The devices that the program may open in addition to harmless ones, if its control groups
    /// filter devices. An OCI runtime filters them itself.
    pub devices: Vec<DeviceRule>,
    /// Annotations for an OCI runtime. The sandbox ignores them.
    pub annotations: BTreeMap<String, String>,
    /// The path of the OCI runtime that runs the program instead of the sandbox.
    pub runtime: Option<PathBuf>,
}

impl Spec {
    /// Returns the specification of `args` in `rootfs`. Root runs it in `/`, with the host's
    /// network and without environment variables or further mounts.
    pub fn new(rootfs: Tree, args: Vec<String>) -> Self {
        Self {
            rootfs,
            device_nodes: None,
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
    /// Returns `true` if device nodes in the root file system and in `/dev` can be opened.
    pub(super) fn opens_devices(&self) -> bool {
        !self.security.is_sandbox() || self.cgroups.filters_devices
    }
}

/// The default host name of steps, which is BuildKit's.
pub const DEFAULT_HOSTNAME: &str = "buildkitsandbox";

/// The default size of `/dev/shm` in bytes.
pub const DEFAULT_SHM_SIZE: u64 = 64 << 20;

/// A file tree on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tree {
    /// A directory of the host.
    Directory(PathBuf),
    /// Directories on top of each other, as an overlay.
    Overlay {
        /// The read-only directories, uppermost first. Without any, the tree is the same as
        /// [`Tree::Directory`] of the upper one.
        lowers: Vec<PathBuf>,
        /// The directory for changes. `None` for a read-only tree.
        upper: Option<Upper>,
    },
}

impl Tree {
    /// Returns the tree's directory, if the tree is a single one.
    pub(super) fn directory(&self) -> Option<&PathBuf> {
        match self {
            Self::Directory(path) => Some(path),
            Self::Overlay { lowers, upper } => match (lowers.as_slice(), upper) {
                ([], Some(upper)) => Some(&upper.fs),
                // The kernel doesn't mount an overlay of a single directory.
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

/// A mount in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// The absolute path in the container. The sandbox resolves links inside the container. It
    /// creates missing parts, and removes those in the root file system afterwards.
    pub target: PathBuf,
    /// The source and type of the mount.
    pub kind: MountKind,
}

/// The source and type of a mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    /// A file or directory of a tree.
    Bind {
        /// The tree that contains the source.
        tree: Tree,
        /// The path in the tree, resolved inside it. Empty for the whole tree. (A file of the host
        /// is `Directory(its path)` with an empty selector.)
        selector: PathBuf,
        /// `true` if the mount is read-only.
        readonly: bool,
        /// `true` if the mounts below the source are included.
        recursive: bool,
        /// The propagation of later mounts. Only for a whole directory of the host.
        propagation: Propagation,
    },
    /// An empty file system in memory.
    Tmpfs {
        /// The maximum size in bytes. `None` for the kernel's default, half of the memory.
        size: Option<u64>,
        /// The permission bits of the root directory.
        mode: u32,
        /// The other mount options.
        options: TmpfsOptions,
    },
    /// A device of the host, for reading and writing.
    Device(
        /// The device's path on the host.
        PathBuf,
    ),
    /// A file in memory with this content, which is never written to a disk. It may grow by at most
    /// a mebibyte.
    File {
        /// The content of the file.
        #[serde(with = "hex_bytes")]
        contents: Vec<u8>,
        /// The permission bits of the file.
        mode: u32,
        /// The user ID of the owner.
        uid: u32,
        /// The group ID of the owner.
        gid: u32,
        /// `true` if the file is read-only.
        readonly: bool,
    },
}

/// The propagation of later mounts between the host and the container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Propagation {
    /// Neither side sees the other's mounts.
    #[default]
    Private,
    /// The container sees the host's mounts.
    Slave,
    /// Each side sees the other's mounts.
    Shared,
}

/// The options of a file system in memory. Device nodes in it can never be opened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TmpfsOptions {
    /// `true` if the file system is read-only.
    pub readonly: bool,
    /// `true` if files in it can't be executed.
    pub noexec: bool,
    /// `true` if setuid bits have an effect.
    pub suid: bool,
    /// The maximum number of files and directories. `None` for the kernel's default.
    pub inodes: Option<u64>,
    /// The user ID of the root directory's owner.
    pub uid: u32,
    /// The group ID of the root directory's owner.
    pub gid: u32,
    /// The rule for updating access times.
    pub access_times: AccessTimes,
}

/// The rule for updating the access times of files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum AccessTimes {
    /// After a change, and once a day (`relatime`).
    #[default]
    Relative,
    /// At no access (`noatime`).
    Never,
    /// At each access (`strictatime`).
    Always,
}

/// The process of a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The program and its arguments. The sandbox looks the program up in the `PATH` of `env`.
    pub args: Vec<String>,
    /// The whole environment as `NAME=value`. The sandbox adds `HOME` if it is missing.
    pub env: Vec<String>,
    /// The working directory. If it is missing, the sandbox creates it and gives it to the user.
    pub cwd: PathBuf,
    /// The user that runs the process.
    pub user: User,
    /// Additional groups of the user: names from the root file system's group file, or numbers.
    pub groups: Vec<String>,
    /// The size of the terminal for standard input, output and error. `None` for pipes.
    pub terminal: Option<TerminalSize>,
    /// The resource limits that differ from the caller's.
    pub rlimits: Vec<Rlimit>,
    /// The kernel's preference for killing the process when memory is short, from -1000 to 1000.
    /// `None` for the caller's.
    pub oom_score_adj: Option<i32>,
    /// `true` if kiln stays as process 1, forwards signals to the program and reaps orphans.
    pub has_init: bool,
}

/// The user of a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum User {
    /// A user in the format of `USER`, looked up in the root file system. Empty for root.
    Named(String),
    /// A user by numbers.
    Ids {
        /// The user ID of the process.
        uid: u32,
        /// The primary group ID.
        gid: u32,
        /// The supplementary group IDs.
        groups: Vec<u32>,
    },
}

/// The size of a terminal in characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    /// The number of lines.
    pub rows: u16,
    /// The number of characters per line.
    pub columns: u16,
}

/// A resource limit: setrlimit(2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rlimit {
    /// The name without `RLIMIT_`, such as `nofile`.
    pub name: String,
    /// The enforced limit. `None` for unlimited.
    pub soft: Option<u64>,
    /// The maximum that the process may raise the soft limit to. `None` for unlimited.
    pub hard: Option<u64>,
}

/// The network of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Network {
    /// The network namespace of kiln itself.
    Host,
    /// A network namespace with only a loopback interface.
    None,
    /// An existing network namespace: [`Io::namespace`](super::Io::namespace).
    Namespace,
}

/// The level of a process's confinement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Security {
    /// The confinement of Docker's containers by default.
    #[default]
    Sandbox,
    /// All of kiln's own rights (`RUN --security=insecure`): all capabilities and system calls,
    /// device nodes, and writable `/proc` and `/sys`. Such a program isn't confined and can take
    /// over the machine.
    Insecure,
    /// The same for root only, with all devices of the machine (`docker run --privileged`).
    Privileged,
}

impl Security {
    /// Returns `true` if the process is confined.
    pub(super) fn is_sandbox(self) -> bool {
        self == Self::Sandbox
    }
}

/// The rights of a process at [`Security::Sandbox`]. The default is Docker's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// The capabilities of root, which are also the most that a setuid program gains.
    pub capabilities: Capabilities,
    /// `true` if setuid bits and file capabilities have no effect. Applies at all levels of
    /// confinement.
    pub no_new_privileges: bool,
    /// The filter for system calls.
    pub calls: CallFilter,
    /// `true` if parts of `/proc` and `/sys` are hidden and others are read-only.
    pub hides_system: bool,
    /// The AppArmor profile that confines the program. The kernel must have loaded it. `None` for
    /// no profile. Applies at all levels of confinement.
    pub apparmor: Option<String>,
}

/// The system calls that a process can make.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum CallFilter {
    /// The calls that the capabilities need. Without confinement, all calls.
    #[default]
    Builtin,
    /// All calls, without a filter.
    Unconfined,
    /// The calls that a profile allows. Applies at all levels of confinement.
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

/// The host's namespaces that a process shares.
#[expect(clippy::struct_excessive_bools, reason = "each is a namespace of its own")]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedNamespaces {
    /// `true` to share message queues, semaphores and shared memory, with `/dev/shm`.
    pub ipc: bool,
    /// `true` to share the host name.
    pub uts: bool,
    /// `true` to share the host's processes. The program's processes still end with it.
    pub pid: bool,
    /// `true` to share the view of the control group hierarchies.
    pub cgroup: bool,
}

/// A kernel parameter: sysctl(8).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sysctl {
    /// The parameter's name, such as `net.ipv4.ip_forward`.
    pub name: String,
    /// The value as text, in the format of `/proc/sys`.
    pub value: String,
}

/// The encoding of bytes as a hexadecimal string, which JSON can hold for any content.
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
