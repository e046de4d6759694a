//! The run of a container, from arguments to exit status.

mod attach;
mod confinement;
mod devices;
mod environment;
mod image;
mod mount_flag;
mod names;
mod namespaces;
mod network;
mod ports;
mod process;
mod propagation;
mod resources;
mod security;
mod signals;
mod terminal;
mod tmpfs;
mod volumes;

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln_exporter::write_file;
use kiln_images::{ImageResolver, ImageResolverOptions};
use kiln_sandbox::cgroup::{Cgroup, Limits};
use kiln_sandbox::{
    DEFAULT_SHM_SIZE, Exit, Gate, Helper, Input, Io, Mount, Network, OutputSink, OutputStream,
    Running, Sandbox, SandboxError, Spec,
};
use kiln_store::Store;
use kiln_worker::container::Containers;
use nix::sys::signal::Signal;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::commands::run::RunArguments;
use crate::commands::sync;
use crate::limits;
use crate::printer::Printer;
use crate::runtime;
use crate::settings::Settings;
use attach::Streams;
use confinement::Confinement;
use image::find_image;
use volumes::Volumes;

pub(crate) use confinement::ConfinementArguments;
pub(crate) use names::NameArguments;
pub(crate) use signals::Signals;
pub(crate) use terminal::Terminal;

/// The error of a container that kiln couldn't run.
#[derive(Debug)]
pub(crate) struct Failure {
    /// The error to report, with its causes.
    pub(crate) error: anyhow::Error,
    /// The exit status if the command can't be executed; `None` for other failures.
    pub(crate) code: Option<u8>,
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

/// Runs a container until it ends, and returns the command's exit status.
pub(crate) async fn run(
    arguments: &RunArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<u8, Failure> {
    // Slow preparations that don't depend on the image run in the background.
    let helper = Helper::new(&settings.root);
    let starting = helper.clone();
    let starting = spawn_blocking(move || starting.start());
    let requested = Requested::new(arguments)?;
    let network = network::Plan::new(arguments, settings, printer)?;
    let terminal = Terminal::open(arguments.tty, arguments.interactive)?;
    requested.confinement.warn(printer);
    let parent = arguments.resources.cgroup_parent.clone();
    let group = resources::group(requested.limits.clone(), parent, requested.runtime.is_some());
    let store = settings.store()?;
    let containers = containers(&store, arguments, settings);
    let sandbox = Sandbox::with_helper(&store.anchor(), helper)?;
    let image = find_image(&containers, &store, arguments, printer).await?;

    let root =
        containers.root(&image, arguments.read_only).context("prepare the container's files")?;
    if let Some(reason) = &store.snapshotting().context("choose a snapshotter")?.reason {
        printer.note(format_args!("layers are copied, not mounted: {reason}"));
    }
    let volumes = Volumes::prepare(&containers, &image, &store, &requested.volumes)?;
    let id = root.upper().to_string_lossy().into_owned();
    let id = kiln_oci::Digest::of(format!("{id} {}", std::process::id()).as_bytes());
    let mut network = network.connect(&image.config.config, printer).await?;
    requested.confinement.check_network(network.kind())?;
    let shares_name = requested.confinement.has_host_name() || network.kind() == Network::Host;
    let hostname = hostname(arguments, shares_name).unwrap_or_else(|| id.short());
    let mut spec = Spec::new(root.tree().clone(), Vec::new());
    spec.process = process::resolve(&image.config.config, arguments, &hostname)?;
    spec.process.terminal = terminal.as_ref().map(Terminal::size);
    spec.network = network.kind();
    spec.mounts = network.files(&hostname, arguments.domainname.as_deref());
    spec.mounts.extend(mounts(&volumes, &arguments.tmpfs)?);
    spec.hostname = hostname;
    let group = resources::ready(group, printer).await?;
    requested.check_groups(&group)?;
    spec.cgroups = group.membership().clone();
    spec.shown_cgroups = group.shown().to_vec();
    spec.protects_proc = true;
    let streams = requested.streams;
    requested.apply(arguments, &mut spec)?;

    let input = input(arguments, streams)?;
    starting.await.context("start the sandbox")??;
    if let Some(path) = &arguments.cidfile {
        write_file(path, id.hex().as_bytes()).context("write the container's ID")?;
    }
    let signals = if arguments.sig_proxy { Signals::catch() } else { Signals::none() };
    let passing = OutputForwarder::only(printer, streams);
    let running = start(&sandbox, &spec, input, passing.sink(), &mut network).await?;
    // The store evicts cache as the container's files grow. If that isn't enough, the container
    // goes on.
    let growing = volumes.growing().chain(root.growing()).collect();
    let watch = store.watch(growing, || ());
    let exit = attend(running, signals, terminal, &passing).await?;
    drop(watch);
    resources::report(&group, printer);
    // A failure to start the flush only makes a later flush slower.
    let _ = sync::start(&store);
    Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX))
}

