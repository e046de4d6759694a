//! Programs with a changed root directory, for a root user without the privilege to mount.
//!
//! ```text
//! kiln ──places mounts──▶ the tree ◀──chroot──┐
//! helper ──fork──▶ supervisor ──fork──▶ the program
//! ```
//!
//! Such a user is root in a container of Docker's, with its default capabilities and system call
//! filter. The program runs in the tree itself, with the host's processes, network and host name.
//! The sandbox makes up for the namespaces:
//!
//! | on other rungs | here |
//! | --- | --- |
//! | mounts, `/dev` | kiln places directories and device nodes in the tree, and removes them afterwards: `placed` |
//! | secrets and other files in memory | the supervisor opens them for the program: `files` |
//! | `/proc`, `/sys` | the supervisor opens files outside for the program: `kernel_files` |
//! | process namespace | the supervisor confines calls that name a process: `processes` |
//! | host name | the supervisor answers `uname` |
//! | a loopback device only | a filter refuses all sockets except local ones |
//!
//! # Invariants
//!
//! - The program never gets a descriptor of a directory outside of the tree. It could leave the tree
//!   through `..`. The supervisor hands in regular files, devices and pipes only. In place of a
//!   directory of `/proc` or `/sys` it hands in a directory in the tree with the same names:
//!   `skeleton`.
//! - The program has neither `CAP_SYS_CHROOT`, with which root leaves a changed root directory, nor
//!   `CAP_MKNOD`. The supervisor creates nodes of harmless devices in its place.
//! - If the supervisor lets the kernel execute a call that names a file, the kernel resolves the name
//!   in the tree. So a program that changes the name in the meantime gains nothing.
//! - `no_new_privs` is set, because the kernel accepts no filter without it. Setuid bits and file
//!   capabilities have no effect.
//!
//! # Order in the child
//!
//! Root, user, working directory, terminal; fork; close-on-exec for all descriptors; `chroot`;
//! session, limits; the bounding set; user and groups; `no_new_privs`; the notifying filter, whose
//! listener goes to the supervisor; the other filters; capabilities; `execve`.

mod calls;
mod files;
mod kernel_files;
mod locate;
pub(super) mod placed;
mod processes;
mod readonly;
mod skeleton;
mod terminal;

use std::convert::Infallible;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::process::{chdir, chroot, fchdir};

use self::calls::ProgramCalls;
use self::files::ServedFile;
use super::child::{self, Ready};
use super::descriptors::path_of;
use super::devices::Terminal;
use super::helper::Task;
use super::identity;
use super::init;
use super::program::Image;
use super::root::{Missing, Root};
use super::seccomp::{self, Filter};
use super::spec::{Network, Process, Spec};
use super::supervisor::{self, hand_over};
use super::wire::{self, Failure, Report};
use crate::sys;
use crate::users::ResolvedUser;

/// Runs the task's program in its tree.
pub(super) fn run(task: Task) -> ! {
    child::fail_with(task.control.try_clone(), || start(task))
}

fn start(task: Task) -> Result<Infallible, Failure> {
    child::take_output(&task.stdout, &task.stderr)?;
    let (program, mut calls) = prepare(task)?;
    let become_program = move |socket: OwnedFd| match program.execute(&socket) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    Err(supervisor::supervise(become_program, move |program| {
        calls.begin(program.as_raw());
        Ok(Box::new(calls))
    }))
}

/// Fails if the specification requires what only mounts or namespaces provide.
pub(super) fn check(spec: &Spec) -> Result<(), Failure> {
    let missing = if spec.runtime.is_some() {
        "an OCI runtime"
    } else if spec.readonly_rootfs {
        "a read-only root file system"
    } else if !spec.security.is_sandbox() {
        "a program with all privileges"
    } else if !spec.sysctls.is_empty() {
        "a kernel parameter"
    } else if spec.network == Network::Namespace {
        "a network of its own"
    } else {
        return Ok(());
    };
    Err(Failure::new(format!("{missing} is impossible without CAP_SYS_ADMIN (isolation: chroot)")))
}

/// The program and everything that its process needs.
struct Program {
    spec: Spec,
    filter: Result<Option<Filter>, Failure>,
    notifying: Filter,
    gate: Option<OwnedFd>,
    control: OwnedFd,
    root: OwnedFd,
    stdin: OwnedFd,
    terminal: Option<Terminal>,
    user: ResolvedUser,
    home: Option<String>,
    made: super::stubs::CreatedStubs,
}

