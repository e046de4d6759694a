//! Trials of the rungs.
//!
//! A child process does what the rung does first, and reports the step that failed. Neither the
//! kernel's version nor its settings tell whether a rung works: seccomp profiles, security modules
//! and missing capabilities forbid single calls. A process that nothing confines tries less, and
//! without a child: a mount namespace takes the kernel a millisecond.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fmt;
use std::fs;
use std::io::{self, Read as _, Write as _};

use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{Pid, chroot};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, fsconfig_create,
    fsmount, fsopen, mount, mount_change,
};
use rustix::process::{Gid, Uid, getegid, geteuid};
use rustix::system::sethostname;
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};

use super::Isolation;
use crate::capabilities::Capabilities;
use crate::seccomp::{self, When};
use crate::sys::{self, Fork};

/// The capabilities that the chroot rung needs.
const CHROOT: [&str; 6] = ["SYS_CHROOT", "CHOWN", "FOWNER", "DAC_OVERRIDE", "SETUID", "SETGID"];

/// The user that nobody is.
const NOBODY: u32 = 65_534;

/// The reason why a rung can't be used.
#[derive(Debug)]
pub enum ProbeError {
    /// The process isn't root.
    NotRoot,
    /// The process lacks these capabilities.
    Lacks(Vec<String>),
    /// The kernel refuses a step.
    Refused {
        /// The step, such as `unshare`.
        action: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRoot => f.write_str("needs root"),
            Self::Lacks(names) => write!(f, "needs {}", names.join(", ")),
            Self::Refused { action, error } => {
                let text = error.to_string().to_lowercase();
                let text = text.split(" (os error").next().unwrap_or_default();
                write!(f, "{action}: {text}")?;
                let is_filtered = error.kind() == io::ErrorKind::PermissionDenied && is_filtered();
                if is_filtered { f.write_str(" (seccomp)") } else { Ok(()) }
            }
        }
    }
}

impl std::error::Error for ProbeError {}

/// Returns `true` if a seccomp filter applies to this process.
pub fn is_filtered() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// Returns `true` if a seccomp filter or a security module may forbid system calls to this process.
pub fn is_confined() -> bool {
    let current = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
    let current = current.trim_end_matches(['\0', '\n']);
    let restricts = fs::read_to_string(RESTRICTS).unwrap_or_default();
    is_filtered() || !(current.is_empty() || current == "unconfined") || restricts.trim() == "1"
}

/// AppArmor's restriction of user namespaces.
const RESTRICTS: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";

/// A step that failed.
type Failed = (Step, io::Error);

/// The steps of all trials.
#[derive(Clone, Copy)]
enum Step {
    Unshare,
    Map,
    HostName,
    Mount,
    Chroot,
    SwitchUser,
    Notify,
    Ptrace,
}

impl Step {
    const ALL: [Self; 8] = [
        Self::Unshare,
        Self::Map,
        Self::HostName,
        Self::Mount,
        Self::Chroot,
        Self::SwitchUser,
        Self::Notify,
        Self::Ptrace,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Unshare => "unshare",
            Self::Map => "map ids",
            Self::HostName => "set the host name",
            Self::Mount => "mount",
            Self::Chroot => "chroot",
            Self::SwitchUser => "setuid",
            Self::Notify => "seccomp notifications",
            Self::Ptrace => "access to the memory of children",
        }
    }
}

/// Tries a rung. The process must have a single thread.
///
/// # Errors
/// Fails if the rung can't be used.
pub fn probe(isolation: Isolation) -> Result<(), ProbeError> {
    match isolation {
        Isolation::Root => {
            need(&["SYS_ADMIN"])?;
            if is_confined() { attempt(try_mounts) } else { quickly(try_detached_mount()) }
        }
        Isolation::UserNamespace => attempt(try_user_namespace),
        Isolation::Chroot => {
            need(&CHROOT)?;
            attempt(try_chroot)
        }
        Isolation::None => attempt(try_supervision),
    }
}

/// Fails unless this process is root and has capabilities.
fn need(names: &[&str]) -> Result<(), ProbeError> {
    if !geteuid().is_root() {
        return Err(ProbeError::NotRoot);
    }
    let own = Capabilities::effective().map_err(refused("read capabilities"))?;
    let is_missing =
        |name: &&&str| Capabilities::named(name).is_none_or(|capability| !own.contain(capability));
    let missing: Vec<String> =
        names.iter().filter(is_missing).map(|name| format!("CAP_{name}")).collect();
    if missing.is_empty() { Ok(()) } else { Err(ProbeError::Lacks(missing)) }
}

fn refused(action: &'static str) -> impl FnOnce(io::Error) -> ProbeError {
    move |error| ProbeError::Refused { action, error }
}

/// Runs a trial in a child process.
fn attempt(trial: fn() -> Result<(), Failed>) -> Result<(), ProbeError> {
    let (mut reader, writer) = io::pipe().map_err(refused("create a pipe"))?;
    match sys::fork().map_err(refused("start a process"))? {
        Fork::Child => report(trial, writer),
        Fork::Parent(child) => {
            drop(writer);
            let mut answer = Vec::new();
            let read = reader.read_to_end(&mut answer);
            let _ = waitpid(Pid::from_raw(child), None);
            read.map_err(refused("wait for a process"))?;
            judge(&answer)
        }
    }
}

