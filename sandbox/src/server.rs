//! The helper process from kiln's side.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::unix::AsyncFd;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;

use super::error::SandboxError;
use super::isolation::Isolation;
use super::wire::{self, Run};
use super::{helper, program};
use crate::sys;

/// The time limit for the end of a helper that has closed its sockets, and of its programs.
const ENDING: Duration = Duration::from_secs(10);

/// The process namespace of a helper's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// A process namespace of their own.
    Own,
    /// The host's process namespace.
    Host,
}

/// A helper process. If the value is dropped, the process ends after the last of its programs.
pub(super) struct Server {
    door: OwnedFd,
    /// The process's descriptor. It is readable after the process and everything that ends with it
    /// have ended.
    end: AsyncFd<OwnedFd>,
    /// The process. The tokio runtime reaps it.
    _process: Child,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("door", &self.door).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a helper. `beside` is any directory except that of kiln's program.
    pub(super) fn start(beside: &Path, processes: Processes) -> Result<Self, SandboxError> {
        let program =
            program::unwritable(beside).map_err(SandboxError::host("open kiln's program"))?;
        let (door, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| SandboxError::host("create socket")(errno.into()))?;
        // An unwritable program has no name except that of its descriptor. The helper inherits the
        // three standard descriptors only, and no other child of this process, started at the same
        // time, inherits one of them.
        let mut command =
            std::process::Command::new(format!("/proc/self/fd/{}", program.as_raw_fd()));
        command.arg0(helper::MARKER).env_clear();
        command.stdin(Stdio::from(theirs)).stdout(Stdio::null()).stderr(Stdio::null());
        let process = match processes {
            Processes::Own => spawn_first(command),
            Processes::Host => Command::from(command).spawn(),
        }
        .map_err(SandboxError::host("start the sandbox"))?;
        let end = watch(&process).map_err(SandboxError::host("watch the sandbox"))?;
        Ok(Self { door, end, _process: process })
    }

    /// Waits until the helper and its programs have ended.
    pub(super) async fn end(&self) {
        // A helper that is alive but has closed a program's socket has killed the program itself.
        let _ = tokio::time::timeout(ENDING, self.end.readable()).await;
    }

    /// Requests the run of a program. The reports arrive on the control socket, the first of the
    /// descriptors.
    pub(super) fn ask(&self, run: &Run, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.door, run, fds)
    }
}

/// A handle of the helper process, which takes some milliseconds to start. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Helper {
    inner: Arc<HelperInner>,
}

#[derive(Debug)]
struct HelperInner {
    beside: PathBuf,
    isolation: Isolation,
    /// The helper for programs in a process namespace of their own, once started.
    own: Mutex<Option<Arc<Server>>>,
    /// The helper for programs in the host's process namespace, once started.
    host: Mutex<Option<Arc<Server>>>,
}

impl Helper {
    /// Creates a helper without starting it. `beside` is any directory, ideally one that is neither
    /// above nor below that of kiln's program: see `program::unwritable`.
    pub fn new(beside: &Path, isolation: Isolation) -> Self {
        let (beside, own, host) = (beside.to_owned(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(HelperInner { beside, isolation, own, host }) }
    }

    /// Starts the helper ahead of the first program. Call this inside a tokio runtime.
    ///
    /// # Errors
    /// Fails if the process can't be started.
    pub fn start(&self) -> Result<(), SandboxError> {
        let own = self.inner.isolation.has_namespaces();
        let processes = if own { Processes::Own } else { Processes::Host };
        self.server(processes, None).map(drop)
    }

    /// Requests the run of a program. Replaces a helper that has died.
    pub(super) fn ask(
        &self,
        processes: Processes,
        run: &Run,
        fds: &[BorrowedFd<'_>],
    ) -> Result<Arc<Server>, SandboxError> {
        let server = self.server(processes, None)?;
        let server = match server.ask(run, fds) {
            Ok(()) => return Ok(server),
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.server(processes, Some(&server))?
            }
            Err(error) => return Err(SandboxError::host("pass on the specification")(error)),
        };
        server.ask(run, fds).map_err(SandboxError::host("pass on the specification"))?;
        Ok(server)
    }

    /// Returns the running helper. Starts one if there is none, or if it is `dead`.
    fn server(
        &self,
        processes: Processes,
        dead: Option<&Arc<Server>>,
    ) -> Result<Arc<Server>, SandboxError> {
        let server = match processes {
            Processes::Own => &self.inner.own,
            Processes::Host => &self.inner.host,
        };
        // The value is valid even if another thread has panicked.
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        match server.as_ref() {
            Some(living) if dead.is_none_or(|dead| !Arc::ptr_eq(dead, living)) => {
                Ok(Arc::clone(living))
            }
            _ => {
                let new = Server::start(&self.inner.beside, processes)?;
                Ok(Arc::clone(server.insert(Arc::new(new))))
            }
        }
    }
}

/// Starts a process as process 1 of a new process namespace, so that the kernel kills all others
/// when it ends. If the kernel refuses the namespace, the process is an ordinary one.
fn spawn_first(command: std::process::Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let spawn = move || {
        // The namespace applies to the children of this thread, which ends afterwards.
        let _ = unshare(CloneFlags::CLONE_NEWPID);
        let _runtime = runtime.enter();
        Command::from(command).spawn()
    };
    let thread = std::thread::Builder::new().spawn(spawn)?;
    thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread that starts it has failed")))
}

fn watch(process: &Child) -> io::Result<AsyncFd<OwnedFd>> {
    let number = process.id().and_then(|id| Pid::from_raw(id.cast_signed()));
    let number = number.ok_or_else(|| io::Error::other("it has ended"))?;
    sys::watch(pidfd_open(number, PidfdFlags::empty())?)
}
