//! Containers: programs that run in the files of an image, with a fresh layer on top.
//!
//! A container takes three steps. [`Preparation::begin`] starts what doesn't depend on the image.
//! [`Engine::container`] makes the container's files, volumes and network. [`Container::start`]
//! starts the program. The caller passes its input and output on and waits for it; the container's
//! files and its network are gone when the [`Container`] is dropped.

pub mod ports;
pub mod propagation;

mod confinement;
mod network;
mod process;
mod spec;
mod volumes;

use std::sync::Arc;

use anyhow::{Context, Result};
use kiln_images::PullPolicy;
use kiln_oci::{ContainerConfig, Digest};
use kiln_sandbox::cgroup::{Cgroup, Groups, Limits, OutOfMemory};
use kiln_sandbox::network::Endpoint;
use kiln_sandbox::{
    Gate, Helper, Input, Io, Mount, Network, Obstacle, OutputSink, Running, Sandbox, SandboxError,
    Spec,
};
use kiln_store::Watch;
use kiln_worker::container::{ContainerImage, ContainerRoot, Containers};
use tokio::task::{JoinHandle, spawn_blocking};

use crate::engine::{Engine, Options};
use network::{Connected, Plan};
use volumes::Volumes;

pub use confinement::{Confinement, Devices};
pub use spec::{
    ContainerSpec, EnvChange, NameServers, NetworkKind, NetworkOptions, ProcessOptions,
};
pub use volumes::{Source, Volume};

/// The parts of a container that don't depend on its image. They are made in the background.
#[derive(Debug)]
pub struct Preparation {
    helper: Helper,
    starting: JoinHandle<Result<(), SandboxError>>,
    network: Plan,
    group: JoinHandle<Result<Cgroup>>,
}

impl Preparation {
    /// Starts the sandbox's helper, and begins to make the network and the control groups. Must be
    /// called within a Tokio runtime.
    ///
    /// # Errors
    /// Fails if the machine's name servers can't be read.
    pub fn begin(options: &Options, spec: &ContainerSpec) -> Result<Self> {
        let helper = Helper::new(&options.root, options.isolation);
        let starting = helper.clone();
        let starting = spawn_blocking(move || starting.start());
        let network = Plan::new(&spec.network, options)?;
        let limits = Limits { devices: spec.confinement.device_access(), ..spec.limits.clone() };
        // An OCI runtime requires a group in every controller.
        let group = group(limits, spec.cgroup_parent.clone(), spec.runtime.is_some());
        Ok(Self { helper, starting, network, group })
    }
}

/// Starts to create a container's control groups, below `parent` unless that is empty. With
/// `everywhere`, creates a group in every controller.
fn group(limits: Limits, parent: String, everywhere: bool) -> JoinHandle<Result<Cgroup>> {
    spawn_blocking(move || {
        let group = Groups::new().group(&limits, &parent, everywhere);
        group.with_context(|| match parent.as_str() {
            "" => "set limits".to_owned(),
            _ => format!("make control groups below {parent}"),
        })
    })
}

/// A fact about a container that its user should know.
#[derive(Clone, Debug)]
pub enum Notice {
    /// The reason why the container's layers are copied instead of mounted.
    Copied(String),
    /// The isolation of the program, if it has no namespaces.
    Isolation(String),
    /// A warning.
    Warning(String),
    /// A published port whose number on the host the kernel chose.
    Published(Endpoint),
}

/// The reason why a container couldn't be run.
#[derive(Debug)]
pub struct Failure {
    /// The error, with its causes.
    pub error: anyhow::Error,
    /// The exit status if the command can't be executed; `None` for other failures.
    pub code: Option<u8>,
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self { error, code: None }
    }
}

impl From<SandboxError> for Failure {
    fn from(error: SandboxError) -> Self {
        let code = match &error {
            SandboxError::Exec { code, .. } => u8::try_from(*code).ok(),
            _ => None,
        };
        Self { error: error.into(), code }
    }
}

/// A container whose program has not been started or still runs.
#[derive(Debug)]
pub struct Container {
    /// Facts that the user should know.
    pub notices: Vec<Notice>,
    id: Digest,
    spec: Spec,
    sandbox: Sandbox,
    starting: Option<JoinHandle<Result<(), SandboxError>>>,
    network: Connected,
    group: Cgroup,
    root: ContainerRoot,
    volumes: Volumes,
    store: kiln_store::Store,
    watch: Option<Watch>,
}

impl Engine {
    /// Returns the images and files of containers. The policy is for images that are pulled.
    pub fn containers(&self, policy: PullPolicy) -> Containers {
        Containers::new(self.store.clone(), Arc::new(self.images(policy)))
    }

