//! The parts of a worker that live as long as the process.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_sandbox::Isolation;
use kiln_sandbox::cgroup::Groups;
use kiln_sandbox::network::Bridge;
use kiln_store::Store;
use tokio::sync::Semaphore;

use crate::cdi::CdiOptions;
use crate::runner::{Runner, SandboxRunner};

/// The parts of a worker that all builds of a process share: the store, the sandbox, the network and
/// the host's git. Cloning is cheap.
///
/// ```
/// use kiln_store::Store;
/// use kiln_worker::{DefaultNetwork, Machine};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = tempfile::tempdir()?;
/// let store = Store::open(directory.path())?;
/// let machine = Machine { network: DefaultNetwork::None, ..Machine::new(store) };
/// # let _ = machine;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Machine {
    /// The store that holds layers and receives results.
    pub store: Store,
    /// The network of `RUN` steps without a network option.
    pub network: DefaultNetwork,
    /// The content of `/etc/resolv.conf` in `RUN` steps that use the host's network or none.
    pub resolv_conf: Arc<[u8]>,
    /// The runner of the programs of `RUN` steps.
    pub runner: Arc<dyn Runner>,
    /// The environment of the host's git.
    pub git: GitEnvironment,
    /// The control groups of the programs of steps.
    pub groups: Groups,
    /// The programs and file operations that run at once in all builds together. `None` for no
    /// limit.
    pub steps: Option<Arc<Semaphore>>,
    /// The places of the descriptions of CDI devices.
    pub cdi: CdiOptions,
}

impl Machine {
    /// Returns a machine whose steps run in the sandbox and use the host's network.
    pub fn new(store: Store) -> Self {
        Self {
            network: DefaultNetwork::Host,
            resolv_conf: Arc::default(),
            runner: Arc::new(SandboxRunner::new(&store, Isolation::strongest())),
            git: GitEnvironment::default(),
            groups: Groups::new(),
            steps: None,
            cdi: CdiOptions::default(),
            store,
        }
    }
}

/// The network of steps without a network option.
#[derive(Clone, Debug, Default)]
pub enum DefaultNetwork {
    /// A network namespace for each step on this bridge. The host's network if the bridge isn't
    /// available.
    Bridge(Bridge),
    /// The network of the host.
    #[default]
    Host,
    /// A loopback device only.
    None,
}

/// The environment of the host's git.
#[derive(Clone, Debug, Default)]
pub struct GitEnvironment {
    /// All environment variables: the program path, proxies, certificates and the like.
    pub variables: Vec<(OsString, OsString)>,
    /// The file with the hosts that the user knows. `None` for ssh's default, which in a user
    /// namespace would be root's.
    pub known_hosts: Option<PathBuf>,
}
