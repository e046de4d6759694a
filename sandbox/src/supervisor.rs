//! The supervisor: the parent of a program that has no namespaces of its own.
//!
//! ```text
//! helper ──fork──▶ supervisor ──fork──▶ the program
//!                       ▲                 │ system calls that the filter names
//!                       └──── listener ───┘
//! ```
//!
//! The supervisor answers the system calls for which the program's seccomp filter asks
//! (`seccomp_unotify(2)`). [`Calls`] decides which calls those are, and the answers.
//!
//! The supervisor is the subreaper of the program's processes. It ends with the program and with its
//! status. The helper then inherits the remaining processes and kills them (`orphans`). So it does
//! not matter how the supervisor ends. If the helper dies, the kernel kills the supervisor.
//!
//! The supervisor passes the signals that it receives on to the program.
//!
//! A signal may interrupt a call after the supervisor has acted, because kernels before 5.19 don't
//! know `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV`. The thread then usually repeats the call. The
//! supervisor remembers the answer that it couldn't deliver and returns it to the repeated call.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, pidfd_open};

use super::wire::Failure;
use super::{child, orphans, wire};
use crate::sys::{self, Answer, Fork, Notification};

/// The calls of a program that the supervisor answers.
pub(super) trait Calls {
    /// Answers a call. `None` if the call has been answered, or needs no answer any more.
    fn answer(&mut self, call: &Call<'_>) -> Option<Answer>;
}

/// A call that waits for its answer.
pub(super) struct Call<'a> {
    /// The call and its arguments.
    pub(super) notification: Notification,
    listener: &'a OwnedFd,
}

impl Call<'_> {
    /// Returns `true` if the calling thread still waits for the answer.
    pub(super) fn is_waiting(&self) -> bool {
        sys::is_valid(self.listener, self.notification.id)
    }

    /// Adds a descriptor to the calling process, as `number` if given. Returns its number there.
    pub(super) fn add_descriptor(
        &self,
        fd: impl AsFd,
        number: Option<u32>,
        closes_on_exec: bool,
    ) -> io::Result<i64> {
        sys::add_descriptor(self.listener, self.notification.id, fd, number, closes_on_exec)
    }

    /// Answers the call now. Fails if the thread no longer waits.
    pub(super) fn send(&self, answer: Answer) -> io::Result<()> {
        sys::send(self.listener, self.notification.id, answer)
    }
}

/// The time between two looks for processes that have lost their parents and ended.
const REAPING: Duration = Duration::from_secs(1);

/// The answer that a thread didn't receive, with the call that it was for.
type Undelivered = (i32, [u64; 6], Answer);

/// Forks the program's process, which runs `become_program` with the socket for its listener, and
/// answers its calls until it ends. Doesn't return in the supervisor.
///
/// # Errors
/// Fails in the child's process if the program can't be executed, and in the supervisor's if the
/// program's process can't be started.
pub(super) fn supervise(
    become_program: impl FnOnce(OwnedFd) -> Failure,
    calls: impl FnOnce(Pid) -> io::Result<Box<dyn Calls>>,
) -> Failure {
    let (ours, theirs) = match wire::pair() {
        Ok(pair) => pair,
        Err(error) => return Failure::doing("create a socket")(error),
    };
    if let Err(failure) = child::die_with_parent().and_then(|()| {
        orphans::adopt().map_err(Failure::doing("see to what the program leaves behind"))
    }) {
        return failure;
    }
    match sys::fork() {
        Err(error) => Failure::doing("start the program's process")(error),
        Ok(Fork::Child) => {
            drop(ours);
            become_program(theirs)
        }
        Ok(Fork::Parent(program)) => {
            drop(theirs);
            // The closure holds the program's descriptors.
            drop(become_program);
            serve(Pid::from_raw(program), &ours, calls)
        }
    }
}

/// Sends the listener to the supervisor. Call it before any call that the filter asks about.
///
/// A filter that asks about `sendmsg`, too, can let this message pass by its `token`, a value in an
/// argument that the kernel ignores. The program doesn't know the token.
pub(super) fn hand_over(socket: &OwnedFd, listener: &OwnedFd, token: u64) -> Result<(), Failure> {
    // The content is that of an empty message of `wire`.
    sys::send_descriptor(socket, b"null", listener, token)
        .map_err(Failure::doing("hand the listener to the supervisor"))
}

/// Returns a token for [`hand_over`].
pub(super) fn token() -> Result<u64, Failure> {
    sys::random_number().map_err(Failure::doing("choose a number"))
}

