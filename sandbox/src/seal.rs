//! Kept trees, closed to all processes that could still write to them after a program has ended.
//!
//! A program can pass descriptors of its files to a process outside of its sandbox, through a
//! socket in a cache mount that both share. The descriptors refer to the program's mounts and
//! outlive it. So the child passes these mounts to kiln, which makes them read-only after the
//! program has ended:
//!
//! | tree | made read-only |
//! | --- | --- |
//! | overlay | the file system itself, with all of its mounts |
//! | directory | the mount in the program's mount namespace, which exists as long as kiln holds it |
//!
//! The kernel refuses that while a file is open for writing or has a writable mapping. Afterwards
//! it refuses every change through a descriptor of a file, a directory or a path: opening a file
//! for writing, creating one, changing attributes. The next program has mounts of its own.
//!
//! A runtime mounts directories again for its containers, and kiln can't reach those mounts. Such
//! trees are copied instead of closed: see `Draft`.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sched::{CloneFlags, unshare};
use rustix::io::Errno;
use rustix::mount::{FsPickFlags, fsconfig_reconfigure, fsconfig_set_flag, fspick};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::error::SandboxError;
use super::isolation::Isolation;
use super::mount_handle::{make_read_only, mount_id};
use super::spec::{MountKind, Spec, Tree};
use super::wire::Failure;

/// The pauses between attempts. The kernel closes some files after their process has ended, such as
/// those in sockets' queues.
const PAUSES: [Duration; 8] = [
    Duration::from_millis(1),
    Duration::from_millis(4),
    Duration::from_millis(16),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(200),
    Duration::from_millis(300),
    Duration::from_millis(500),
];

/// The mounts of a program's kept trees. Dropping the value leaves them writable.
#[derive(Debug, Default)]
pub struct Seal {
    /// The trees to close: `true` for a directory, `false` for an overlay.
    directories: Vec<bool>,
    mounts: Vec<OwnedFd>,
    /// The program's mount namespace, if one of the trees is a directory.
    namespace: Option<OwnedFd>,
}

impl Seal {
    /// Returns the seal of a program before it starts.
    ///
    /// Without namespaces, no mount can be closed. There, the supervisor lets no program reach a
    /// process outside of its step.
    pub(super) fn of(spec: &Spec, isolation: Isolation) -> Self {
        if !isolation.has_namespaces() {
            return Self::default();
        }
        let directories = kept(spec).map(|(_, tree)| tree.directory().is_some()).collect();
        Self { directories, ..Self::default() }
    }

    /// Stores the descriptors from [`handles`].
    pub(super) fn receive(&mut self, fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        if self.directories.contains(&true) {
            self.namespace = fds.next();
        }
        self.mounts = fds.collect();
    }

    /// Makes the trees read-only for all processes that hold descriptors of them. Blocks the
    /// thread.
    ///
    /// # Errors
    /// Fails with [`SandboxError::Busy`] if a file is open for writing.
    pub fn close(self) -> Result<(), SandboxError> {
        if self.mounts.len() != self.directories.len() {
            let message = "the sandbox has not handed its mounts over";
            return Err(SandboxError::Setup(message.to_owned()));
        }
        for (mount, is_directory) in self.mounts.iter().zip(&self.directories) {
            let closed = patiently(|| match &self.namespace {
                Some(namespace) if *is_directory => {
                    within(namespace, || make_read_only(mount.as_fd()))
                }
                _ => make_overlay_read_only(mount.as_fd()),
            });
            match closed {
                Err(Errno::BUSY) => return Err(SandboxError::Busy { file: writer(mount) }),
                other => other.map_err(|errno| {
                    SandboxError::host("make a step's files read-only")(errno.into())
                })?,
            }
        }
        Ok(())
    }
}

/// Returns the kept trees that can be closed, each with its index among the mounts. The index is
/// `None` for the root file system.
fn kept(spec: &Spec) -> impl Iterator<Item = (Option<usize>, &Tree)> {
    let root = std::iter::once((None, Path::new("/"), &spec.rootfs));
    let mounts = spec.mounts.iter().enumerate().filter_map(|(place, mount)| match &mount.kind {
        MountKind::Bind { tree, .. } => Some((Some(place), mount.target.as_path(), tree)),
        _ => None,
    });
    let is_kept = |(_, target, tree): &(Option<usize>, &Path, &Tree)| {
        let is_closed_here = spec.runtime.is_none() || tree.directory().is_none();
        is_closed_here && spec.kept.iter().any(|kept| kept == target)
    };
    root.chain(mounts).filter(is_kept).map(|(place, _, tree)| (place, tree))
}

/// Returns the descriptors of the child's mounts that kiln needs, after that of their namespace if
/// one of them is a directory.
pub(super) fn handles(
    spec: &Spec,
    root: BorrowedFd<'_>,
    mounts: &[BorrowedFd<'_>],
) -> Result<Vec<OwnedFd>, Failure> {
    let mut fds = Vec::new();
    if kept(spec).any(|(_, tree)| tree.directory().is_some()) {
        let namespace = std::fs::File::open("/proc/self/ns/mnt");
        fds.push(namespace.map_err(Failure::doing("open the mount namespace"))?.into());
    }
    for (place, _) in kept(spec) {
        let mount = place.map_or(root, |place| mounts[place]);
        fds.push(mount.try_clone_to_owned().map_err(Failure::doing("hand a mount over"))?);
    }
    Ok(fds)
}

/// Makes the overlay file system of `mount` read-only.
fn make_overlay_read_only(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let flags = FsPickFlags::FSPICK_CLOEXEC | FsPickFlags::FSPICK_EMPTY_PATH;
    let context = fspick(mount, "", flags)?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_reconfigure(&context)
}

/// Retries for about a second while the file system is busy.
fn patiently(mut attempt: impl FnMut() -> rustix::io::Result<()>) -> rustix::io::Result<()> {
    for pause in PAUSES {
        match attempt() {
            Err(Errno::BUSY) => std::thread::sleep(pause),
            other => return other,
        }
    }
    attempt()
}

/// Runs `work` in a mount namespace, on a thread of its own.
fn within(
    namespace: &OwnedFd,
    work: impl FnOnce() -> rustix::io::Result<()> + Send,
) -> rustix::io::Result<()> {
    let enter = || {
        // The kernel doesn't let threads that share root and working directory change their
        // namespace.
        unshare(CloneFlags::CLONE_FS).map_err(|errno| Errno::from_raw_os_error(errno as i32))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))?;
        work()
    };
    std::thread::scope(|scope| scope.spawn(enter).join().unwrap_or(Err(Errno::INVAL)))
}

/// Returns the path of a file that a process has open for writing through this mount, if one is
/// found.
fn writer(mount: &OwnedFd) -> Option<PathBuf> {
    let line = format!("mnt_id:\t{}", mount_id(mount.as_fd()).ok()?);
    let processes = std::fs::read_dir("/proc").ok()?.flatten().map(|entry| entry.path());
    let tables =
        processes.filter_map(|path| Some((std::fs::read_dir(path.join("fdinfo")).ok()?, path)));
    for (table, process) in tables {
        for entry in table.flatten() {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            if text.lines().any(|found| found == line) && is_written(&text) {
                return std::fs::read_link(process.join("fd").join(entry.file_name())).ok();
            }
        }
    }
    None
}

/// Returns `true` if a descriptor is writable by its text in `/proc/PID/fdinfo`.
fn is_written(text: &str) -> bool {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| i32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & libc::O_ACCMODE != libc::O_RDONLY)
}
