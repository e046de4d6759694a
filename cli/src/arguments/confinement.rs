//! The flags of docker's that set a container's privileges.

use clap::Args;

use super::namespaces::NamespaceArguments;

/// The options that set privileges, namespaces and devices.
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
    /// no-new-privileges, or the system calls that can be made: seccomp=FILE, unconfined or builtin
    #[arg(long, value_name = "OPTION")]
    pub(crate) security_opt: Vec<String>,
    /// Give the command's user another group: a name or a number
    #[arg(long, value_name = "GROUP")]
    pub(crate) group_add: Vec<String>,
    /// Give the container a device of the host, or all those of a directory
    #[arg(long = "device", value_name = "HOST[:CONTAINER[:rwm]]")]
    pub(crate) devices: Vec<String>,
    /// Let devices be opened whose nodes the container makes itself, as "c 1:3 rwm"
    #[arg(long = "device-cgroup-rule", value_name = "RULE")]
    pub(crate) device_rules: Vec<String>,
    /// Set a kernel parameter of the container's namespaces, as net.core.somaxconn=1024
    #[arg(long = "sysctl", value_name = "NAME=VALUE")]
    pub(crate) sysctls: Vec<String>,
    /// The namespaces that the container shares with the host
    #[command(flatten)]
    pub(crate) namespaces: NamespaceArguments,
    /// Tell an OCI runtime something about the container
    #[arg(long = "annotation", value_name = "NAME=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// The priority at which the kernel kills the container if memory is short, from -1000 to 1000
    #[arg(long, value_name = "NUMBER")]
    pub(crate) oom_score_adj: Option<i32>,
    /// Run a process beside the command that passes signals on and reaps orphans
    #[arg(long)]
    pub(crate) init: bool,
}
