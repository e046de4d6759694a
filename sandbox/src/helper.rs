//! The helper process: starts a child for each program and waits for it.
//!
//! The helper has one thread, an empty environment and one of kiln's descriptors: its *door*, the
//! socket over which kiln requests runs. So it may fork, and its children may call any function. It
//! prepares once what all programs share and takes time: the program's memory image and the system
//! call filter.

#![expect(clippy::disallowed_methods, reason = "the helper has arguments and files of kiln alone")]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use kiln_tree::Ids;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::process::{
    PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};

use super::capabilities::Capabilities;
use super::isolation::Isolation;
use super::run::Exit;
use super::seccomp::{self, Filter};
use super::spec::{CallFilter, Network, Spec};
use super::wire::{self, Failure, Report, Request, Run};
use super::{child, chroot, emulation, joined, keeper, oci, orphans};
use crate::sys::{self, CloneResult, Namespaces};

/// The `argv[0]` that makes this binary run as the helper.
pub(super) const MARKER: &str = "kiln-sandbox-helper";

/// The control group of an OCI runtime itself, below the program's.
const RUNTIME_GROUP: &str = "runtime";

/// The arguments of the child process.
pub(super) struct Task {
    pub(super) spec: Spec,
    pub(super) anchor: PathBuf,
    /// The way to isolate the program.
    pub(super) isolation: Isolation,
    /// The system call filter, `None` without one, or the error that prevented it.
    pub(super) filter: Result<Option<Filter>, Failure>,
    pub(super) namespace: Option<OwnedFd>,
    /// The file for a runtime's error log.
    pub(super) log: Option<OwnedFd>,
    /// The pipe that the child waits at before it executes the program.
    pub(super) gate: Option<OwnedFd>,
    pub(super) input: Option<OwnedFd>,
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) control: OwnedFd,
    /// The helper's process, if the kernel doesn't kill the program when the helper dies.
    pub(super) helper: Option<OwnedFd>,
}

/// Runs this process as a sandbox's helper, or as process 1 of a runtime's container, if it was
/// started as one. In that case the function doesn't return.
///
/// A program that uses [`Sandbox`](super::Sandbox) must call this first in its `main`, before it
/// starts a second thread.
#[expect(clippy::exit, reason = "the helper is a process of its own, not part of the caller")]
pub fn init_if_asked() {
    let name = std::env::args_os().next().unwrap_or_default();
    if name == oci::init::PATH {
        oci::init::begin();
    }
    if name == MARKER {
        // No process would receive an error. kiln sees that its programs have ended.
        let is_over = Helper::begin().and_then(Helper::serve);
        std::process::exit(i32::from(is_over.is_err()));
    }
}

/// The state of the helper process.
struct Helper {
    /// The socket for requests. `None` after kiln has ended or needs no more programs.
    door: Option<OwnedFd>,
    programs: Vec<Program>,
    filter: Result<Filter, Failure>,
    /// The helper's keeper, if the helper isn't process 1 of a namespace.
    kept: Option<KeptHelper>,
}

/// The extra state of a helper in the host's process namespace.
struct KeptHelper {
    /// The helper's own process descriptor.
    itself: OwnedFd,
    /// The keeper's process descriptor. `None` after the keeper has ended.
    keeper: Option<OwnedFd>,
}

/// A program that the helper has started.
struct Program {
    child: OwnedFd,
    control: OwnedFd,
    /// `true` if kiln has closed its end of the control socket.
    is_abandoned: bool,
    /// `true` if the program is in the host's process namespace. The helper inherits its orphans.
    leaves_orphans: bool,
}

/// An event that the helper waits for. The numbers are indexes into the list of programs.
#[derive(Clone, Copy)]
enum Event {
    KeeperEnded,
    Asked,
    Ended(usize),
    Told(usize),
}

impl Helper {
    fn begin() -> io::Result<Self> {
        // The terminal's signals are for kiln, which forwards some of them.
        let _ = rustix::process::setsid();
        let door = io::stdin().as_fd().try_clone_to_owned()?;
        rustix::stdio::dup2_stdin(null()?)?;
        let _ = rustix::thread::set_name(c"kiln-sandbox");
        let kept = if getpid().is_init() { None } else { Some(KeptHelper::split()?) };
        // The helper handles no signals, and programs must start with the default dispositions.
        sys::reset_signals();
        let filter = compile_filter(Capabilities::DEFAULT);
        // The children inherit the result of this lookup.
        Ids::current();
        Ok(Self { door: Some(door), programs: Vec::new(), filter, kept })
    }

    /// Serves requests until kiln needs no more programs and the last one has ended.
    fn serve(mut self) -> io::Result<()> {
        while self.door.is_some() || !self.programs.is_empty() {
            // Going backwards keeps the indexes valid. Requests for new programs come last.
            for event in self.wait()?.into_iter().rev() {
                match event {
                    Event::KeeperEnded => self.lose_keeper(),
                    Event::Asked => self.answer(),
                    Event::Told(place) => self.obey(place),
                    Event::Ended(place) => self.end(place),
                }
            }
            if self.has_orphans() {
                orphans::reap(&self.pids());
            }
        }
        Ok(())
    }

