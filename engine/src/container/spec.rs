//! The request of a container.

use std::path::PathBuf;

use kiln_sandbox::cgroup::Limits;
use kiln_sandbox::network::Port;
use kiln_sandbox::{Mount, Rlimit, TerminalSize};

use super::confinement::Confinement;
use super::volumes::Volume;

/// The request of a container. The default runs the image's own command.
#[derive(Clone, Debug, Default)]
pub struct ContainerSpec {
    /// The program and its surroundings.
    pub process: ProcessOptions,
    /// `true` if the image's files are read-only.
    pub read_only: bool,
    /// Volumes and directories of the host.
    pub volumes: Vec<Volume>,
    /// Directories in memory. They replace volumes that the image declares.
    pub tmpfs: Vec<Mount>,
    /// The size of `/dev/shm` in bytes; `None` for the default.
    pub shm_size: Option<u64>,
    /// The host name; `None` for the container's ID, or for the host's if the container shares it.
    pub hostname: Option<String>,
    /// The NIS domain name.
    pub domainname: Option<String>,
    /// The network and its ports.
    pub network: NetworkOptions,
    /// Privileges, shared namespaces and devices.
    pub confinement: Confinement,
    /// Resource limits.
    pub limits: Limits,
    /// The control group to run in; empty for one of kiln's.
    pub cgroup_parent: String,
    /// The OCI runtime that runs the container instead of the sandbox.
    pub runtime: Option<PathBuf>,
}

/// The changes to an image's process. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct ProcessOptions {
    /// The program in place of the image's entrypoint; the image's command is dropped with it. An
    /// empty text is no program.
    pub entrypoint: Option<String>,
    /// The command in place of the image's; empty for the image's.
    pub command: Vec<String>,
    /// Changes to the environment, in order.
    pub env: Vec<EnvChange>,
    /// The working directory in place of the image's.
    pub workdir: Option<PathBuf>,
    /// The user in place of the image's, as `USER[:GROUP]`.
    pub user: Option<String>,
    /// Resource limits of the process.
    pub rlimits: Vec<Rlimit>,
    /// The terminal of the process; `None` for none.
    pub terminal: Option<TerminalSize>,
    /// `true` if the environment says that there is a terminal.
    pub has_term: bool,
}

/// A change to the environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvChange {
    /// Sets a variable: `NAME=VALUE`.
    Set(String),
    /// Removes a variable by its name.
    Unset(String),
}

/// The network of a container.
#[derive(Clone, Debug, Default)]
pub struct NetworkOptions {
    /// The type of network.
    pub kind: NetworkKind,
    /// Published ports.
    pub ports: Vec<Port>,
    /// `true` if all exposed ports are published.
    pub publish_all: bool,
    /// Exposed ports in addition to the image's.
    pub exposed: Vec<Port>,
    /// Additional hosts: name and address.
    pub hosts: Vec<(String, String)>,
    /// The name resolution.
    pub names: NameServers,
}

/// The type of network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NetworkKind {
    /// A network of the container's own on a bridge.
    Bridge {
        /// `true` if the container can't run without a bridge; otherwise it falls back to the
        /// host's network.
        is_required: bool,
    },
    /// The host's network.
    Host,
    /// A loopback device only.
    #[default]
    None,
}

/// The lines of `resolv.conf` that replace the machine's.
#[derive(Clone, Debug, Default)]
pub struct NameServers {
    /// Addresses of name servers.
    pub servers: Vec<String>,
    /// Domains to look names up in; a dot alone for none.
    pub search: Vec<String>,
    /// Options of the resolver.
    pub options: Vec<String>,
}

impl NameServers {
    /// Returns a `resolv.conf` in which these lines replace the corresponding ones.
    pub fn apply(&self, resolv_conf: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(resolv_conf);
        let is_replaced = |line: &&str| match line.split_whitespace().next() {
            Some("nameserver") => !self.servers.is_empty(),
            Some("search" | "domain") => !self.search.is_empty(),
            Some("options") => !self.options.is_empty(),
            _ => false,
        };
        let mut lines: Vec<String> =
            text.lines().filter(|line| !is_replaced(line)).map(str::to_owned).collect();
        lines.extend(self.servers.iter().map(|server| format!("nameserver {server}")));
        let domains: Vec<&str> =
            self.search.iter().map(String::as_str).filter(|domain| *domain != ".").collect();
        if !domains.is_empty() {
            lines.push(format!("search {}", domains.join(" ")));
        }
        if !self.options.is_empty() {
            lines.push(format!("options {}", self.options.join(" ")));
        }
        let mut text = lines.join("\n");
        text.push('\n');
        text.into_bytes()
    }
}