/// Parsed arguments, checked before the first side effect.
struct Requested {
    confinement: Confinement,
    volumes: Vec<volumes::Volume>,
    limits: Limits,
    runtime: Option<PathBuf>,
    streams: Streams,
}

impl Requested {
    fn new(arguments: &RunArguments) -> Result<Self> {
        let confinement = Confinement::new(arguments)?;
        let volumes = volumes::asked(&arguments.volumes, &arguments.mounts)?;
        arguments.cidfile.as_deref().map(refuse_existing).transpose()?;
        let limits = Limits { devices: confinement.devices(), ..resources::limits(arguments)? };
        let runtime = runtime::find(&arguments.runtime)?;
        let streams = Streams::read(&arguments.attach)?;
        Ok(Self { confinement, volumes, limits, runtime, streams })
    }

    /// Checks that control groups enforce the device rules. An OCI runtime enforces them by itself.
    fn check_groups(&self, group: &Cgroup) -> Result<()> {
        match self.runtime {
            Some(_) => Ok(()),
            None => self.confinement.check_groups(group.membership()),
        }
    }

    /// Applies the parts that don't depend on the image to a specification.
    fn apply(self, arguments: &RunArguments, spec: &mut Spec) -> Result<()> {
        spec.readonly_rootfs = arguments.read_only;
        if let Some(size) = &arguments.shm_size {
            spec.shm_size = Some(shm_size(size)?);
        }
        spec.runtime = self.runtime;
        self.confinement.apply(spec);
        propagation::check_nested(&spec.mounts)
    }
}

/// Returns the containers of a store. `--pull` sets their policy for pulling images.
fn containers(store: &Store, arguments: &RunArguments, settings: &Settings) -> Containers {
    let images = Arc::new(ImageResolver::new(ImageResolverOptions {
        policy: arguments.pull.into(),
        ..settings.images(store)
    }));
    Containers::new(store.clone(), images)
}

/// Starts the program. Its files are prepared while the network is being set up.
async fn start(
    sandbox: &Sandbox,
    spec: &Spec,
    input: Input,
    output: OutputSink,
    network: &mut network::Connected,
) -> Result<Running, Failure> {
    let (gate, side) = Gate::new()?;
    let namespace = network.namespace()?;
    let io = Io { input, output, namespace, gate: Some(side) };
    let started = async { Ok(sandbox.start(spec, io).await?) };
    let opened = async {
        network.ready().await?;
        gate.open();
        Ok::<_, Failure>(())
    };
    let (running, ()) = tokio::try_join!(started, opened)?;
    Ok(running)
}

/// Fails if the file for the container's ID exists, since it may hold the ID of another container.
fn refuse_existing(path: &Path) -> Result<()> {
    if path.is_file() {
        bail!("the container ID file {} is there already: remove it", path.display());
    }
    Ok(())
}

/// Returns the host name that the user requests, or the host's own name if the container shares it.
/// Returns `None` if the container's ID is its name.
fn hostname(arguments: &RunArguments, shares_name: bool) -> Option<String> {
    let asked = arguments.hostname.clone().filter(|name| !name.is_empty());
    let of_host = || nix::unistd::gethostname().ok()?.into_string().ok();
    asked.or_else(|| shares_name.then(of_host).flatten())
}

/// Parses the size of `/dev/shm` in bytes. As in docker, 0 means the default.
fn shm_size(text: &str) -> Result<u64> {
    let size = limits::size_limit(text).context("invalid --shm-size")?;
    Ok(size.unwrap_or(DEFAULT_SHM_SIZE))
}

