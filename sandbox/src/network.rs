//! The default network: namespaces on a bridge with NAT.
//!
//! # What there is, and who keeps it
//!
//! There is no daemon, and nothing is written down: everything is the kernel's.
//!
//! - The bridge `kiln0` and the table `inet kiln` of packet filter rules are made by the first kiln
//!   that needs them, and stay, as Docker's do; whoever comes next finds them, and mends what is
//!   missing. An administrator may make `kiln0` beforehand, with an address of their choice. One
//!   lock, `/run/kiln/network.lock`, is held meanwhile.
//! - Each step has a [namespace](NetworkNamespace) of its own, which goes when the step's processes
//!   are gone. None is used twice: what a step leaves in one (addresses, rules, connections,
//!   sockets) is nobody else's.
//! - Published [ports](Published) are sockets and rules that the kernel removes when the process
//!   ends.
//!
//! # Ahead of need
//!
//! Making a namespace takes a few milliseconds. So the next one is begun when a step takes one, and
//! the first when it is known that a step will run, while its files are prepared. A build whose
//! steps are all known never comes here.
//!
//! # What it takes
//!
//! Root in the machine's own user namespace, `CAP_NET_ADMIN`, and the program `nft`. Whoever has
//! less uses the host's network instead.

mod error;
mod firewall;
mod forwarding;
mod generation;
mod host;
mod namespace;
mod netlink;
mod ports;
mod proxy;
mod relay;
mod resolver;
mod rules;
mod subnet;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities};
use tokio::sync::OnceCell;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

pub use error::NetworkError;
use host::Host;
use namespace::Inside;
pub use namespace::NetworkNamespace;
pub use ports::{Endpoint, Port, Protocol, Published};
use resolver::Resolver;

/// How many namespaces are kept ready for steps to come.
const AHEAD: usize = 1;

/// What the bridge is made with.
#[derive(Clone, Debug, Default)]
pub struct BridgeOptions {
    /// The host's `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// Where programs of the host are, as in `PATH`.
    pub path: OsString,
}

/// Gives out namespaces. Cheap to clone; nothing is made before it is needed.
#[derive(Clone, Debug)]
pub struct Bridge {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: BridgeOptions,
    resolver: OnceLock<Resolver>,
    host: OnceCell<Result<Host, NetworkError>>,
    pool: Mutex<Pool>,
    tasks: TaskTracker,
    worked: AtomicBool,
}

type Coming = AbortOnDropHandle<Result<NetworkNamespace, NetworkError>>;

#[derive(Debug, Default)]
struct Pool {
    /// How many steps may still come.
    expected: usize,
    coming: VecDeque<Coming>,
}

impl Bridge {
    /// Returns the bridge, which may turn out not to be possible.
    pub fn new(options: BridgeOptions) -> Self {
        Self {
            inner: Arc::new(Inner {
                options,
                resolver: OnceLock::new(),
                host: OnceCell::new(),
                pool: Mutex::default(),
                tasks: TaskTracker::new(),
                worked: AtomicBool::new(false),
            }),
        }
    }

    /// Announces a step that may need a namespace.
    pub fn expect_step(&self) {
        self.pool().expected += 1;
    }

    /// Begins to make namespaces for announced steps.
    pub fn prepare(&self) {
        let mut pool = self.pool();
        while pool.coming.len() < AHEAD.min(pool.expected) {
            let inner = Arc::clone(&self.inner);
            let coming = self.inner.tasks.spawn(async move { inner.create().await });
            pool.coming.push_back(AbortOnDropHandle::new(coming));
        }
    }

    /// Returns a namespace for an announced step, and begins to make the next one.
    ///
    /// # Errors
    /// Fails where the machine can't do it, which [`Bridge::has_worked`] tells from other reasons.
    pub async fn namespace(&self) -> Result<NetworkNamespace, NetworkError> {
        let mut namespace = self.namespace_soon().await?;
        namespace.ready().await?;
        self.inner.worked.store(true, Ordering::Relaxed);
        Ok(namespace)
    }

    /// As [`Bridge::namespace`], but doesn't wait until it is [ready](NetworkNamespace::ready).
    ///
    /// # Errors
    /// As there, but for what can only fail later.
    pub async fn namespace_soon(&self) -> Result<NetworkNamespace, NetworkError> {
        let coming = {
            let mut pool = self.pool();
            pool.expected = pool.expected.saturating_sub(1);
            pool.coming.pop_front()
        };
        self.prepare();
        match coming {
            Some(coming) => coming.await.unwrap_or_else(|_| {
                Err(NetworkError::Unavailable("the network's preparation has ended".to_owned()))
            }),
            None => self.inner.create().await,
        }
    }

    /// Tells whether there was ever a namespace.
    pub fn has_worked(&self) -> bool {
        self.inner.worked.load(Ordering::Relaxed)
    }

    /// Publishes ports of a namespace on the host.
    ///
    /// # Errors
    /// Fails where a port of the host is taken.
    pub async fn publish(
        &self,
        namespace: &NetworkNamespace,
        ports: &[Port],
    ) -> Result<Published, NetworkError> {
        let gone = || NetworkError::Unavailable("there is no bridge".to_owned());
        let host = self.inner.host.get().and_then(|host| host.as_ref().ok()).ok_or_else(gone)?;
        Published::open(&host.nft, namespace.address(), ports).await
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        // Nothing that holds it panics half way.
        self.inner.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn create(&self) -> Result<NetworkNamespace, NetworkError> {
        privileged()?;
        let resolver = self.resolver.get_or_init(|| Resolver::new(&self.options.resolv_conf));
        let (host, inside) = tokio::join!(self.host(resolver), Inside::make(resolver));
        let (host, inside) = (host?, inside?);
        // What has to be let through is decided meanwhile.
        let connected = NetworkNamespace::connect(inside, host, resolver);
        let (namespace, rules) = tokio::join!(connected, host.rules(&self.options));
        let (namespace, ()) = (namespace?, rules?);
        Ok(namespace)
    }

    async fn host(&self, resolver: &Resolver) -> Result<&Host, NetworkError> {
        let prepare = || Host::prepare(&self.options, resolver);
        self.host.get_or_init(prepare).await.as_ref().map_err(Clone::clone)
    }
}

/// Refuses where the rights are missing that it takes.
fn privileged() -> Result<(), NetworkError> {
    let refuse = |problem: &str| Err(NetworkError::Unavailable(problem.to_owned()));
    if !rustix::process::geteuid().is_root() {
        return refuse("that takes root");
    }
    // All users there are, as in the machine's own namespace.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if map.split_whitespace().ne(["0", "0", "4294967295"]) {
        return refuse("that takes root outside of any user namespace");
    }
    let has = |own: CapabilitySets| own.effective.contains(CapabilitySet::NET_ADMIN);
    if !capabilities(None).is_ok_and(has) {
        return refuse("that takes the capability CAP_NET_ADMIN");
    }
    Ok(())
}
