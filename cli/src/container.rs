//! The run of a container, from arguments to exit status.

#![expect(clippy::disallowed_methods, reason = "the user names the files")]

mod attach;
mod confinement;
mod devices;
mod environment;
mod image;
mod mount_flag;
mod names;
mod namespaces;
mod network;
mod resources;
mod security;
mod signals;
mod terminal;
mod tmpfs;
mod volumes;

use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kiln::container::spec::{ContainerSpec, ProcessOptions};
use kiln::container::{Failure, Notice, Preparation};
use kiln_exporter::write_file;
use kiln_sandbox::{
    DEFAULT_SHM_SIZE, Exit, Input, OutputSink, OutputStream, Rlimit, Running, SandboxError,
};
use nix::sys::signal::Signal;
use tokio_util::sync::CancellationToken;

use crate::commands::run::RunArguments;
use crate::commands::sync;
use crate::limits::{self, Ulimit};
use crate::printer::Printer;
use crate::runtime;
use crate::settings::Settings;
use attach::Streams;
use image::find_image;

pub(crate) use confinement::ConfinementArguments;
pub(crate) use names::NameArguments;
pub(crate) use signals::Signals;
pub(crate) use terminal::Terminal;

/// Runs a container until it ends, and returns the command's exit status.
pub(crate) async fn run(
    arguments: &RunArguments,
    settings: &Settings,
    printer: &Printer,
) -> Result<u8, Failure> {
    let mut spec = spec(arguments, printer)?;
    arguments.cidfile.as_deref().map(refuse_existing).transpose()?;
    let streams = Streams::read(&arguments.attach)?;
    // Slow preparations that don't depend on the image run in the background.
    let preparation = Preparation::begin(&settings.options(), &spec)?;
    let terminal = Terminal::open(arguments.tty, arguments.interactive)?;
    spec.process.terminal = terminal.as_ref().map(Terminal::size);
    confinement::warn(&spec.confinement, printer);
    let engine = settings.engine()?;
    let containers = engine.containers(arguments.pull.into());
    let image = find_image(&containers, engine.store(), arguments, printer).await?;
    let mut container = engine.container(preparation, &image, &containers, spec).await?;
    container.notices.iter().for_each(|notice| print_notice(notice, printer));

    let input = input(arguments, streams)?;
    container.ready().await?;
    if let Some(path) = &arguments.cidfile {
        write_file(path, container.id().hex().as_bytes()).context("write the container's ID")?;
    }
    let signals = if arguments.sig_proxy { Signals::catch() } else { Signals::none() };
    let passing = OutputForwarder::only(printer, streams);
    let running = container.start(input, passing.sink()).await?;
    let exit = attend(running, signals, terminal, &passing).await?;
    if let Some(out) = container.out_of_memory() {
        let noun = if out.kills == 1 { "process" } else { "processes" };
        printer.note(format_args!("{out}: the kernel has killed {} {noun}", out.kills));
    }
    // A failure to start the flush only makes a later flush slower.
    let _ = sync::start(engine.store());
    Ok(u8::try_from(exit.code()).unwrap_or(u8::MAX))
}

/// Parses the arguments, before the first side effect.
fn spec(arguments: &RunArguments, printer: &Printer) -> Result<ContainerSpec> {
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let confinement = confinement::confinement(arguments)?;
    let volumes = volumes::asked(&arguments.volumes, &arguments.mounts)?;
    let limits = resources::limits(arguments)?;
    let runtime = runtime::find(&arguments.runtime)?;
    let network = network::network(arguments, printer)?;
    Ok(ContainerSpec {
        process: ProcessOptions {
            entrypoint: arguments.entrypoint.clone(),
            command: arguments.command().to_vec(),
            env: environment::resolve(arguments)?,
            workdir: arguments.workdir.clone().filter(|path| !path.as_os_str().is_empty()),
            user: arguments.user.clone(),
            rlimits: limits::ulimits(&arguments.ulimits)?.into_iter().map(rlimit).collect(),
            terminal: None,
            has_term: arguments.tty,
        },
        read_only: arguments.read_only,
        volumes,
        tmpfs: arguments.tmpfs.iter().map(|text| tmpfs::parse(text)).collect::<Result<_>>()?,
        shm_size: arguments.shm_size.as_deref().map(shm_size).transpose()?,
        hostname: text(&arguments.hostname),
        domainname: text(&arguments.domainname),
        network,
        confinement,
        limits,
        cgroup_parent: arguments.resources.cgroup_parent.clone(),
        runtime,
    })
}

fn rlimit(limit: Ulimit) -> Rlimit {
    // -1 means no limit.
    let value = |value: i64| u64::try_from(value).ok();
    Rlimit { name: limit.name, soft: value(limit.soft), hard: value(limit.hard) }
}

fn print_notice(notice: &Notice, printer: &Printer) {
    match notice {
        Notice::Copied(reason) => {
            printer.note(format_args!("layers are copied, not mounted: {reason}"));
        }
        Notice::Warning(text) => printer.note(format_args!("WARNING: {text}")),
        Notice::Published(endpoint) => printer.note(endpoint),
    }
}

/// Fails if the file for the container's ID exists, since it may hold the ID of another container.
fn refuse_existing(path: &Path) -> Result<()> {
    if path.is_file() {
        bail!("the container ID file {} is there already: remove it", path.display());
    }
    Ok(())
}

/// Parses the size of `/dev/shm` in bytes. As in docker, 0 means the default.
fn shm_size(text: &str) -> Result<u64> {
    let size = limits::size_limit(text).context("invalid --shm-size")?;
    Ok(size.unwrap_or(DEFAULT_SHM_SIZE))
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
