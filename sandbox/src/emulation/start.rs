//! The processes of an emulation: the supervisor and the program below it.

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::process::fchdir;

use super::calls::asked;
use super::setup::prepare;
use crate::child::{self, Ready};
use crate::devices::Terminal;
use crate::helper::Task;
use crate::program::Image;
use crate::spec::{Network, Spec};
use crate::stubs::CreatedStubs;
use crate::users::ResolvedUser;
use crate::wire::{self, Failure, Report};
use crate::{identity, init, seccomp, supervisor, sys};

/// Runs as the supervisor of a program, and as the program in a process below.
pub(in super::super) fn run(task: Task) -> ! {
    child::fail_with(task.control.try_clone(), || start(task))
}

fn start(task: Task) -> Result<Infallible, Failure> {
    let (mut emulation, process) = prepare(&task)?;
    let has_terminal = task.spec.process.terminal.is_some();
    let become_program = move |socket: OwnedFd| match become_program(task, process, &socket) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    Err(supervisor::supervise(become_program, move |program| {
        emulation.set_program(program, has_terminal);
        Ok(Box::new(emulation))
    }))
}

/// The parts of the program's process.
pub(super) struct Process {
    /// The real working directory.
    pub(super) directory: OwnedFd,
    /// The directories that hold programs.
    pub(super) trees: Vec<OwnedFd>,
    pub(super) home: Option<String>,
    pub(super) terminal: Option<Terminal>,
    pub(super) made: CreatedStubs,
}

/// Becomes the program: after the filter is in place, the supervisor answers this process's calls.
fn become_program(task: Task, process: Process, socket: &OwnedFd) -> Result<Infallible, Failure> {
    let Task { spec, filter, gate, input, stdout, stderr, control, .. } = task;
    let Process { directory, trees, home, terminal, made } = process;
    child::take_output(&stdout, &stderr)?;
    if let Some(terminal) = &terminal {
        wire::send(&control, &Report::Terminal, &[terminal.controller.as_fd()])
            .map_err(Failure::doing("hand the terminal over"))?;
    }
    child::configure(&spec)?;
    let stdin = match input {
        Some(input) => input,
        None => rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Failure::doing("open /dev/null"))?,
    };
    let own = ResolvedUser {
        uid: rustix::process::geteuid().as_raw(),
        gid: rustix::process::getegid().as_raw(),
        groups: Vec::new(),
    };
    child::connect(&stdin, terminal.as_ref(), &own)?;
    identity::set_limits(&spec.process.rlimits)?;
    child::die_with_parent()?;
    child::wait_at(gate)?;
    fchdir(&directory).map_err(Failure::doing("enter a directory"))?;
    let filter = filter?;
    let token = supervisor::token()?;
    let asking = seccomp::notifying(&asked(token), true);
    let asking = asking.map_err(Failure::doing("compile the system call filter"))?;
    rustix::thread::set_no_new_privs(true).map_err(Failure::doing("set no_new_privs"))?;
    // The kernel resolves the paths of a few calls, which another thread may change meanwhile. Not
    // every kernel can prevent that they lead out.
    let trees = trees.iter().chain([&directory]).map(AsFd::as_fd);
    sys::confine_to(trees).map_err(Failure::doing("confine the program to its tree"))?;
    if let Some(filter) = &filter {
        seccomp::install(filter).map_err(Failure::doing("install the system call filter"))?;
    }
    if spec.network == Network::None {
        seccomp::without_network()
            .and_then(|filter| seccomp::install(&filter))
            .map_err(Failure::doing("install the system call filter"))?;
    }
    let listener = seccomp::install_notifying(&asking)
        .map_err(Failure::doing("install the filter that asks the supervisor"))?;
    supervisor::hand_over(socket, &listener, token)?;
    drop(listener);
    execute(&spec, home.as_deref(), made, &control)
}

fn execute(
    spec: &Spec,
    home: Option<&str>,
    made: CreatedStubs,
    control: &OwnedFd,
) -> Result<Infallible, Failure> {
    let process = &spec.process;
    let image = Image::of(process, home)?;
    Ready { made, kept: Vec::new() }.report(control)?;
    sys::close_on_exec_above().map_err(Failure::doing("close descriptors"))?;
    let parts = process.has_init.then(|| init::split(process.terminal.is_some())).transpose()?;
    if let Some(init::Part::Init { program }) = parts {
        init::run(program);
    }
    Err(image.execute())
}
