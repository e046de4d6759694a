//! The child process: it builds the program's environment and then executes the program.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, Uid};
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::process::{Signal, fchdir, set_parent_process_death_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::cgroup::Membership;
use super::change_root::change_root;
use super::devices::{OwnMounts, Terminal};
use super::helper::Task;
use super::inner_namespace::InnerNamespace;
use super::mount_handle::{MountHandle, restrict_attached};
use super::program::Image;
use super::root::{Missing, Root, is_pipe};
use super::seccomp::Filter;
use super::sources::{Linked, Sources, open_inside};
use super::spec::{Network, Process, Spec, Sysctl, User};
use super::stubs::CreatedStubs;
use super::wire::{self, Failure, Report};
use super::{identity, init, oci, seal, seccomp};
use crate::sys::{self, MountAttributes};
use crate::users::{ResolvedUser, UserDatabase};

/// The exit status of a child that failed before the program started. kiln doesn't show it.
const FAILED: i32 = 125;

/// Sets up the sandbox and executes the program.
pub(super) fn run(task: Task) -> ! {
    fail_with(task.control.try_clone(), || {
        take_output(&task.stdout, &task.stderr).and_then(|()| become_program(task))
    })
}

/// Runs `work`, which becomes the program or fails, and reports the failure over the control socket.
#[expect(clippy::exit, reason = "the process is one of its own, and has no caller to return to")]
pub(super) fn fail_with(
    control: io::Result<OwnedFd>,
    work: impl FnOnce() -> Result<Infallible, Failure>,
) -> ! {
    let failure = match work() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    if let Ok(control) = control {
        // If kiln has closed the socket, it needs no report.
        let _ = wire::send(control, &Report::Failed(failure), &[]);
    }
    std::process::exit(FAILED)
}

/// Makes the task's output descriptors standard output and standard error.
pub(super) fn take_output(stdout: &OwnedFd, stderr: &OwnedFd) -> Result<(), Failure> {
    rustix::stdio::dup2_stdout(stdout)
        .and_then(|()| rustix::stdio::dup2_stderr(stderr))
        .map_err(Failure::doing("take the output"))
}

/// The attached root file system and everything else that the program needs.
struct PreparedRoot {
    root: Root,
    stdin: OwnedFd,
    terminal: Option<Terminal>,
    user: ResolvedUser,
    home: Option<String>,
    /// The namespace to enter if the program sees the processes of others in `/proc`.
    inner: Option<InnerNamespace>,
    /// The descriptors of mounts that kiln requested.
    kept: Vec<OwnedFd>,
}

fn become_program(task: Task) -> Result<Infallible, Failure> {
    rustix::process::umask(Mode::empty());
    if let Some(runtime) = task.spec.runtime.clone() {
        return oci::become_runtime(task, &runtime);
    }
    join(&task.spec.cgroups)?;
    if !task.spec.shared.cgroup {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP)
            .map_err(|errno| Failure::doing("enter a cgroup namespace")(io::Error::from(errno)))?;
    }
    let Task { spec, anchor, filter, namespace, gate, input, control, helper, .. } = task;
    enter_network(spec.network, namespace)?;
    configure(&spec)?;
    let furnished = furnish(&spec, &anchor, input)?;
    if let Some(terminal) = &furnished.terminal {
        let controller = terminal.controller.as_fd();
        wire::send(&control, &Report::Terminal, &[controller])
            .map_err(Failure::doing("hand the terminal over"))?;
    }
    enter(&furnished.root, &spec)?;
    if !spec.shared.uts {
        rustix::system::sethostname(spec.hostname.as_bytes())
            .map_err(Failure::doing("set host name"))?;
    }
    if let Some(name) = &spec.domainname {
        rustix::system::setdomainname(name.as_bytes())
            .map_err(Failure::doing("set the domain name"))?;
    }
    let PreparedRoot { root, stdin, terminal, user, home, inner, kept } = furnished;
    let ready = Ready { made: root.into_made(), kept };
    connect(&stdin, terminal.as_ref(), &user)?;
    identity::set_limits(&spec.process.rlimits)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if let Some(inner) = inner {
        inner.enter(!spec.security.is_sandbox())?;
    }
    identity::assume(&user, &spec)?;
    die_with(helper.as_ref())?;
    wait_at(gate)?;
    let identity = Identity { user, home };
    execute(&spec, &identity, ready, &control, filter)
}

