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
//! # Without root
//!
//! In a user namespace, the bridge is in a [gateway], a network namespace of the process's
//! own, which `pasta` or `slirp4netns` connects with the host's network. Everything else is the same.
//!
//! # Requirements
//!
//! The network requires root and `CAP_NET_ADMIN`, and the program `nft`. In a user namespace it also
//! requires `CAP_SYS_ADMIN` there, the device `/dev/net/tun`, and one of the two programs. Otherwise
//! kiln uses the host's network.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

mod error;
mod firewall;
mod forwarding;
mod gateway;
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
mod thread;
mod uplink;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustix::thread::{CapabilitySet, capabilities};
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

    /// Returns `true` if the machine couldn't provide the network. Later uses fail in the same way.
    pub fn has_failed(&self) -> bool {
        self.inner.host.get().is_some_and(Result::is_err)
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
        Published::open(host, namespace.address(), ports).await
    }

    fn pool(&self) -> std::sync::MutexGuard<'_, Pool> {
        // No holder of the lock leaves the pool inconsistent.
        self.inner.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    async fn create(&self) -> Result<NetworkNamespace, NetworkError> {
        let place = place()?;
        let resolver = self.resolver.get_or_init(|| Resolver::new(&self.options.resolv_conf));
        let (host, inside) = tokio::join!(self.host(place, resolver), Inside::make(resolver));
        let (host, inside) = (host?, inside?);
        // The host's rules are written at the same time.
        let connected = NetworkNamespace::connect(inside, host, resolver);
        let (namespace, rules) = tokio::join!(connected, host.rules(&self.options));
        let (namespace, ()) = (namespace?, rules?);
        Ok(namespace)
    }

    async fn host(&self, place: Place, resolver: &Resolver) -> Result<&Host, NetworkError> {
        let prepare = || Host::prepare(place, &self.options, resolver);
        self.host.get_or_init(prepare).await.as_ref().map_err(Clone::clone)
    }
}

/// The place of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The network namespace of this process, which controls the machine's network.
    Machine,
    /// A gateway, because this process is in a user namespace.
    UserNamespace,
}

/// Returns the place where this process may have a bridge.
fn place() -> Result<Place, NetworkError> {
    let refuse = |problem: &str| Err(NetworkError::Unavailable(problem.to_owned()));
    if !rustix::process::geteuid().is_root() {
        return refuse("that takes root");
    }
    let own = capabilities(None).map_or(CapabilitySet::empty(), |own| own.effective);
    if !own.contains(CapabilitySet::NET_ADMIN) {
        return refuse("that takes the capability CAP_NET_ADMIN");
    }
    // The initial user namespace maps all users.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    if map.split_whitespace().eq(["0", "0", "4294967295"]) {
        return Ok(Place::Machine);
    }
    if !own.contains(CapabilitySet::SYS_ADMIN) {
        return refuse("that takes the capability CAP_SYS_ADMIN");
    }
    Ok(Place::UserNamespace)
}
