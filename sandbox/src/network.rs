//! The default network: namespaces on a bridge with NAT.
//!
//! # State
//!
//! kiln has no daemon and keeps no state on disk. The kernel holds everything:
//!
//! - The first kiln that needs them creates the bridge `kiln0` and the packet filter table `inet
//!   kiln`. They stay, as Docker's do. Later kilns reuse them and repair missing parts. An
//!   administrator may create `kiln0` beforehand with an address of their choice. kiln holds the
//!   lock `/run/kiln/network.lock` meanwhile.
//! - Each step has its own [namespace](NetworkNamespace), which vanishes with the step's processes.
//!   No namespace is used twice, so no step sees the addresses, rules, connections or sockets of
//!   another.
//! - Published [ports](Published) are sockets and rules that the kernel removes when the process
//!   ends.
//!
//! # Preparation
//!
//! Creating a namespace takes a few milliseconds. So kiln starts to create the next one when a step
//! takes one. It starts to create the first when it knows that a step will run, while it prepares
//! the step's files. A build whose steps are all cached creates none.
//!
//! # Requirements
//!
//! The network requires root in the machine's initial user namespace, `CAP_NET_ADMIN`, and the
//! program `nft`. Otherwise kiln uses the host's network.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

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

pub use error::{NetworkError, NetworkHint};
use host::Host;
use namespace::Inside;
pub use namespace::NetworkNamespace;
pub use ports::{Endpoint, Port, Protocol, Published};
use resolver::Resolver;

/// The number of namespaces that are kept ready for later steps.
const AHEAD: usize = 1;

/// The options of the bridge.
#[derive(Clone, Debug, Default)]
pub struct BridgeOptions {
    /// The content of the host's `/etc/resolv.conf`.
    pub resolv_conf: Vec<u8>,
    /// The search path for the host's programs, in the format of `PATH`.
    pub path: OsString,
}

/// A source of network namespaces. Cloning is cheap. Nothing is created before the first use.
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

type PendingNamespace = AbortOnDropHandle<Result<NetworkNamespace, NetworkError>>;

#[derive(Debug, Default)]
struct Pool {
    /// The number of announced steps that haven't taken a namespace yet.
    expected: usize,
    coming: VecDeque<PendingNamespace>,
}

impl Bridge {
    /// Returns the bridge without creating it. That may fail later.
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

    /// Starts to create namespaces for announced steps.
    pub fn prepare(&self) {
        let mut pool = self.pool();
        while pool.coming.len() < AHEAD.min(pool.expected) {
            let inner = Arc::clone(&self.inner);
            let coming = self.inner.tasks.spawn(async move { inner.create().await });
            pool.coming.push_back(AbortOnDropHandle::new(coming));
        }
    }

    /// Returns a namespace for an announced step and starts to create the next one.
    ///
    /// # Errors
    /// Fails if the machine can't provide the network. [`Bridge::has_worked`] tells that from other
    /// reasons.
    pub async fn namespace(&self) -> Result<NetworkNamespace, NetworkError> {
        let mut namespace = self.namespace_soon().await?;
        namespace.ready().await?;
        self.inner.worked.store(true, Ordering::Relaxed);
        Ok(namespace)
    }

    /// Like [`Bridge::namespace`], but doesn't wait until the namespace is
    /// [ready](NetworkNamespace::ready).
    ///
    /// # Errors
    /// Fails like [`Bridge::namespace`], except for errors that only occur later.
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

    /// Returns `true` if a namespace was ever created.
    pub fn has_worked(&self) -> bool {
        self.inner.worked.load(Ordering::Relaxed)
    }

    /// Publishes ports of a namespace on the host.
    ///
    /// # Errors
    /// Fails if a port of the host is in use.
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
        // No holder of the lock leaves the pool inconsistent.
        self.inner.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn create(&self) -> Result<NetworkNamespace, NetworkError> {
        privileged()?;
        let resolver = self.resolver.get_or_init(|| Resolver::new(&self.options.resolv_conf));
        let (host, inside) = tokio::join!(self.host(resolver), Inside::make(resolver));
        let (host, inside) = (host?, inside?);
        // The host's rules are written at the same time.
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

/// Fails if this process lacks the required rights.
fn privileged() -> Result<(), NetworkError> {
    let refuse = |problem: &str| Err(NetworkError::Unavailable(problem.to_owned()));
    if !rustix::process::geteuid().is_root() {
        return refuse("that takes root");
    }
    // The initial user namespace maps all users.
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