/// Applies the settings that the kernel takes from files in the host's `/proc`.
pub(super) fn configure(spec: &Spec) -> Result<(), Failure> {
    if let Some(adjustment) = spec.process.oom_score_adj {
        std::fs::write("/proc/self/oom_score_adj", adjustment.to_string())
            .map_err(Failure::doing("set --oom-score-adj"))?;
    }
    if let Some(profile) = &spec.privileges.apparmor {
        confine(profile)?;
    }
    for Sysctl { name, value } in &spec.sysctls {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::write(path, value).map_err(Failure::doing(&format!("set {name} to {value}")))?;
    }
    Ok(())
}

/// Sets the AppArmor profile for the program that this process executes next.
fn confine(profile: &str) -> Result<(), Failure> {
    let change = format!("exec {profile}");
    // Without the newer file, the older one belongs to the first security module.
    let set = std::fs::write("/proc/self/attr/apparmor/exec", &change);
    let set = set.or_else(|error| match error.kind() {
        io::ErrorKind::NotFound if !Path::new("/proc/self/attr/apparmor").exists() => {
            std::fs::write("/proc/self/attr/exec", &change)
        }
        _ => Err(error),
    });
    set.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            Failure::new(format!("the kernel has no AppArmor profile {profile}: load it first"))
        }
        _ => Failure::doing(&format!("apply the AppArmor profile {profile}"))(error),
    })
}

/// Joins the control groups of version 1. `clone3` has joined the group of version 2.
pub(super) fn join(groups: &Membership) -> Result<(), Failure> {
    for group in &groups.joined {
        let action = format!("join the control group {}", group.display());
        // The kernel takes zero as the writing process.
        std::fs::write(group.join("cgroup.procs"), "0").map_err(Failure::doing(&action))?;
    }
    Ok(())
}

/// The user that this process runs as.
pub(super) struct Identity {
    pub(super) user: ResolvedUser,
    pub(super) home: Option<String>,
}

/// The report and descriptors that kiln receives when the setup is complete.
pub(super) struct Ready {
    pub(super) made: CreatedStubs,
    pub(super) kept: Vec<OwnedFd>,
}

impl Ready {
    pub(super) fn report(self, control: &OwnedFd) -> Result<(), Failure> {
        let kept: Vec<_> = self.kept.iter().map(AsFd::as_fd).collect();
        wire::send(control, &Report::Ready(self.made), &kept)
            .map_err(Failure::doing("report to kiln"))
    }
}

/// Reports that the setup is complete, drops the last rights and executes the program.
pub(super) fn execute(
    spec: &Spec,
    identity: &Identity,
    ready: Ready,
    control: &OwnedFd,
    filter: Result<Option<Filter>, Failure>,
) -> Result<Infallible, Failure> {
    let process = &spec.process;
    let image = Image::of(process, identity.home.as_deref())?;
    let filter = filter?;
    ready.report(control)?;
    sys::close_on_exec_above().map_err(Failure::doing("close descriptors"))?;
    if spec.privileges.no_new_privileges {
        rustix::thread::set_no_new_privs(true).map_err(Failure::doing("set no_new_privs"))?;
    }
    let parts = process.has_init.then(|| init::split(process.terminal.is_some())).transpose()?;
    if let Some(filter) = &filter {
        seccomp::install(filter).map_err(Failure::doing("install the system call filter"))?;
    }
    identity::finish(&identity.user, spec)?;
    if let Some(init::Part::Init { program }) = parts {
        init::run(program);
    }
    Err(image.execute())
}