/// Runs the supervisor until the program has ended.
fn serve(
    program: Pid,
    socket: &OwnedFd,
    calls: impl FnOnce(Pid) -> io::Result<Box<dyn Calls>>,
) -> ! {
    let _ = rustix::thread::set_name(c"kiln-supervisor");
    let signals = receive_signals();
    // The supervisor has no input and output of the program, whose readers wait for their end.
    sys::close_standard();
    if let Ok(calls) = calls(program) {
        let undelivered = HashMap::new();
        let mut supervisor = Supervisor { program, calls, undelivered };
        // Without a listener, the program's calls fail. It reports the error itself.
        let _ = supervisor.run(socket, signals.as_ref());
    }
    end_like(program)
}

/// Makes this process receive all signals through a descriptor.
fn receive_signals() -> Option<SignalFd> {
    SigSet::all().thread_block().ok()?;
    SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).ok()
}

struct Supervisor {
    program: Pid,
    calls: Box<dyn Calls>,
    undelivered: HashMap<u32, Undelivered>,
}

impl Supervisor {
    /// Answers calls until the program ends. `signals` receives signals; `None` if the kernel refuses
    /// that.
    fn run(&mut self, socket: &OwnedFd, signals: Option<&SignalFd>) -> io::Result<()> {
        let number = rustix::process::Pid::from_raw(self.program.as_raw())
            .ok_or_else(|| io::Error::other("the program has no number"))?;
        let end = pidfd_open(number, PidfdFlags::empty())?;
        let Some(listener) = Self::wait_for_listener(socket, &end)? else { return Ok(()) };
        sys::wake_synchronously(&listener);
        let pause = Timespec { tv_sec: 1, tv_nsec: 0 };
        let mut reaped = Instant::now();
        let mut watched =
            vec![PollFd::new(&listener, PollFlags::IN), PollFd::new(&end, PollFlags::IN)];
        watched.extend(signals.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
        loop {
            rustix::io::retry_on_intr(|| poll(&mut watched, Some(&pause)))?;
            let [asked, ended] = [watched[0].revents(), watched[1].revents()];
            if let Some(signals) = signals
                && !watched[2].revents().is_empty()
            {
                self.pass(signals);
            }
            if asked.contains(PollFlags::IN) {
                self.answer(&listener);
            }
            if reaped.elapsed() >= REAPING {
                orphans::reap(&[self.program.as_raw()]);
                reaped = Instant::now();
            }
            if !ended.is_empty() || asked.contains(PollFlags::HUP) {
                return Ok(());
            }
        }
    }

    /// Passes received signals on to the program.
    fn pass(&self, signals: &SignalFd) {
        while let Ok(Some(signal)) = signals.read_signal() {
            let signal = Signal::try_from(signal.ssi_signo.cast_signed());
            if let Ok(signal) = signal
                && signal != Signal::SIGCHLD
            {
                // The program may have ended.
                let _ = kill(self.program, signal);
            }
        }
    }

    /// Receives the listener. Returns `None` if the program has ended without sending it.
    fn wait_for_listener(socket: &OwnedFd, end: &OwnedFd) -> io::Result<Option<OwnedFd>> {
        let mut watched = [PollFd::new(socket, PollFlags::IN), PollFd::new(end, PollFlags::IN)];
        rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
        let message = wire::receive::<()>(socket)?;
        Ok(message.and_then(|((), fds)| fds.into_iter().next()))
    }

    fn answer(&mut self, listener: &OwnedFd) {
        // The thread may have ended in the meantime.
        let Ok(notification) = sys::receive(listener) else { return };
        let key = (notification.call, notification.arguments);
        let call = Call { notification, listener };
        let repeated = self.undelivered.remove(&notification.pid);
        let answer = match repeated {
            Some((number, arguments, answer)) if (number, arguments) == key => Some(answer),
            _ => self.calls.answer(&call),
        };
        let Some(answer) = answer else { return };
        let sent = call.send(answer);
        let is_late = sent.is_err_and(|error| error.raw_os_error() == Some(libc::ENOENT));
        if is_late && answer != Answer::Continue {
            self.undelivered.insert(notification.pid, (key.0, key.1, answer));
        }
    }
}

/// Ends this process with the status of the program.
#[expect(
    clippy::exit,
    reason = "the supervisor is a process of its own, and has no caller to return to"
)]
fn end_like(program: Pid) -> ! {
    loop {
        match waitpid(program, Some(WaitPidFlag::empty())) {
            Ok(WaitStatus::Exited(_, code)) => std::process::exit(code),
            Ok(WaitStatus::Signaled(_, signal, _)) => die_by(signal),
            Err(nix::errno::Errno::EINTR) | Ok(_) => {}
            // It was reaped when a deadly signal met it in a stop for the supervisor.
            Err(_) => die_by(Signal::SIGKILL),
        }
    }
}

/// Ends this process by a signal, without a memory dump.
#[expect(clippy::exit, reason = "the process ends in any case")]
fn die_by(signal: Signal) -> ! {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let _ = setrlimit(Resource::Core, none);
    let _ = SigSet::empty().thread_set_mask();
    let _ = raise(signal);
    std::process::exit(128 + signal as i32)
}
