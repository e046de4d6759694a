//! The helper, seen from kiln.

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
use super::wire::{self, Run};
use super::{helper, program};
use crate::sys;

/// How long a helper that has closed its sockets may take to end, with its programs.
const ENDING: Duration = Duration::from_secs(10);

/// Which processes a helper's programs can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Processes {
    /// Their own.
    Own,
    /// The host's.
    Host,
}

/// A helper process. Dropped, it ends after the last of its programs.
pub(super) struct Server {
    door: OwnedFd,
    /// Can be read when the process has ended, and everything that ends with it.
    end: AsyncFd<OwnedFd>,
    /// Not waited for; the runtime does that when it has ended.
    _process: Child,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("door", &self.door).finish_non_exhaustive()
    }
}

impl Server {
    /// Starts a helper. `beside` is any directory but that of kiln's program.
    pub(super) fn start(beside: &Path, processes: Processes) -> Result<Self, SandboxError> {
        let program =
            program::unwritable(beside).map_err(SandboxError::host("open kiln's program"))?;
        let (door, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(|errno| SandboxError::host("create socket")(errno.into()))?;
        // Started through its descriptor's name: what can't be written has no other. Only the three
        // standard descriptors are handed over, so that no other child of this process, started
        // at the same time, can inherit one of them.
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

    /// Waits until the helper has ended, and its programs with it.
    pub(super) async fn end(&self) {
        // One that lives although it has closed a program's socket has seen to the program itself.
        let _ = tokio::time::timeout(ENDING, self.end.readable()).await;
    }

    /// Asks for a program to be run. What happens is told on the control socket, the first of the
    /// descriptors.
    pub(super) fn ask(&self, run: &Run, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        wire::send(&self.door, run, fds)
    }
}

/// The process that starts the programs, which takes some milliseconds to have. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Helper {
    inner: Arc<HelperInner>,
}

#[derive(Debug)]
struct HelperInner {
    beside: PathBuf,
    /// The helper of programs that see their own processes, once there is one.
    own: Mutex<Option<Arc<Server>>>,
    /// The helper of programs that see the host's processes, once there is one.
    host: Mutex<Option<Arc<Server>>>,
}

impl Helper {
    /// Returns a helper that isn't started yet. `beside` is any directory, best one that is neither
    /// above nor below that of kiln's program: see `program::unwritable`.
    pub fn new(beside: &Path) -> Self {
        let (beside, own, host) = (beside.to_owned(), Mutex::default(), Mutex::default());
        Self { inner: Arc::new(HelperInner { beside, own, host }) }
    }

    /// Starts it, which otherwise the first program has to wait for. To be called in a runtime.
    ///
    /// # Errors
    /// Fails where it can't be started.
    pub fn start(&self) -> Result<(), SandboxError> {
        self.server(Processes::Own, None).map(drop)
    }

    /// Asks for a program to be run. A helper that has died meanwhile is replaced.
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

    /// Returns the helper, and starts one where there is none, or none but `dead`.
    fn server(
        &self,
        processes: Processes,
        dead: Option<&Arc<Server>>,
    ) -> Result<Arc<Server>, SandboxError> {
        let server = match processes {
            Processes::Own => &self.inner.own,
            Processes::Host => &self.inner.host,
        };
        // A helper is whole at every instant, even where another thread has panicked.
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

/// Starts a process as the first one of a process namespace: with it, the kernel ends all others. Where
/// there can't be such a namespace, it is a process like any other.
fn spawn_first(command: std::process::Command) -> io::Result<Child> {
    let runtime = Handle::current();
    let spawn = move || {
        // The namespace is that of this thread's children, and the thread ends.
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