    /// Makes the files, the volumes and the network of a container.
    ///
    /// # Errors
    /// Fails if a part of the container can't be made as the request says.
    pub async fn container(
        &self,
        preparation: Preparation,
        image: &ContainerImage,
        containers: &Containers,
        request: ContainerSpec,
    ) -> Result<Container> {
        let Preparation { helper, starting, network, group } = preparation;
        let (isolation, obstacles) = (self.options.isolation, &self.options.obstacles);
        Obstacle::check(isolation, obstacles)?;
        let sandbox = Sandbox::with_helper(&self.store.anchor(), helper, isolation)?;
        let mut notices: Vec<_> =
            Obstacle::describe(isolation, obstacles).map(Notice::Isolation).into_iter().collect();
        let root = containers.root(image, request.read_only);
        let root = root.context("prepare the container's files")?;
        let snapshotting = self.store.snapshotting().context("choose a snapshotter")?;
        notices.extend(snapshotting.reason.clone().map(Notice::Copied));
        let volumes = Volumes::prepare(containers, image, &self.store, &request.volumes)?;
        let id = id(&root);
        let config = &image.config.config;
        let network = network.connect(config, &mut notices).await?;
        request.confinement.check_network(network.kind())?;
        let hostname = hostname(&request, network.kind()).unwrap_or_else(|| id.short());
        let group = group.await.context("make control groups")??;
        notices.extend(group.warnings().iter().cloned().map(Notice::Warning));
        if request.runtime.is_none() {
            // An OCI runtime enforces the device rules by itself.
            request.confinement.check_groups(group.membership())?;
        }
        let mut spec = Spec::new(root.tree().clone(), Vec::new());
        spec.mounts = network.files(&hostname, request.domainname.as_deref());
        spec.mounts.extend(mounts(&volumes, &request.tmpfs));
        describe(&mut spec, config, &request, hostname)?;
        spec.network = network.kind();
        spec.cgroups = group.membership().clone();
        spec.shown_cgroups = group.shown().to_vec();
        request.confinement.apply(&mut spec);
        propagation::check_nested(&spec.mounts)?;
        let (starting, store, watch) = (Some(starting), self.store.clone(), None);
        Ok(Container {
            notices,
            id,
            spec,
            sandbox,
            starting,
            network,
            group,
            root,
            volumes,
            store,
            watch,
        })
    }
}

impl Container {
    /// Returns the container's ID.
    pub fn id(&self) -> &Digest {
        &self.id
    }

    /// Waits until the sandbox's helper is ready to start the program.
    ///
    /// # Errors
    /// Fails if the helper can't be started.
    pub async fn ready(&mut self) -> Result<()> {
        let Some(starting) = self.starting.take() else { return Ok(()) };
        starting.await.context("start the sandbox")??;
        Ok(())
    }

    /// Starts the program. Its files are prepared while the network is being set up.
    ///
    /// # Errors
    /// Fails if the program can't be started. The error has the exit status if the program is
    /// missing or can't be executed.
    pub async fn start(&mut self, input: Input, output: OutputSink) -> Result<Running, Failure> {
        self.ready().await?;
        let (gate, side) = Gate::new()?;
        let namespace = self.network.namespace()?;
        let io = Io { input, output, namespace, gate: Some(side) };
        let started = async { Ok(self.sandbox.start(&self.spec, io).await?) };
        let opened = async {
            self.network.ready().await?;
            gate.open();
            Ok::<_, Failure>(())
        };
        let (running, ()) = tokio::try_join!(started, opened)?;
        // The store evicts cache as the container's files grow. If that isn't enough, the container
        // goes on.
        let growing = self.volumes.growing().chain(self.root.growing()).collect();
        self.watch = self.store.watch(growing, || ());
        Ok(running)
    }

    /// Returns the processes that the kernel has killed because memory ran out, if any.
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        self.group.out_of_memory()
    }
}

/// Returns the ID of a container with these files.
fn id(root: &ContainerRoot) -> Digest {
    let upper = root.upper().to_string_lossy().into_owned();
    Digest::of(format!("{upper} {}", std::process::id()).as_bytes())
}

/// Fills in the parts of a specification that the image and the request determine.
fn describe(
    spec: &mut Spec,
    config: &ContainerConfig,
    request: &ContainerSpec,
    hostname: String,
) -> Result<()> {
    spec.process = process::resolve(config, &request.process, &hostname)?;
    spec.hostname = hostname;
    spec.protects_proc = true;
    spec.readonly_rootfs = request.read_only;
    if request.shm_size.is_some() {
        spec.shm_size = request.shm_size;
    }
    spec.runtime.clone_from(&request.runtime);
    spec.domainname.clone_from(&request.domainname);
    Ok(())
}

/// Returns the host name that the user requests, or the host's own name if the container shares it.
/// Returns `None` if the container's ID is its name.
fn hostname(request: &ContainerSpec, network: Network) -> Option<String> {
    let shares_name = request.confinement.shared.uts || network == Network::Host;
    let of_host = || rustix::system::uname().nodename().to_str().ok().map(str::to_owned);
    request.hostname.clone().or_else(|| shares_name.then(of_host).flatten())
}

/// Returns all mounts, sorted so that a directory comes before the mounts inside it.
fn mounts(volumes: &Volumes, tmpfs: &[Mount]) -> Vec<Mount> {
    let mut mounts: Vec<Mount> = volumes.mounts().collect();
    for mount in tmpfs {
        // The directory replaces a volume that the image declares.
        mounts.retain(|other| other.target != mount.target);
        mounts.push(mount.clone());
    }
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    mounts
}
