//! The engine: a store with everything that builds share.
//!
//! A process that builds once has one engine. A server has one, too, and an engine beside it for each
//! build ([`Engine::beside`]): they share the machine, and what a build holds in the store ends with
//! the build.

#![expect(clippy::disallowed_methods, reason = "the file is the system's")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use kiln_images::{ImageResolver, ImageResolverOptions, PullPolicy};
use kiln_registry::Client;
use kiln_sandbox::cgroup::Groups;
use kiln_sandbox::network::{Bridge, BridgeOptions};
use kiln_sandbox::{Isolation, Obstacle};
use kiln_store::{Snapshotter, Store, StoreOptions};
use kiln_tree::{ArchiveLimits, Ids};
use kiln_worker::{CdiOptions, DefaultNetwork, GitEnvironment, Machine, Runner, SandboxRunner};
use tokio::sync::Semaphore;

use crate::build::StepNetwork;
use crate::dns::Dns;
use crate::frontends::Frontends;

/// The options of an engine.
///
/// The engine doesn't read environment variables, the home directory or configuration files. What
/// they hold arrives here.
#[derive(Clone, Debug)]
pub struct Options {
    /// The store's root directory. It is created if it is missing.
    pub root: PathBuf,
    /// The most bytes that the store may occupy on the disk; `None` for no limit.
    pub max_storage: Option<u64>,
    /// The snapshotter; `None` for the best one that works.
    pub snapshotter: Option<Snapshotter>,
    /// The way to isolate programs.
    pub isolation: Isolation,
    /// The reasons why stronger ways to isolate programs can't be used, and this one if it can't
    /// either.
    pub obstacles: Vec<Obstacle>,
    /// `true` if the engine reads and writes files of images. The process must have its final user
    /// IDs and privileges then.
    pub has_trees: bool,
    /// The client of registries and of servers with files.
    pub registries: Client,
    /// The limits for unpacking archives.
    pub archive_limits: ArchiveLimits,
    /// The most steps that run at once in a build. By default, twice the number of processors,
    /// because many steps wait, and at least 8.
    pub jobs: usize,
    /// The programs and file operations that run at once in all builds that share the semaphore.
    /// `None` for no limit beside [`Self::jobs`].
    pub steps: Option<Arc<Semaphore>>,
    /// The lines of a `resolv.conf` that replace the machine's.
    pub dns: Dns,
    /// The file with the name servers of steps and containers: the machine's `/etc/resolv.conf`.
    /// It may be missing.
    pub resolv_conf: PathBuf,
    /// The directories of system programs, as in `PATH`. The bridge needs `nft`.
    pub search_path: OsString,
    /// The environment of the host's git.
    pub git: GitEnvironment,
    /// The socket of the SSH agent for contexts that the user names.
    pub ssh_agent: Option<PathBuf>,
    /// The places of the descriptions of CDI devices.
    pub cdi: CdiOptions,
    /// The frontends that are programs of images. Without them, a Dockerfile that names one is an
    /// error.
    pub frontends: Option<Arc<dyn Frontends>>,
    /// The network of steps whose graph names none.
    pub network: StepNetwork,
}

impl Options {
    /// Returns default options for a store.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            root: root.into(),
            max_storage: None,
            snapshotter: None,
            isolation: Isolation::strongest(),
            obstacles: Vec::new(),
            has_trees: true,
            registries: Client::new(kiln_registry::Options::default()),
            archive_limits: ArchiveLimits::default(),
            jobs: (threads * 2).max(8),
            steps: None,
            dns: Dns::default(),
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            search_path: OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"),
            git: GitEnvironment::default(),
            ssh_agent: None,
            cdi: CdiOptions::default(),
            frontends: None,
            network: StepNetwork::Default,
        }
    }

    /// Returns the contents of `/etc/resolv.conf`, empty without one, with the lines of
    /// [`Self::dns`].
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn resolv_conf(&self) -> Result<Vec<u8>> {
        let text = match std::fs::read(&self.resolv_conf) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.with_context(|| format!("read {}", self.resolv_conf.display()))?,
        };
        Ok(self.dns.apply(text))
    }

    /// Returns the bridge that connects steps and containers.
    ///
    /// # Errors
    /// Fails if the machine's name servers can't be read.
    pub fn bridge(&self) -> Result<Bridge> {
        let path = self.search_path.clone();
        Ok(Bridge::new(BridgeOptions { resolv_conf: self.resolv_conf()?, path }))
    }
}

/// A store with everything that builds and containers share. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Engine {
    pub(crate) store: Store,
    pub(crate) options: Options,
    /// The parts that all builds share. They are made for the first build.
    shared: Arc<Mutex<Option<Parts>>>,
}

