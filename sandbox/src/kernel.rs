//! The kernel features that the sandbox uses, detected by trying them.
//!
//! Required features have no equally safe substitute: the sandbox resolves paths of images beneath
//! a descriptor and attaches mounts to the resolved descriptor. All other features have a fallback,
//! which the documentation of the supported platforms lists.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::mount::{
    FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsopen, move_mount, open_tree,
};
use rustix::process::{PidfdFlags, getpid, pidfd_open};

use super::error::SandboxError;
use crate::sys::{self, MountAttributes};

/// A feature of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFeature {
    /// The name of the feature, such as `mount_setattr`.
    pub name: &'static str,
    /// The first version of Linux with the feature.
    pub since: &'static str,
    /// `true` if the sandbox can't run programs without the feature.
    pub is_required: bool,
    /// `true` if this kernel has the feature.
    pub is_there: bool,
}

/// A function that returns `true` if the kernel knows the call.
type Attempt = fn() -> bool;

/// The features: name, first version, whether it is required, and the attempt.
const FEATURES: [(&str, &str, bool, Attempt); 9] = [
    ("openat2", "5.6", true, has_openat2),
    ("fsopen", "5.2", true, has_fsopen),
    ("open_tree", "5.2", true, has_open_tree),
    ("move_mount", "5.2", true, has_move_mount),
    ("pidfd_open", "5.3", true, has_pidfd),
    ("clone3", "5.3", true, sys::has_clone3),
    ("mount_setattr", "5.12", false, has_mount_setattr),
    ("close_range", "5.11", false, sys::has_close_range),
    ("overlay lowerdir+", "6.8", false, kiln_tree::takes_directories_one_by_one),
];

/// Tries all features that the sandbox uses and returns the results.
pub fn features() -> Vec<KernelFeature> {
    let feature = |(name, since, is_required, attempt): (_, _, _, Attempt)| KernelFeature {
        name,
        since,
        is_required,
        is_there: attempt(),
    };
    FEATURES.map(feature).to_vec()
}

/// Fails unless the kernel has all required features.
pub(super) fn check() -> Result<(), SandboxError> {
    let is_missing = |feature: &&(&str, &str, bool, Attempt)| feature.2 && !feature.3();
    match FEATURES.iter().find(is_missing) {
        None => Ok(()),
        Some((name, since, ..)) => Err(SandboxError::Setup(format!(
            "this kernel can't run programs in a sandbox: it lacks {name} (Linux {since})"
        ))),
    }
}

fn knows<T>(result: &rustix::io::Result<T>) -> bool {
    !matches!(result, Err(rustix::io::Errno::NOSYS))
}

fn has_openat2() -> bool {
    knows(&openat2(CWD, "/", OFlags::PATH, Mode::empty(), ResolveFlags::empty()))
}

fn has_fsopen() -> bool {
    knows(&fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC))
}

fn has_open_tree() -> bool {
    knows(&open_tree(CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC))
}

fn has_move_mount() -> bool {
    // The empty path names nothing, so the call changes nothing.
    knows(&move_mount(CWD, "", CWD, "", MoveMountFlags::empty()))
}

fn has_pidfd() -> bool {
    knows(&pidfd_open(getpid(), PidfdFlags::empty()))
}

fn has_mount_setattr() -> bool {
    let Ok(mount) = new_mount() else { return true };
    let error = sys::set_mount_attributes(mount.as_fd(), MountAttributes::default()).err();
    error.is_none_or(|error| error.raw_os_error() != Some(libc::ENOSYS))
}

/// Creates a mount whose attributes can be set.
fn new_mount() -> io::Result<impl AsFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let flags = rustix::mount::FsMountFlags::FSMOUNT_CLOEXEC;
    Ok(rustix::mount::fsmount(&context, flags, MountAttrFlags::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_is_required() {
        check().unwrap();
        let features = features();
        assert!(features.iter().filter(|feature| feature.is_required).all(|f| f.is_there));
        assert_eq!(features.len(), FEATURES.len());
    }
}
