//! Containers in which a client of a build runs programs.
//!
//! Such a container has the mounts of an exec op and any number of programs. The first one is
//! process 1. The others run in its namespaces, and the kernel kills them when it ends. No files of
//! the container are kept. Everything ends when the container is dropped.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_event::Reporter;
use kiln_images::blocking;
use kiln_llb::op::{ExecOp, HostIp, Meta, Mount, MountKind, NetMode, SecretEnv, SecurityMode};
use kiln_oci::Platform;
use kiln_sandbox::cgroup::{Cgroup, DeviceAccess};
use kiln_sandbox::{
    Exit, Input, Io, Joiner, Running, SandboxError, Signaller, Spec, TerminalSize, Tree,
};
use kiln_store::Watch;
use kiln_tree::{Dir, Overlay};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::mounts::{Prepared, target};
use super::network::StepNetwork;
use super::{Exec, is_possible};
use crate::error::{Error, Result};
use crate::output::{Output, materialise};

/// The default `PATH` of Windows.
const WINDOWS_PATH: &str =
    r"c:\Windows\System32;c:\Windows;C:\Windows\System32\WindowsPowerShell\v1.0";

/// The request of a container.
#[derive(Clone, Debug)]
pub struct ExecContainerRequest {
    /// The mounts. The bind mount on `/` is the root file system. Outputs are ignored: no files are
    /// kept.
    pub mounts: Vec<Mount>,
    /// The results that the inputs of mounts refer to by their number.
    pub inputs: Vec<Output>,
    /// Files that the caller provides, read-only.
    pub files: Vec<ProvidedFile>,
    /// The network.
    pub network: NetMode,
    /// The host name. Empty for the default one of steps.
    pub hostname: String,
    /// Additional lines for `/etc/hosts`.
    pub extra_hosts: Vec<HostIp>,
    /// The platform of the programs. Without an architecture, it is the machine's.
    pub platform: Platform,
}

impl ExecContainerRequest {
    /// Returns the request of a container with these mounts for the machine's platform.
    pub fn new(mounts: Vec<Mount>, inputs: Vec<Output>) -> Self {
        Self {
            mounts,
            inputs,
            files: Vec::new(),
            network: NetMode::Unset,
            hostname: String::new(),
            extra_hosts: Vec::new(),
            platform: Platform::host(),
        }
    }
}

/// A file that only the container sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvidedFile {
    /// The absolute path in the container.
    pub path: String,
    /// The content.
    pub contents: Vec<u8>,
}

/// The request of a program in a container.
#[derive(Debug, Default)]
pub struct ExecProcessRequest {
    /// The program and its arguments.
    pub args: Vec<String>,
    /// The environment as `NAME=value`. `PATH` has a default, and `TERM` with a terminal.
    pub env: Vec<String>,
    /// The secrets in environment variables.
    pub secret_env: Vec<SecretEnv>,
    /// The working directory. Empty for `/`.
    pub cwd: String,
    /// The user and group in the format of `USER`. Empty for root.
    pub user: String,
    /// The confinement.
    pub security: SecurityMode,
    /// The size of the program's terminal; `None` for no terminal.
    pub terminal: Option<TerminalSize>,
    /// The standard input of a program without a terminal.
    pub input: ProcessInput,
}

/// The standard input of a program.
#[derive(Debug, Default)]
pub enum ProcessInput {
    /// An empty input.
    #[default]
    Null,
    /// The content of a descriptor: a pipe, a socket or a file.
    Fd(OwnedFd),
}

/// A container for programs. Dropping it kills them. Its files are removed after the last one has
/// ended.
#[derive(Debug)]
pub struct ExecContainer(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    exec: Exec,
    op: ExecOp,
    files: Vec<ProvidedFile>,
    /// The operating system of the programs.
    os: String,
    network: StepNetwork,
    reporter: Reporter,
    state: Mutex<State>,
    /// Cancelled when the container ends.
    stop: CancellationToken,
    prepared: Prepared,
}

/// The state that the programs of a container share.
#[derive(Debug, Default)]
struct State {
    first: Option<First>,
}