/// Creates all mounts and attaches them to the new root.
fn furnish(spec: &Spec, anchor: &Path, input: Option<OwnedFd>) -> Result<PreparedRoot, Failure> {
    let linked = Linked::clone_of(&spec.mounts)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(Failure::doing("make mounts private"))?;
    let mut sources = Sources::new(anchor, &spec.mounts, linked);
    let own = OwnMounts::new(&mut sources, spec)?;
    let mounts = spec
        .mounts
        .iter()
        .map(|mount| {
            sources.mount(&mount.kind).map_err(|failure| Failure {
                message: format!("mount at {}: {}", mount.target.display(), failure.message),
                ..failure
            })
        })
        .collect::<Result<Vec<MountHandle>, _>>()?;
    let tree = sources.tree(&spec.rootfs, !spec.opens_devices())?;
    let upper = spec.rootfs.upper().map(std::path::PathBuf::as_path);
    let mut root = Root::attach(&tree, anchor, upper)?;
    let (user, home) = resolve_user(root.fd(), &spec.process)?;
    identity::check(&user)?;
    let terminal = own.attach(&mut root, spec)?;
    for (mount, plan) in mounts.iter().zip(&spec.mounts) {
        root.mount(mount, &plan.target)?;
    }
    let missing = Missing::Directory { uid: user.uid, gid: user.gid };
    if spec.process.cwd != Path::new("/") {
        root.open_or_make(&spec.process.cwd, missing)?;
    }
    let stdin = match input {
        Some(input) => input,
        None => own.open_null()?,
    };
    let inner = own.shows_others().then(InnerNamespace::prepare).transpose()?;
    let mounts: Vec<_> = mounts.iter().map(AsFd::as_fd).collect();
    let kept = seal::handles(spec, root.fd().as_fd(), &mounts)?;
    Ok(PreparedRoot { root, stdin, terminal, user, home, inner, kept })
}

pub(super) fn resolve_user(
    root: impl AsFd,
    process: &Process,
) -> Result<(ResolvedUser, Option<String>), Failure> {
    // A broken file is an error only if one of its entries is needed.
    let users = UserDatabase::read(root);
    let home = |uid| {
        let home = users.as_ref().ok()?.home(uid)?;
        home.into_os_string().into_string().ok()
    };
    let mut resolved = match &process.user {
        User::Ids { uid, gid, groups } => {
            ResolvedUser { uid: *uid, gid: *gid, groups: groups.clone() }
        }
        User::Named(name) => match &users {
            Ok(users) => users.resolve(name),
            Err(_) if name.is_empty() => UserDatabase::default().resolve(name),
            Err(error) => return Err(Failure::because(error)),
        }
        .map_err(|error| Failure::because(&error))?,
    };
    for group in &process.groups {
        let users = users.as_ref().map_err(|error| Failure::because(error))?;
        let gid = users.group(group).map_err(|error| Failure::because(&error))?;
        if !resolved.groups.contains(&gid) {
            resolved.groups.push(gid);
        }
    }
    let home = home(resolved.uid);
    Ok((resolved, home))
}

/// Changes to the new root, detaches the old one and enters the working directory.
fn enter(root: &Root, spec: &Spec) -> Result<(), Failure> {
    change_root(root.fd())?;
    if spec.readonly_rootfs {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let attributes = MountAttributes { readonly: true, ..MountAttributes::default() };
        let root = rustix::fs::openat(CWD, "/", flags, Mode::empty())
            .map_err(Failure::doing("open the new root"))?;
        restrict_attached(root, attributes)?;
    }
    enter_directory(&spec.process.cwd)
}

/// Enters the working directory below the root directory.
pub(super) fn enter_directory(path: &Path) -> Result<(), Failure> {
    let action = format!("enter working directory {}", path.display());
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let root = rustix::fs::open("/", flags | OFlags::CLOEXEC, Mode::empty())
        .map_err(Failure::doing(&action))?;
    let path = super::root::clean(path);
    let directory = open_inside(&root, &path, flags).map_err(Failure::doing(&action))?;
    fchdir(&directory).map_err(Failure::doing(&action))?;
    // The kernel returns such a path if the directory can't be reached from the root.
    let inside = rustix::process::getcwd(Vec::new())
        .is_ok_and(|directory| directory.to_bytes().starts_with(b"/"));
    if inside { Ok(()) } else { Err(Failure::new(format!("{action}: it is outside of the root"))) }
}