impl Engine {
    /// Opens the store.
    ///
    /// # Errors
    /// Fails if the store can't be opened or created.
    pub fn open(options: Options) -> Result<Self> {
        tracing::debug!(root = %options.root.display(), "opening the store");
        let store = open_store(&options)
            .with_context(|| format!("open the store {}", options.root.display()))?;
        Ok(Self { store, options, shared: Arc::default() })
    }

    /// Returns an engine on the same machine for one build, with the build's own options. The store and
    /// the isolation stay this engine's. The new engine holds everything that the build uses until it is
    /// dropped.
    ///
    /// # Errors
    /// Fails if the store can't be opened once more.
    pub fn beside(&self, options: Options) -> Result<Self> {
        let store = self.store.beside().context("open the store for a build")?;
        let Options { root, max_storage, snapshotter, isolation, obstacles, has_trees, .. } =
            self.options.clone();
        let options =
            Options { root, max_storage, snapshotter, isolation, obstacles, has_trees, ..options };
        Ok(Self { store, options, shared: Arc::clone(&self.shared) })
    }

    /// Returns the engine's options.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Returns the store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Returns the client of registries.
    pub fn registries(&self) -> &Client {
        &self.options.registries
    }

    /// Returns the limits for unpacking archives.
    pub fn archive_limits(&self) -> ArchiveLimits {
        self.options.archive_limits
    }

    /// Returns the parts that all builds share, with this engine's store. The network is made anew if
    /// the machine's name servers have changed, or if it has failed.
    pub(crate) fn machine(&self) -> Result<Machine> {
        let resolv_conf = self.options.resolv_conf()?;
        // The value is valid even if another thread has panicked.
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = match shared.take() {
            Some(parts) if parts.is_current(&resolv_conf) => parts,
            earlier => self.make_parts(earlier, resolv_conf),
        };
        let Parts { runner, network, resolv_conf, groups } = shared.insert(parts).clone();
        let network = match self.options.network {
            StepNetwork::Default => network,
            StepNetwork::Host => DefaultNetwork::Host,
            StepNetwork::None => DefaultNetwork::None,
        };
        let (store, git) = (self.store.clone(), self.options.git.clone());
        let cdi = self.options.cdi.clone();
        let steps = self.options.steps.clone();
        Ok(Machine { store, network, resolv_conf, runner, git, groups, steps, cdi })
    }

    /// Makes the parts that all builds share. Keeps earlier ones apart from the network.
    fn make_parts(&self, earlier: Option<Parts>, resolv_conf: Vec<u8>) -> Parts {
        let path = self.options.search_path.clone();
        let bridge = Bridge::new(BridgeOptions { resolv_conf: resolv_conf.clone(), path });
        let (network, resolv_conf) = (DefaultNetwork::Bridge(bridge), resolv_conf.into());
        if let Some(earlier) = earlier {
            return Parts { network, resolv_conf, ..earlier };
        }
        let runner = SandboxRunner::new(&self.store, self.options.isolation)
            .with_obstacles(self.options.obstacles.clone());
        Parts { runner: Arc::new(runner), network, resolv_conf, groups: Groups::new() }
    }

    /// Returns a resolver of images outside of builds.
    pub fn images(&self, policy: PullPolicy) -> ImageResolver {
        ImageResolver::new(ImageResolverOptions { policy, ..self.image_options() })
    }

    /// Returns the options of a resolver with the engine's registries and limits.
    pub(crate) fn image_options(&self) -> ImageResolverOptions {
        ImageResolverOptions {
            archive_limits: self.options.archive_limits,
            ..ImageResolverOptions::new(self.store.clone(), self.options.registries.clone())
        }
    }
}

/// The parts of a machine that don't depend on a build's handle of the store.
#[derive(Clone, Debug)]
struct Parts {
    runner: Arc<dyn Runner>,
    network: DefaultNetwork,
    resolv_conf: Arc<[u8]>,
    groups: Groups,
}

impl Parts {
    /// Returns `true` if another build can use the network.
    fn is_current(&self, resolv_conf: &[u8]) -> bool {
        let has_failed = match &self.network {
            DefaultNetwork::Bridge(bridge) => bridge.has_failed(),
            DefaultNetwork::Host | DefaultNetwork::None => false,
        };
        !has_failed && *self.resolv_conf == *resolv_conf
    }
}

fn open_store(options: &Options) -> kiln_store::Result<Store> {
    let (max_bytes, snapshotter) = (options.max_storage, options.snapshotter);
    let store = Store::open_with(&options.root, &StoreOptions { max_bytes, snapshotter })?;
    if options.has_trees {
        store.use_ids(Ids::current())?;
    }
    Ok(store)
}
