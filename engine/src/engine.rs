//! The engine: a store with everything that builds share.

#![expect(clippy::disallowed_methods, reason = "the file is the system's")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use anyhow::{Context, Result};
use kiln_images::{ImageResolver, ImageResolverOptions, PullPolicy};
use kiln_registry::Client;
use kiln_sandbox::network::{Bridge, BridgeOptions};
use kiln_sandbox::{Isolation, Obstacle};
use kiln_store::{Snapshotter, Store, StoreOptions};
use kiln_tree::{ArchiveLimits, Ids};
use kiln_worker::{DefaultNetwork, GitEnvironment, Machine, SandboxRunner};

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
    /// The file with the name servers of steps and containers: the machine's `/etc/resolv.conf`.
    /// It may be missing.
    pub resolv_conf: PathBuf,
    /// The directories of system programs, as in `PATH`. The bridge needs `nft`.
    pub search_path: OsString,
    /// The environment of the host's git.
    pub git: GitEnvironment,
    /// The socket of the SSH agent for contexts that the user names.
    pub ssh_agent: Option<PathBuf>,
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
            resolv_conf: PathBuf::from("/etc/resolv.conf"),
            search_path: OsString::from("/usr/sbin:/usr/bin:/sbin:/bin"),
            git: GitEnvironment::default(),
            ssh_agent: None,
        }
    }

    /// Returns the contents of `/etc/resolv.conf`; empty without one.
    ///
    /// # Errors
    /// Fails if the file can't be read.
    pub fn resolv_conf(&self) -> Result<Vec<u8>> {
        match std::fs::read(&self.resolv_conf) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other.with_context(|| format!("read {}", self.resolv_conf.display())),
        }
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
    machine: Arc<OnceLock<Machine>>,
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
        Ok(Self { store, options, machine: Arc::default() })
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

    /// Returns the parts that all builds share.
    pub(crate) fn machine(&self) -> Result<&Machine> {
        if let Some(machine) = self.machine.get() {
            return Ok(machine);
        }
        let runner = SandboxRunner::new(self.store.clone(), self.options.isolation)
            .with_obstacles(self.options.obstacles.clone());
        let machine = Machine {
            runner: Arc::new(runner),
            network: DefaultNetwork::Bridge(self.options.bridge()?),
            resolv_conf: self.options.resolv_conf()?.into(),
            git: self.options.git.clone(),
            ..Machine::new(self.store.clone())
        };
        Ok(self.machine.get_or_init(|| machine))
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

fn open_store(options: &Options) -> kiln_store::Result<Store> {
    let (max_bytes, snapshotter) = (options.max_storage, options.snapshotter);
    let store = Store::open_with(&options.root, &StoreOptions { max_bytes, snapshotter })?;
    if options.has_trees {
        store.use_ids(Ids::current())?;
    }
    Ok(store)
}