/// The parts of a container that begin with its first program.
#[derive(Debug)]
struct First {
    /// The starter of further programs, or the reason why there can't be any.
    joiner: std::result::Result<Joiner, String>,
    group: Cgroup,
    /// Stops the programs if the store runs out of space.
    _watch: Option<Watch>,
}

/// A program in a container. Dropping it kills the program.
#[derive(Debug)]
pub struct ExecProcess {
    running: Running,
    container: Arc<Inner>,
}

impl Exec {
    /// Makes the mounts and the network of a container.
    pub(crate) async fn container(
        &self,
        request: ExecContainerRequest,
        reporter: &Reporter,
    ) -> Result<ExecContainer> {
        let mounts = request.mounts.into_iter().map(|mount| Mount { output: None, ..mount });
        let meta = Meta {
            hostname: request.hostname,
            extra_hosts: request.extra_hosts,
            ..Meta::default()
        };
        let op = ExecOp {
            meta,
            mounts: mounts.collect(),
            network: request.network,
            ..ExecOp::default()
        };
        self.allowed.check(&op)?;
        self.networks.prepare(op.network);
        self.runner.prepare();
        materialise(&self.snapshots, &request.inputs, reporter).await?;
        let prepared = self.prepare(&op, &request.inputs).await?;
        Ok(ExecContainer(Arc::new(Inner {
            exec: self.clone(),
            network: self.networks.get(op.network, reporter).await?,
            op,
            files: request.files,
            os: request.platform.os,
            reporter: reporter.clone(),
            state: Mutex::default(),
            stop: reporter.cancel.child_token(),
            prepared,
        })))
    }
}

impl ExecContainer {
    /// Starts a program: the container's first one as process 1, and any other beside it. Returns
    /// when the program is about to be executed.
    ///
    /// # Errors
    /// Fails if the program can't be executed, if it requires an entitlement that isn't granted, or
    /// if process 1 has ended.
    pub async fn start(&self, request: ExecProcessRequest) -> Result<ExecProcess> {
        let inner = &self.0;
        let op = inner.op_of(&request);
        inner.exec.allowed.check(&op)?;
        is_possible(&op)?;
        let (making, of) = (Arc::clone(inner), op.clone());
        // Secrets may come from a client, and waiting for them blocks.
        let spec = blocking(move || making.exec.spec(&of, &making.prepared, &making.network));
        let mut spec = spec.await?;
        inner.complete(&mut spec, &request);
        let mut io = Io::to(|_, _| ());
        io.input = match request.input {
            ProcessInput::Null => Input::Null,
            ProcessInput::Fd(fd) => Input::Fd(fd),
        };
        let running = tokio::select! {
            started = inner.run(&op, spec, io) => started?,
            () = inner.stop.cancelled() => return Err(SandboxError::Cancelled.into()),
        };
        Ok(ExecProcess { running, container: Arc::clone(inner) })
    }

    /// Kills all programs. No others can be started.
    pub fn stop(&self) {
        self.0.stop.cancel();
    }

    /// Opens the files of a mount for reading, by its number in the request. They include the
    /// changes that programs have made so far.
    ///
    /// # Errors
    /// Fails if there is no such mount, if its files are in memory, or if they can't be mounted.
    pub async fn files(&self, mount: usize) -> Result<Dir> {
        let inner = &self.0;
        let count = inner.op.mounts.len();
        let wanted = inner.op.mounts.get(mount).ok_or_else(|| {
            Error::Invalid(format!("mount index {mount} is out of bounds ({count} available)"))
        })?;
        let tree = match &wanted.kind {
            MountKind::Bind if wanted.dest == "/" => Some((&inner.prepared.rootfs, PathBuf::new())),
            MountKind::Bind | MountKind::Cache(_) => {
                inner.prepared.tree_at(&target(&inner.op, wanted))
            }
            MountKind::Tmpfs { .. } | MountKind::Secret(_) | MountKind::Ssh(_) => None,
        };
        let dest = &wanted.dest;
        let (tree, selector) = tree.ok_or_else(|| {
            Error::Invalid(format!("mount {dest} has no files that can be read from outside"))
        })?;
        let tree = tree.clone();
        blocking(move || {
            let root = read(tree)?;
            if selector.as_os_str().is_empty() { Ok(root) } else { Ok(root.open_dir(&selector)?) }
        })
        .await
    }
}

