//! The change to the new root.
//!
//! `pivot_root` exchanges the roots, and the old one is detached. Docker's seccomp profile refuses
//! that call even to containers that may mount. There, the new root is moved onto `/`, which covers
//! the old root, and the process changes its root to it. No path leads to the old root then: the
//! parent of the new root is the new root, because it is mounted on the top of the old one. What
//! can be detached of the old mounts is detached.

#![expect(clippy::disallowed_methods, reason = "the file is the kernel's")]

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, mount_move, unmount};
use rustix::process::{chdir, chroot, fchdir, pivot_root};

use super::wire::Failure;

/// Makes the directory `root`, the root of an attached mount, the root of this process, and detaches
/// the old root.
pub(super) fn change_root(root: impl AsFd) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old = rustix::fs::open("/", flags, Mode::empty()).map_err(Failure::doing("open /"))?;
    let changed = match pivot(&root, &old) {
        Err(Errno::PERM | Errno::ACCESS | Errno::NOSYS) => cover(&root, &old),
        other => other,
    };
    changed.map_err(Failure::doing("change the root"))
}

fn pivot(root: impl AsFd, old: &OwnedFd) -> Result<(), Errno> {
    fchdir(root)?;
    pivot_root(".", ".")?;
    fchdir(old)?;
    unmount(".", UnmountFlags::DETACH)?;
    chdir("/")
}

/// Moves the new root onto the old one.
fn cover(root: impl AsFd, old: &OwnedFd) -> Result<(), Errno> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    fchdir(root)?;
    mount_move(".", "/")?;
    chroot(".")?;
    fchdir(old)?;
    for path in old_mounts(&mounts) {
        // In a user namespace, the kernel locks these mounts together.
        let _ = unmount(path.as_path(), UnmountFlags::DETACH);
    }
    chdir("/")
}

/// Returns the mount points in the text of `/proc/self/mountinfo` except `/`, relative to the root,
/// deepest first.
fn old_mounts(mounts: &str) -> Vec<PathBuf> {
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let points =
        points.map(|point| point.trim_start_matches('/')).filter(|point| !point.is_empty());
    let mut points: Vec<PathBuf> = points.map(|point| PathBuf::from(unescaped(point))).collect();
    points.reverse();
    points
}

/// Replaces the octal escapes of `/proc/self/mountinfo`.
fn unescaped(text: &str) -> String {
    ["\\040", "\\011", "\\012", "\\134"]
        .iter()
        .zip([" ", "\t", "\n", "\\"])
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_listed_deepest_first() {
        let mounts = "\
20 1 0:5 / / rw - ext4 /dev/sda rw
21 20 0:6 / /sys rw - sysfs sysfs rw
22 21 0:7 / /sys/fs/cgroup rw - tmpfs tmpfs rw
23 20 0:8 / /a\\040b rw - tmpfs tmpfs rw
";
        let expected = ["a b", "sys/fs/cgroup", "sys"].map(PathBuf::from);
        assert_eq!(old_mounts(mounts), expected);
    }
}
