//! The read-only host's `/sys`, for programs that can't have a mount of their own.
//!
//! In a user namespace, the kernel doesn't clone a mount without the mounts that hide parts of it.
//! So the clone contains all mounts below `/sys`, and empty directories cover them.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::mount_handle::MountHandle;
use super::wire::Failure;
use crate::sys::MountAttributes;

const SYS: &str = "/sys";

/// Returns a detached clone of the host's `/sys`.
pub(super) fn of_host() -> Result<MountHandle, Failure> {
    let sys = MountHandle::of_path(Path::new(SYS), true).map_err(Failure::doing("open /sys"))?;
    sys.restrict(MountAttributes::INERT)?;
    Ok(sys)
}

/// Covers the mounts below the host's `/sys`. In a new `/sys` the same directories are covered
/// without need, which does no harm.
pub(super) fn cover(sys: &MountHandle) -> Result<(), Failure> {
    let mounts = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(Failure::doing("read /proc/self/mountinfo"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    for path in outermost(&mounts, Path::new(SYS)) {
        let action = format!("cover {}", Path::new(SYS).join(&path).display());
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::openat2(sys, &path, open, Mode::empty(), resolve) {
            Ok(place) => {
                let empty = MountHandle::file_system("tmpfs", &[("size", "4k")], attributes)?;
                empty.attach(&place).map_err(Failure::doing(&action))?;
            }
            // Other network namespaces have other directories.
            Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(Failure::doing(&action)(errno)),
        }
    }
    Ok(())
}

/// Returns the outermost mount points below `top` in the text of `/proc/self/mountinfo`, relative
/// to `top`.
fn outermost(mounts: &str, top: &Path) -> Vec<PathBuf> {
    let place = |line: &str| {
        let place = line.split(' ').nth(4)?;
        Some(Path::new(place).strip_prefix(top).ok()?.to_owned())
    };
    let mut places: Vec<PathBuf> = mounts.lines().filter_map(place).collect();
    places.retain(|place| !place.as_os_str().is_empty());
    places.sort();
    places.dedup();
    let all = places.clone();
    places.retain(|place| !all.iter().any(|other| place != other && place.starts_with(other)));
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_mounts_are_covered() {
        let mounts = "\
20 1 0:5 / / rw - ext4 /dev/sda rw
21 20 0:6 / /sys rw - sysfs sysfs rw
22 21 0:7 / /sys/fs/cgroup rw - tmpfs tmpfs rw
23 22 0:8 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw
24 21 0:9 / /sys/kernel/debug rw - debugfs debugfs rw
25 20 0:9 / /system rw - ext4 /dev/sdb rw
";
        let places = outermost(mounts, Path::new("/sys"));
        assert_eq!(places, [Path::new("fs/cgroup"), Path::new("kernel/debug")]);
    }
}