    /// Reports the end of a program after killing all processes that it has left.
    fn end(&mut self, place: usize) {
        let program = self.programs.swap_remove(place);
        let exit = program.reap();
        if program.leaves_orphans {
            orphans::kill(&self.pids());
        }
        // If the status is unknown, the socket closes without a report.
        if let Ok(exit) = exit {
            program.report(exit);
        }
    }

    /// Executes a request on the control socket of a program.
    fn obey(&mut self, place: usize) {
        let program = &mut self.programs[place];
        match wire::receive(&program.control) {
            Ok(Some((Request::Signal(number), _))) => program.signal(number),
            Ok(Some((Request::Join(run), fds))) => {
                let mut fds = fds.into_iter();
                // Without a socket, no report can be sent.
                let Some(control) = fds.next() else { return };
                if let Err(failure) = self.join(place, run, &control, fds) {
                    let _ = wire::send(&control, &Report::Failed(failure), &[]);
                }
            }
            Ok(None) | Err(_) => program.abandon(),
        }
    }

    /// Starts a program in the namespaces of another one.
    fn join(
        &mut self,
        place: usize,
        run: Run,
        control: &OwnedFd,
        fds: impl Iterator<Item = OwnedFd>,
    ) -> Result<(), Failure> {
        let target = duplicate(&self.programs[place].child)?;
        let task = self.task(run, control, fds)?;
        let process = joined::clone_beside(&target, || clone(Namespaces::default(), &task.spec));
        match process {
            Err((failure, is_lost)) => {
                if is_lost {
                    self.close();
                }
                Err(failure)
            }
            Ok(CloneResult::Child) => {
                self.forget();
                joined::run(task, &target)
            }
            Ok(CloneResult::Parent(child)) => {
                let (control, is_abandoned) = (duplicate(control)?, false);
                let leaves_orphans = false;
                self.programs.push(Program { child, control, is_abandoned, leaves_orphans });
                Ok(())
            }
        }
    }

    /// Closes the descriptors of other programs, in a child.
    fn forget(&mut self) {
        self.door = None;
        self.kept = None;
        self.programs.clear();
    }

    fn has_orphans(&self) -> bool {
        self.programs.iter().any(|program| program.leaves_orphans)
    }

    /// Returns the PIDs of the programs.
    fn pids(&self) -> Vec<i32> {
        self.programs.iter().filter_map(|program| orphans::number(&program.child)).collect()
    }

    fn wait(&self) -> io::Result<Vec<Event>> {
        let (mut events, mut watched) = (Vec::new(), Vec::new());
        if let Some(KeptHelper { keeper: Some(keeper), .. }) = &self.kept {
            events.push(Event::KeeperEnded);
            watched.push(PollFd::new(keeper, PollFlags::IN));
        }
        if let Some(door) = &self.door {
            events.push(Event::Asked);
            watched.push(PollFd::new(door, PollFlags::IN));
        }
        for (place, program) in self.programs.iter().enumerate() {
            events.push(Event::Ended(place));
            watched.push(PollFd::new(&program.child, PollFlags::IN));
            if !program.is_abandoned {
                events.push(Event::Told(place));
                watched.push(PollFd::new(&program.control, PollFlags::IN));
            }
        }
        // Orphans are reaped once a second.
        let pause = Timespec { tv_sec: 1, tv_nsec: 0 };
        let pause = self.has_orphans().then_some(&pause);
        rustix::io::retry_on_intr(|| poll(&mut watched, pause))?;
        let happened = events.iter().zip(&watched).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(happened.map(|(event, _)| *event).collect())
    }

    /// Starts the requested program. Ends all programs if kiln is gone.
    fn answer(&mut self) {
        let asked = self.door.as_ref().map(wire::receive::<Run>);
        let Some(Ok(Some((run, fds)))) = asked else { return self.close() };
        let mut fds = fds.into_iter();
        // Without a socket, no report can be sent.
        let Some(control) = fds.next() else { return };
        if let Err(failure) = self.start(run, &control, fds) {
            let _ = wire::send(&control, &Report::Failed(failure), &[]);
        }
    }

    /// Ends all programs after the keeper has died. If this process were killed now, they would
    /// survive.
    fn lose_keeper(&mut self) {
        if let Some(kept) = &mut self.kept {
            kept.keeper = None;
        }
        self.close();
    }

    /// Accepts no more programs and kills the running ones.
    fn close(&mut self) {
        self.door = None;
        for program in &mut self.programs {
            program.abandon();
        }
    }

