//! The helper: starts the child and waits for it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

use super::run::Exit;
use super::spec::{Network, Spec};
use super::wire::{self, Failure, Report, Request};
use super::{child, seccomp};
use crate::sys::{self, CloneResult, FilterInstruction, Namespaces};

/// The name under which the program runs when it is a sandbox's helper.
pub(super) const MARKER: &str = "kiln-sandbox-helper";

/// The control group of a runtime itself, below the program's.
const RUNTIME_GROUP: &str = "runtime";

/// What the child is given.
pub(super) struct Task {
    pub(super) spec: Spec,
    pub(super) anchor: std::path::PathBuf,
    pub(super) filter: Vec<FilterInstruction>,
    pub(super) namespace: Option<OwnedFd>,
    /// Where a runtime is to write what it says of its failures.
    pub(super) log: Option<OwnedFd>,
    pub(super) input: Option<OwnedFd>,
    pub(super) control: OwnedFd,
    /// Closed on the other side when the helper dies.
    pub(super) helper: OwnedFd,
}

/// Becomes a sandbox's helper, and never returns, where this process was started as one.
///
/// A program that uses [`Sandbox`](super::Sandbox) calls this first of all in its `main`, before
/// there is a second thread.
#[expect(clippy::exit, reason = "the helper is a process of its own, not part of the caller")]
pub fn init_if_asked() {
    if std::env::args_os().next().is_some_and(|name| name == MARKER) {
        std::process::exit(run());
    }
}

fn run() -> i32 {
    let Ok(control) = take_control() else { return 1 };
    match supervise(&control) {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody is left to be told where this fails.
            let _ = wire::send(&control, &Report::Failed(failure), &[]);
            1
        }
    }
}

fn take_control() -> io::Result<OwnedFd> {
    // The terminal's signals are for kiln, which passes on what it wants to.
    let _ = rustix::process::setsid();
    let control = io::stdin().as_fd().try_clone_to_owned()?;
    rustix::stdio::dup2_stdin(null()?)?;
    Ok(control)
}

fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

fn supervise(control: &OwnedFd) -> Result<(), Failure> {
    let _ = rustix::thread::set_name(c"kiln-sandbox");
    let (task, alive) = receive_task(control)?;
    let namespaces = Namespaces { network: task.spec.network == Network::None };
    match start(namespaces, &task.spec)? {
        CloneResult::Child => {
            drop(alive);
            child::run(task)
        }
        CloneResult::Parent(child) => {
            drop(task);
            release_output().map_err(Failure::doing("release output"))?;
            let exit = attend(control, &child).map_err(Failure::doing("wait for the program"))?;
            drop(alive);
            wire::send(control, &Report::Exited(exit), &[])
                .map_err(Failure::doing("report the exit"))
        }
    }
}

/// Starts the child in its control group of version 2.
fn start(namespaces: Namespaces, spec: &Spec) -> Result<CloneResult, Failure> {
    let group = spec.cgroups.unified.as_deref().map(|path| {
        let action = format!("open the control group {}", path.display());
        let open = || {
            if spec.runtime.is_none() {
                return File::open(path);
            }
            // It makes its own beside the one that it is in, and both have to be limited.
            let own = path.join(RUNTIME_GROUP);
            match std::fs::create_dir(&own) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
                _ => File::open(own),
            }
        };
        open().map_err(Failure::doing(&action))
    });
    let group = group.transpose()?;
    sys::clone(namespaces, group.as_ref()).map_err(Failure::doing("create namespaces"))
}

/// Receives what to do, and makes the pipe that tells the child whether the helper lives.
fn receive_task(control: &OwnedFd) -> Result<(Task, OwnedFd), Failure> {
    let message = wire::receive(control).map_err(Failure::doing("hear from kiln"))?;
    let Some((Request::Run { anchor }, fds)) = message else {
        return Err(Failure::new("kiln said nothing"));
    };
    let mut fds = fds.into_iter();
    let mut bytes = |what: &str| {
        let fd = fds.next().ok_or_else(|| Failure::new(format!("kiln gave no {what}")))?;
        let mut bytes = Vec::new();
        read_all(fd, &mut bytes).map_err(Failure::doing(&format!("read the {what}")))?;
        Ok::<_, Failure>(bytes)
    };
    let spec = bytes("specification")?;
    let filter = seccomp::from_bytes(&bytes("system call filter")?);
    let spec: Spec = serde_json::from_slice(&spec)
        .map_err(|error| Failure::new(format!("understand the specification: {error}")))?;
    let namespace = if spec.network == Network::Namespace { fds.next() } else { None };
    let (helper, alive) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(Failure::doing("create pipe"))?;
    let control = control.try_clone().map_err(Failure::doing("duplicate socket"))?;
    let log = if spec.runtime.is_some() { fds.next() } else { None };
    let input = fds.next();
    Ok((Task { spec, anchor, filter, namespace, log, input, control, helper }, alive))
}

/// Reads a memory file that other helpers may be reading too: its offset is shared.
fn read_all(fd: OwnedFd, bytes: &mut Vec<u8>) -> io::Result<()> {
    use std::os::unix::fs::FileExt;
    let file = File::from(fd);
    let length = file.metadata()?.len();
    bytes.resize(usize::try_from(length).map_err(io::Error::other)?, 0);
    file.read_exact_at(bytes, 0)
}

/// Lets go of the program's output, so that it ends with the program.
fn release_output() -> io::Result<()> {
    let null = null()?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

/// Passes signals on until the child has ended. Kills it when kiln is gone.
fn attend(control: &OwnedFd, child: &OwnedFd) -> io::Result<Exit> {
    let mut kiln = Some(control);
    loop {
        let mut watched = vec![PollFd::new(child, PollFlags::IN)];
        watched.extend(kiln.map(|control| PollFd::new(control, PollFlags::IN)));
        rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
        if watched[0].revents().contains(PollFlags::IN) {
            return reap(child);
        }
        if watched.get(1).is_none_or(|control| control.revents().is_empty()) {
            continue;
        }
        match wire::receive(control) {
            Ok(Some((Request::Signal(number), _))) => signal(child, number),
            Ok(Some((Request::Run { .. }, _))) => {}
            Ok(None) | Err(_) => {
                signal(child, libc::SIGKILL);
                kiln = None;
            }
        }
    }
}

fn signal(child: &OwnedFd, number: i32) {
    if let Some(signal) = Signal::from_named_raw(number) {
        // It may just have ended.
        let _ = pidfd_send_signal(child, signal);
    }
}

fn reap(child: &OwnedFd) -> io::Result<Exit> {
    let status =
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(child.as_fd()), WaitIdOptions::EXITED))?;
    let status = status.ok_or_else(|| io::Error::other("the child has no status"))?;
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ok(Exit::Code(code)),
        (None, Some(signal)) => Ok(Exit::Signal(signal)),
        (None, None) => Err(io::Error::other("the child has neither status nor signal")),
    }
}
