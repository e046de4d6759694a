//! Namespaces that a container shares with the host: `--ipc`, `--pid`, `--uts`, `--userns`,
//! `--cgroupns`.

use clap::Args;

/// The options that share namespaces with the host.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct NamespaceArguments {
    /// Shared memory and message queues: private, shareable, host, or none for no /dev/shm
    #[arg(long, value_name = "MODE")]
    pub(crate) ipc: Option<String>,
    /// Processes: those of the container alone, or with host all of the machine
    #[arg(long, value_name = "MODE")]
    pub(crate) pid: Option<String>,
    /// The host's name, with host
    #[arg(long, value_name = "MODE")]
    pub(crate) uts: Option<String>,
    /// Users: those of kiln itself, with host, as in any case
    #[arg(long, value_name = "MODE")]
    pub(crate) userns: Option<String>,
    /// The view of control groups: private, or the host's
    #[arg(long, value_name = "MODE")]
    pub(crate) cgroupns: Option<String>,
}