    fn start(
        &mut self,
        run: Run,
        control: &OwnedFd,
        fds: impl Iterator<Item = OwnedFd>,
    ) -> Result<(), Failure> {
        let task = self.task(run, control, fds)?;
        let leaves_orphans = task.spec.shared.pid || !task.isolation.has_namespaces();
        let namespaces = Namespaces {
            network: task.spec.network == Network::None,
            ipc: !task.spec.shared.ipc,
            uts: !task.spec.shared.uts,
            pid: !task.spec.shared.pid,
        };
        if leaves_orphans {
            orphans::adopt().map_err(Failure::doing("see to what the program leaves behind"))?;
        }
        let process = if task.isolation.has_namespaces() {
            clone(namespaces, &task.spec)?
        } else {
            sys::fork_watched().map_err(Failure::doing("start a supervisor"))?
        };
        match process {
            CloneResult::Child => {
                // The child first closes the descriptors of other programs.
                self.forget();
                match task.isolation {
                    Isolation::Root | Isolation::UserNamespace => child::run(task),
                    Isolation::Chroot => chroot::run(task),
                    Isolation::None => emulation::run(task),
                }
            }
            CloneResult::Parent(child) => {
                let control = duplicate(control)?;
                let is_abandoned = false;
                self.programs.push(Program { child, control, is_abandoned, leaves_orphans });
                Ok(())
            }
        }
    }

    /// Returns a program's filter. The default filter is compiled only once.
    fn filter(&self, spec: &Spec) -> Result<Option<Filter>, Failure> {
        let capabilities = spec.privileges.capabilities;
        match &spec.privileges.calls {
            CallFilter::Unconfined => Ok(None),
            CallFilter::Builtin if !spec.security.is_sandbox() => Ok(None),
            CallFilter::Builtin if capabilities == Capabilities::DEFAULT => {
                self.filter.clone().map(Some)
            }
            CallFilter::Builtin => compile_filter(capabilities).map(Some),
            CallFilter::Profile(profile) => {
                let filter = seccomp::filter_of(profile).map(Some);
                filter.map_err(Failure::doing("compile the system call filter"))
            }
        }
    }

    /// Builds the child's arguments from a request and its descriptors.
    fn task(
        &self,
        run: Run,
        control: &OwnedFd,
        mut fds: impl Iterator<Item = OwnedFd>,
    ) -> Result<Task, Failure> {
        let mut next =
            |what: &str| fds.next().ok_or_else(|| Failure::new(format!("kiln gave no {what}")));
        let (stdout, stderr) = (next("output")?, next("output")?);
        let spec =
            read_all(next("specification")?).map_err(Failure::doing("read the specification"))?;
        let spec: Spec = serde_json::from_slice(&spec)
            .map_err(|error| Failure::new(format!("understand the specification: {error}")))?;
        let namespace = if spec.network == Network::Namespace { fds.next() } else { None };
        let log = if spec.runtime.is_some() { fds.next() } else { None };
        let gate = if run.is_gated { fds.next() } else { None };
        Ok(Task {
            anchor: run.anchor,
            isolation: run.isolation,
            filter: self.filter(&spec),
            spec,
            namespace,
            log,
            gate,
            input: fds.next(),
            stdout,
            stderr,
            control: duplicate(control)?,
            helper: self.kept.as_ref().map(|kept| duplicate(&kept.itself)).transpose()?,
        })
    }
}

fn compile_filter(capabilities: Capabilities) -> Result<Filter, Failure> {
    seccomp::filter(capabilities).map_err(Failure::doing("compile the system call filter"))
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    fd.try_clone().map_err(Failure::doing("duplicate a descriptor"))
}

/// Starts the child in its control group of version 2.
fn clone(namespaces: Namespaces, spec: &Spec) -> Result<CloneResult, Failure> {
    let group = spec.cgroups.unified.as_deref().map(|path| {
        let action = format!("open the control group {}", path.display());
        let open = || {
            if spec.runtime.is_none() {
                return File::open(path);
            }
            // A runtime creates its group beside the one that it is in, and the limits must cover
            // both.
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

fn read_all(fd: OwnedFd) -> io::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt;
    let file = File::from(fd);
    let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

fn null() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOCTTY;
    Ok(rustix::fs::open("/dev/null", flags, Mode::empty())?)
}

impl KeptHelper {
    /// Splits this process into keeper and helper: see [`keeper`].
    fn split() -> io::Result<Self> {
        let keeper = Some(keeper::split()?);
        Ok(Self { itself: pidfd_open(getpid(), PidfdFlags::empty())?, keeper })
    }
}

impl Program {
    /// Kills the program because kiln doesn't need it any more.
    fn abandon(&mut self) {
        self.signal(libc::SIGKILL);
        self.is_abandoned = true;
    }

    fn signal(&self, number: i32) {
        if let Some(signal) = Signal::from_named_raw(number) {
            // The program may have ended already.
            let _ = pidfd_send_signal(&self.child, signal);
        }
    }

    /// Reports the program's exit to kiln.
    fn report(self, exit: Exit) {
        let _ = wire::send(&self.control, &Report::Exited(exit), &[]);
    }

    fn reap(&self) -> io::Result<Exit> {
        let end = || waitid(WaitId::PidFd(self.child.as_fd()), WaitIdOptions::EXITED);
        let status = rustix::io::retry_on_intr(end)?;
        let status = status.ok_or_else(|| io::Error::other("the child has no status"))?;
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ok(Exit::Code(code)),
            (None, Some(signal)) => Ok(Exit::Signal(signal)),
            (None, None) => Err(io::Error::other("the child has neither status nor signal")),
        }
    }
}