/// Connects standard input, or all three streams with a terminal, and starts a session.
pub(super) fn connect(
    stdin: &OwnedFd,
    terminal: Option<&Terminal>,
    user: &ResolvedUser,
) -> Result<(), Failure> {
    let doing = |errno| Failure::doing::<rustix::io::Errno>("connect input and output")(errno);
    rustix::process::setsid().map_err(Failure::doing("start a session"))?;
    if let Some(terminal) = terminal {
        rustix::stdio::dup2_stdin(&terminal.peer).map_err(doing)?;
        rustix::stdio::dup2_stdout(&terminal.peer).map_err(doing)?;
        rustix::stdio::dup2_stderr(&terminal.peer).map_err(doing)?;
        rustix::process::ioctl_tiocsctty(&terminal.peer)
            .map_err(Failure::doing("take the terminal"))?;
        return rustix::fs::fchown(&terminal.peer, Some(Uid::from_raw(user.uid)), None)
            .map_err(doing);
    }
    rustix::stdio::dup2_stdin(stdin).map_err(doing)?;
    // The program's user may reopen its pipes through /dev/stdout.
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        if is_pipe(fd) {
            rustix::fs::fchown(fd, Some(Uid::from_raw(user.uid)), None).map_err(doing)?;
        }
    }
    Ok(())
}

/// Makes the kernel kill this process when the helper dies. This is needed only if the helper isn't
/// process 1 of the namespace. A program can undo it; then the helper's keeper kills the program.
pub(super) fn die_with(helper: Option<&OwnedFd>) -> Result<(), Failure> {
    let Some(helper) = helper else { return Ok(()) };
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::doing("bind the program to its helper"))?;
    // The helper may be dead already. Its PID isn't visible in here, but its descriptor reports it.
    let mut watched = [PollFd::new(helper, PollFlags::IN)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::io::retry_on_intr(|| poll(&mut watched, Some(&now)))
        .map_err(Failure::doing("watch the helper"))?;
    if watched[0].revents().is_empty() { Ok(()) } else { Err(Failure::new("the helper died")) }
}

/// Makes the kernel kill this process when its parent dies.
pub(super) fn die_with_parent() -> Result<(), Failure> {
    set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(Failure::doing("bind this process to its parent"))
}

/// Waits until kiln opens the gate, if the run has one.
pub(super) fn wait_at(gate: Option<OwnedFd>) -> Result<(), Failure> {
    let Some(gate) = gate else { return Ok(()) };
    let read = || rustix::io::read(&gate, &mut [0; 1][..]);
    match rustix::io::retry_on_intr(read).map_err(Failure::doing("wait to begin"))? {
        0 => Err(Failure::new("kiln has given up")),
        _ => Ok(()),
    }
}

/// Enters the network namespace. This comes before the mount of `/sys`, which shows the mounter's
/// network.
pub(super) fn enter_network(network: Network, namespace: Option<OwnedFd>) -> Result<(), Failure> {
    match (network, namespace) {
        (Network::Host, _) => return Ok(()),
        (Network::None, _) => raise_loopback()?,
        (Network::Namespace, Some(namespace)) => {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(namespace.as_fd(), kind)
                .map_err(Failure::doing("enter the network namespace"))?;
        }
        (Network::Namespace, None) => {
            return Err(Failure::new("kiln gave no network namespace"));
        }
    }
    open_network_to_users();
    Ok(())
}

/// Lets every user of the network namespace bind any port and send pings, as Docker does. Leaves
/// the settings unchanged if they are read-only, as in a container with a read-only `/proc/sys`.
fn open_network_to_users() {
    let groups = ["0 2147483647", "0 0"];
    let _ = std::fs::write("/proc/sys/net/ipv4/ip_unprivileged_port_start", "0");
    // In a user namespace, the kernel rejects unmapped groups.
    let _ = groups
        .iter()
        .find(|groups| std::fs::write("/proc/sys/net/ipv4/ping_group_range", groups).is_ok());
}

/// Raises the loopback interface. It stays down for a root user with `CAP_SYS_ADMIN` but without
/// `CAP_NET_ADMIN`, who may make a network namespace and not configure it.
fn raise_loopback() -> Result<(), Failure> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(Failure::doing("open socket"))?;
    match sys::raise_loopback(socket) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(()),
        raised => raised.map_err(Failure::doing("raise the loopback interface")),
    }
}