/// Writes the result of a trial: nothing, or the step and the error number.
#[expect(
    clippy::exit,
    reason = "the child is a process of its own, and has no caller to return to"
)]
fn report(trial: fn() -> Result<(), Failed>, mut writer: io::PipeWriter) -> ! {
    let mut answer = vec![u8::MAX];
    if let Err((step, error)) = trial() {
        answer = vec![step as u8];
        answer.extend(error.raw_os_error().unwrap_or_default().to_ne_bytes());
    }
    let _ = writer.write_all(&answer);
    std::process::exit(0)
}

/// Interprets the answer of a child.
fn judge(answer: &[u8]) -> Result<(), ProbeError> {
    let Some((step, rest)) = answer.split_first() else {
        // A filter may kill the process.
        let error = io::Error::other("the process was killed");
        return Err(ProbeError::Refused { action: "try", error });
    };
    if *step == u8::MAX {
        return Ok(());
    }
    let action = Step::ALL.get(usize::from(*step)).map_or("try", |step| step.name());
    let number = rest.try_into().map_or(0, i32::from_ne_bytes);
    Err(ProbeError::Refused { action, error: io::Error::from_raw_os_error(number) })
}

fn at<E: Into<io::Error>>(step: Step) -> impl FnOnce(E) -> Failed {
    move |error| (step, error.into())
}

/// Turns the result of a trial in this process into that of a probe.
fn quickly(tried: Result<(), Failed>) -> Result<(), ProbeError> {
    tried.map_err(|(step, error)| ProbeError::Refused { action: step.name(), error })
}

/// Creates a mount without attaching it.
fn try_detached_mount() -> Result<(), Failed> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(at(Step::Mount))?;
    fsconfig_create(&context).map_err(at(Step::Mount))?;
    let attributes = MountAttrFlags::empty();
    let mounted = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes);
    mounted.map(drop).map_err(at(Step::Mount))
}

fn try_mounts() -> Result<(), Failed> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).map_err(at(Step::Unshare))?;
    try_namespaces()
}

/// Changes the mounts and the host name. Some filters allow namespaces, but no other host name.
fn try_namespaces() -> Result<(), Failed> {
    sethostname(b"kiln").map_err(at(Step::HostName))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(at(Step::Mount))?;
    mount("kiln", "/", "tmpfs", MountFlags::empty(), None).map_err(at(Step::Mount))
}

fn try_user_namespace() -> Result<(), Failed> {
    let (uid, gid) = (geteuid().as_raw(), getegid().as_raw());
    let namespaces = CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS;
    unshare(namespaces).map_err(at(Step::Unshare))?;
    let write = |name: &str, text: String| {
        fs::write(format!("/proc/self/{name}"), text).map_err(at(Step::Map))
    };
    write("setgroups", "deny".to_owned())?;
    write("uid_map", format!("0 {uid} 1"))?;
    write("gid_map", format!("0 {gid} 1"))?;
    try_namespaces()
}

fn try_chroot() -> Result<(), Failed> {
    chroot("/").map_err(at(Step::Chroot))?;
    let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
    set_thread_groups(&[gid])
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid))
        .map_err(at(Step::SwitchUser))
}

/// Installs a filter that notifies, and opens the memory of a child.
fn try_supervision() -> Result<(), Failed> {
    set_no_new_privs(true).map_err(at(Step::Notify))?;
    let (mut reader, writer) = io::pipe().map_err(at(Step::Ptrace))?;
    let child = match sys::fork().map_err(at(Step::Ptrace))? {
        Fork::Child => {
            drop(writer);
            // The pipe ends with the parent.
            let _ = reader.read(&mut [0]);
            quit()
        }
        Fork::Parent(child) => child,
    };
    let memory = fs::File::options().read(true).write(true).open(format!("/proc/{child}/mem"));
    let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    let _ = waitpid(Pid::from_raw(child), None);
    memory.map_err(at(Step::Ptrace))?;
    let filter =
        seccomp::notifying(&[(libc::SYS_acct, When::Always)], false).map_err(at(Step::Notify))?;
    seccomp::install_notifying(&filter).map(drop).map_err(at(Step::Notify))
}

#[expect(clippy::exit, reason = "the process has no caller to return to")]
fn quit() -> ! {
    std::process::exit(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_name_the_step_and_the_error() {
        assert!(judge(&[u8::MAX]).is_ok());
        let mut answer = vec![Step::Map as u8];
        answer.extend(libc::EINVAL.to_ne_bytes());
        assert_eq!(judge(&answer).unwrap_err().to_string(), "map ids: invalid argument");
        assert!(judge(&[]).unwrap_err().to_string().contains("killed"));
    }

    #[test]
    fn missing_capabilities_are_named() {
        let lacks = ProbeError::Lacks(vec!["CAP_CHOWN".to_owned(), "CAP_SETUID".to_owned()]);
        assert_eq!(lacks.to_string(), "needs CAP_CHOWN, CAP_SETUID");
        assert_eq!(ProbeError::NotRoot.to_string(), "needs root");
        if geteuid().is_root() {
            assert!(
                matches!(need(&["NO_SUCH"]), Err(ProbeError::Lacks(names)) if names == ["CAP_NO_SUCH"])
            );
        }
    }
}