/// Prepares the tree, and the answers to the program's calls.
fn prepare(task: Task) -> Result<(Program, ProgramCalls), Failure> {
    let Task { spec, filter, gate, input, control, .. } = task;
    rustix::process::umask(Mode::empty());
    child::join(&spec.cgroups)?;
    configure(&spec.process)?;
    let path = spec.rootfs.directory().ok_or_else(|| {
        Failure::new("the layers must be copied, because they can't be mounted (isolation: chroot)")
    })?;
    let mut root = Root::of_directory(path)?;
    let (user, home) = child::resolve_user(root.fd(), &spec.process)?;
    identity::check(&user)?;
    if spec.process.cwd != Path::new("/") {
        let missing = Missing::Directory { uid: user.uid, gid: user.gid };
        let cwd = root.open_or_make(&spec.process.cwd, missing)?;
        check_directory(&cwd, root.fd(), &spec.process.cwd)?;
    }
    let tree = root.fd().try_clone().map_err(Failure::doing("duplicate a descriptor"))?;
    let stdin = match input {
        Some(input) => input,
        None => open_null(&tree)?,
    };
    let files = ServedFile::all(&tree, &spec.mounts)?;
    let terminal = spec.process.terminal.map(Terminal::of_host).transpose()?;
    if let Some(terminal) = &terminal {
        terminal::show(&tree, terminal)?;
        wire::send(&control, &Report::Terminal, &[terminal.controller.as_fd()])
            .map_err(Failure::doing("hand the terminal over"))?;
    }
    let calls = ProgramCalls::new(&tree, files, &spec, terminal.as_ref())
        .map_err(Failure::doing("prepare the supervisor"))?;
    let notifying = calls.filter().map_err(Failure::doing("compile the supervisor's filter"))?;
    let made = root.into_made();
    let program = Program {
        spec,
        filter,
        notifying,
        gate,
        control,
        root: tree,
        stdin,
        terminal,
        user,
        home,
        made,
    };
    Ok((program, calls))
}

/// Applies the settings that the kernel takes from files in the host's `/proc`.
fn configure(process: &Process) -> Result<(), Failure> {
    let Some(adjustment) = process.oom_score_adj else { return Ok(()) };
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::open("/proc/self/oom_score_adj", flags, Mode::empty())
        .and_then(|file| rustix::io::write(file, adjustment.to_string().as_bytes()))
        .map(drop)
        .map_err(Failure::doing("set --oom-score-adj"))
}

/// Fails if the working directory is among the kernel's files, which the tree doesn't have.
fn check_directory(cwd: &OwnedFd, root: &OwnedFd, path: &Path) -> Result<(), Failure> {
    let place = |fd: &OwnedFd| path_of(fd).map_err(Failure::doing("enter the working directory"));
    let (cwd, root) = (place(cwd)?, place(root)?);
    let is_kernels = [&b"/proc/"[..], b"/sys/"]
        .iter()
        .any(|kernel| cwd.starts_with(&[root.as_slice(), *kernel].concat()));
    if is_kernels {
        let path = path.display();
        return Err(Failure::new(format!(
            "enter working directory {path}: it is outside of the root"
        )));
    }
    Ok(())
}

fn open_null(root: &OwnedFd) -> Result<OwnedFd, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    rustix::fs::openat(root, "dev/null", flags, Mode::empty())
        .map_err(Failure::doing("open /dev/null"))
}

impl Program {
    /// Becomes the program. `socket` leads to the supervisor.
    fn execute(self, socket: &OwnedFd) -> Result<Infallible, Failure> {
        let Self { spec, filter, user, .. } = &self;
        let filter = filter.as_ref().map_err(Clone::clone)?;
        sys::close_on_exec_above().map_err(Failure::doing("close descriptors"))?;
        self.enter()?;
        child::connect(&self.stdin, self.terminal.as_ref(), user)?;
        identity::set_limits(&spec.process.rlimits)?;
        rustix::process::umask(Mode::from_raw_mode(0o022));
        identity::assume_in_tree(user, spec)?;
        child::die_with_parent()?;
        let image = Image::of(&spec.process, self.home.as_deref())?;
        child::wait_at(
            self.gate
                .as_ref()
                .map(OwnedFd::try_clone)
                .transpose()
                .map_err(Failure::doing("duplicate a descriptor"))?,
        )?;
        Ready { made: self.made.clone(), kept: Vec::new() }.report(&self.control)?;
        rustix::thread::set_no_new_privs(true).map_err(Failure::doing("set no_new_privs"))?;
        // Other processes could hand in descriptors of directories outside. Not every kernel can
        // prevent their use.
        sys::confine_to([self.root.as_fd()])
            .map_err(Failure::doing("confine the program to its tree"))?;
        let doing =
            |error| Failure::doing::<std::io::Error>("install the supervisor's filter")(error);
        let listener = seccomp::install_notifying(&self.notifying).map_err(doing)?;
        hand_over(socket, &listener, supervisor::token()?)?;
        drop(listener);
        let process = &spec.process;
        let parts =
            process.has_init.then(|| init::split(process.terminal.is_some())).transpose()?;
        let doing =
            |error| Failure::doing::<std::io::Error>("install the system call filter")(error);
        if spec.network == Network::None {
            seccomp::without_network()
                .and_then(|filter| seccomp::install(&filter))
                .map_err(doing)?;
        }
        if let Some(filter) = filter {
            seccomp::install(filter).map_err(doing)?;
        }
        if let Some(init::Part::Init { program }) = parts {
            init::run(program);
        }
        Err(image.execute())
    }

    /// Changes the root directory and enters the working directory.
    fn enter(&self) -> Result<(), Failure> {
        let change = || -> rustix::io::Result<()> {
            fchdir(&self.root)?;
            chroot(".")?;
            chdir("/")
        };
        change().map_err(Failure::doing("change the root"))?;
        child::enter_directory(&self.spec.process.cwd)
    }
}
