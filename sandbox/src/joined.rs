//! Further programs in the namespaces of a running one.
//!
//! The helper starts such a program, as it starts every other. It can move a child into another
//! process namespace only before the child exists, so it chooses the namespace of its own next
//! children for a moment: [`clone_beside`]. The child then enters the other namespaces of the
//! running program and takes on its rights, in the order of [`child`].
//!
//! The kernel kills the program together with the first one, which is process 1 of the namespace.
//! The files, mounts, host name and network are those of the first program. User, environment,
//! working directory and confinement are the program's own.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::process::{PidfdFlags, getpid, pidfd_open};
use rustix::thread::{ThreadNameSpaceType, move_into_thread_name_spaces};

use super::child::{self, Ready};
use super::devices::Terminal;
use super::helper::Task;
use super::stubs::CreatedStubs;
use super::wire::{self, Failure, Report};
use super::{identity, orphans};
use crate::sys::CloneResult;

/// Starts a child in the process namespace of `target`, which may have ended.
///
/// # Errors
/// Fails if the child can't be started. The flag is `true` if the helper's own next children would
/// be in that namespace, too.
pub(super) fn clone_beside(
    target: &OwnedFd,
    clone: impl FnOnce() -> Result<CloneResult, Failure>,
) -> Result<CloneResult, (Failure, bool)> {
    let own = pidfd_open(getpid(), PidfdFlags::empty())
        .map_err(|errno| (Failure::doing("open the helper's process")(errno), false))?;
    let choose = |process: &OwnedFd| {
        move_into_thread_name_spaces(process.as_fd(), ThreadNameSpaceType::PROCESS_ID)
    };
    choose(target).map_err(|errno| (ended(errno), false))?;
    let process = clone();
    if matches!(process, Ok(CloneResult::Child)) {
        return process.map_err(|failure| (failure, false));
    }
    choose(&own).map_err(|errno| (Failure::doing("leave a process namespace")(errno), true))?;
    process.map_err(|failure| (failure, false))
}

/// Returns the failure to enter a namespace of a program.
fn ended(errno: rustix::io::Errno) -> Failure {
    match errno {
        rustix::io::Errno::SRCH => Failure::new("the container's first program has ended"),
        errno => Failure::doing("enter the container")(errno),
    }
}

/// Becomes the program of a task, in the namespaces of `target`.
pub(super) fn run(task: Task, target: &OwnedFd) -> ! {
    child::fail_with(task.control.try_clone(), || {
        child::take_output(&task.stdout, &task.stderr)?;
        become_program(task, target)
    })
}

fn become_program(task: Task, target: &OwnedFd) -> Result<Infallible, Failure> {
    let Task { spec, filter, input, control, helper, .. } = task;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    child::join(&spec.cgroups)?;
    child::configure(&spec)?;
    let has_inner = has_own_users(target);
    // It is the host's: a program without confinement can replace the files in its container's `/dev`.
    let stdin = match input {
        Some(input) => input,
        None => null()?,
    };
    let shared = ThreadNameSpaceType::MOUNT
        | ThreadNameSpaceType::INTER_PROCESS_COMMUNICATION
        | ThreadNameSpaceType::HOST_NAME_AND_NIS_DOMAIN_NAME
        | ThreadNameSpaceType::NETWORK
        | ThreadNameSpaceType::CONTROL_GROUP;
    move_into_thread_name_spaces(target.as_fd(), shared).map_err(ended)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open("/", flags, Mode::empty())
        .map_err(Failure::doing("open the root file system"))?;
    let (user, home) = child::resolve_user(&root, &spec.process)?;
    identity::check(&user)?;
    let terminal = spec.process.terminal.map(Terminal::of_container).transpose()?;
    if let Some(terminal) = &terminal {
        wire::send(&control, &Report::Terminal, &[terminal.controller.as_fd()])
            .map_err(Failure::doing("hand the terminal over"))?;
    }
    child::enter_directory(&spec.process.cwd)?;
    child::connect(&stdin, terminal.as_ref(), &user)?;
    identity::set_limits(&spec.process.rlimits)?;
    if has_inner {
        move_into_thread_name_spaces(target.as_fd(), ThreadNameSpaceType::USER).map_err(ended)?;
    }
    identity::assume(&user, &spec)?;
    child::die_with(helper.as_ref())?;
    let ready = Ready { made: CreatedStubs::default(), kept: Vec::new() };
    child::execute(&spec, &child::Identity { user, home }, ready, &control, filter)
}

/// Returns `true` if a process has a user namespace other than this process's. The root directory
/// must be the helper's.
fn has_own_users(process: &OwnedFd) -> bool {
    let namespace = |of: &str| rustix::fs::stat(format!("/proc/{of}/ns/user").as_str());
    let own = namespace("self").map(|file| file.st_ino);
    let other = orphans::number(process).map(|number| namespace(&number.to_string()));
    matches!((own, other), (Ok(own), Some(Ok(other))) if own != other.st_ino)
}

/// Opens `/dev/null` of the host. The process must not have entered the container.
fn null() -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY;
    rustix::fs::openat(CWD, "/dev/null", flags, Mode::empty())
        .map_err(Failure::doing("open /dev/null"))
}