/// Returns all mounts, sorted so that a directory comes before the mounts inside it.
fn mounts(volumes: &Volumes, tmpfs: &[String]) -> Result<Vec<Mount>> {
    let mut mounts: Vec<Mount> = volumes.mounts().collect();
    for text in tmpfs {
        let mount = tmpfs::parse(text)?;
        // The directory replaces a volume that the image declares.
        mounts.retain(|other| other.target != mount.target);
        mounts.push(mount);
    }
    mounts.sort_by(|a, b| a.target.cmp(&b.target));
    Ok(mounts)
}

/// The time that a program may run on after kiln has lost the reader of its output.
const PATIENCE: Duration = Duration::from_secs(1);

/// Waits for the command to end, and passes on signals and the terminal's input and output. Kills a
/// command if the reader of its output is gone.
pub(crate) async fn attend(
    mut running: Running,
    signals: Signals,
    terminal: Option<Terminal>,
    passing: &OutputForwarder,
) -> Result<Exit, Failure> {
    let signaller = running.signaller();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(signals.forward(signaller));
    let cancel = CancellationToken::new();
    let (passed, ended) = (passing.clone(), cancel.clone());
    tasks.spawn(async move {
        passed.patience().await;
        ended.cancel();
    });
    let exit = match (terminal, running.take_terminal()) {
        (Some(terminal), Some(theirs)) => {
            let session = terminal.connect(theirs, passing.clone())?;
            let exit = running.wait(&cancel).await;
            session.finish().await;
            exit
        }
        _ => running.wait(&cancel).await,
    };
    tasks.abort_all();
    match exit {
        Err(SandboxError::Cancelled) => Ok(Exit::Signal(Signal::SIGKILL as i32)),
        exit => Ok(exit?),
    }
}

fn input(arguments: &RunArguments, streams: Streams) -> Result<Input> {
    if !arguments.interactive || !streams.input || arguments.tty {
        return Ok(Input::Null);
    }
    standard_input()
}

/// Returns kiln's standard input as a program's input.
pub(crate) fn standard_input() -> Result<Input> {
    let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("pass standard input on")?;
    Ok(Input::Fd(stdin))
}

/// A writer of a program's output to kiln's own output.
#[derive(Clone, Debug)]
pub(crate) struct OutputForwarder {
    printer: Printer,
    /// The token that is cancelled when kiln's output can't be written any more.
    lost: CancellationToken,
    streams: Streams,
}

impl OutputForwarder {
    /// Passes on all streams.
    pub(crate) fn to(printer: &Printer) -> Self {
        Self::only(printer, Streams::ALL)
    }

    /// Passes on some of the streams and drops the others.
    fn only(printer: &Printer, streams: Streams) -> Self {
        Self { printer: printer.clone(), lost: CancellationToken::new(), streams }
    }

    /// Returns a sink that writes to this value.
    pub(crate) fn sink(&self) -> OutputSink {
        let passing = self.clone();
        Box::new(move |stream, bytes| passing.pass(stream, bytes))
    }

    /// Writes output. Breaks if kiln's output can't be written any more. The program then writes
    /// into a pipe without a reader, as if a shell had started it.
    fn pass(&self, stream: OutputStream, bytes: &[u8]) -> ControlFlow<()> {
        let is_wanted = match stream {
            OutputStream::Stdout => self.streams.output,
            OutputStream::Stderr => self.streams.error,
        };
        if !is_wanted || self.printer.pass(stream, bytes).is_ok() {
            return ControlFlow::Continue(());
        }
        self.lost.cancel();
        ControlFlow::Break(())
    }

    /// Returns after the output was lost and the program had time to end by itself. As the first
    /// process of its namespace it gets no SIGPIPE, and some programs ignore write errors.
    async fn patience(self) {
        self.lost.cancelled().await;
        tokio::time::sleep(PATIENCE).await;
    }
}

/// Parses an absolute path in the container.
fn container_path(text: &str) -> Result<PathBuf> {
    let path = PathBuf::from(text);
    if !path.is_absolute() {
        bail!("{text:?} is no absolute path in the container");
    }
    Ok(path)
}