impl Inner {
    async fn run(&self, op: &ExecOp, mut spec: Spec, mut io: Io) -> Result<Running> {
        let mut state = self.state.lock().await;
        if let Some(first) = &state.first {
            spec.cgroups = first.group.membership().clone();
            let joiner = first.joiner.clone().map_err(SandboxError::Setup)?;
            drop(state);
            return Ok(joiner.start(&spec, io).await?);
        }
        self.exec.tell_of_isolation(&self.reporter);
        let group = self.exec.group(op, DeviceAccess::Harmless, &self.reporter)?;
        spec.cgroups = group.membership().clone();
        io.namespace = self.network.fd()?;
        let running = self.exec.runner.start(spec, io).await?;
        state.first = Some(First {
            joiner: self.exec.runner.joiner(&running).map_err(|error| error.to_string()),
            group,
            _watch: self.exec.watch(&self.prepared, &self.stop),
        });
        Ok(running)
    }

    /// Returns the exec op of a program.
    fn op_of(&self, request: &ExecProcessRequest) -> ExecOp {
        let mut env = request.env.clone();
        if self.os == "windows" && !env.iter().any(|variable| variable.starts_with("PATH=")) {
            env.push(format!("PATH={WINDOWS_PATH}"));
        }
        let meta = Meta {
            args: request.args.clone(),
            env,
            cwd: request.cwd.clone(),
            user: request.user.clone(),
            ..self.op.meta.clone()
        };
        let (security, secret_env) = (request.security, request.secret_env.clone());
        ExecOp { meta, security, secret_env, ..self.op.clone() }
    }

    /// Adds the parts of a specification that an exec op doesn't have.
    fn complete(&self, spec: &mut Spec, request: &ExecProcessRequest) {
        let files = self.files.iter();
        spec.mounts.extend(files.map(|file| super::provided(&file.path, file.contents.clone())));
        spec.process.terminal = request.terminal;
        let names_terminal = |variable: &String| variable.starts_with("TERM=");
        if request.terminal.is_some() && !spec.process.env.iter().any(names_terminal) {
            spec.process.env.push("TERM=xterm".to_owned());
        }
    }
}

impl Drop for ExecContainer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Opens a tree for reading. A tree that programs write to is mounted anew each time, because a
/// mount doesn't show later changes.
fn read(tree: Tree) -> Result<Dir> {
    match tree {
        Tree::Directory(path) => Ok(Dir::open(&path)?),
        Tree::Overlay { lowers, upper } => {
            let mut all: Vec<PathBuf> = upper.into_iter().map(|upper| upper.fs).collect();
            all.extend(lowers);
            match all.as_slice() {
                [single] => Ok(Dir::open(single)?),
                _ => Ok(Overlay { lowers: all, upper: None }.open()?),
            }
        }
    }
}

/// Returns the number of a signal by its name, such as `SIGHUP` or `HUP`.
pub fn signal_number(name: &str) -> Option<i32> {
    let name = name.strip_prefix("SIG").unwrap_or(name);
    format!("SIG{name}").parse::<nix::sys::signal::Signal>().ok().map(|signal| signal as i32)
}

impl ExecProcess {
    /// Takes the reading end of the program's standard output, on the first call. Until it is
    /// taken, the output is discarded while [`Self::wait`] runs.
    pub fn take_stdout(&mut self) -> Option<Receiver> {
        self.running.take_stdout()
    }

    /// Takes the reading end of the program's standard error, on the first call.
    pub fn take_stderr(&mut self) -> Option<Receiver> {
        self.running.take_stderr()
    }

    /// Takes the controlling end of the program's terminal, on the first call.
    pub fn take_terminal(&mut self) -> Option<OwnedFd> {
        self.running.take_terminal()
    }

    /// Returns a sender of signals to the program.
    pub fn signaller(&self) -> Signaller {
        self.running.signaller()
    }

    /// Waits until the program has ended. Kills it when the container ends.
    ///
    /// # Errors
    /// Fails with [`SandboxError::Cancelled`] if the container ends first, and if the program's
    /// helper dies.
    pub async fn wait(self) -> std::result::Result<Exit, SandboxError> {
        self.running.wait(&self.container.stop).await
    }
}
