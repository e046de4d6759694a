//! Overlay mounts.
//!
//! Lower directories are added one by one with `lowerdir+`, so that no limit on the length of
//! options counts. Kernels that don't know it get the old mount call with all of them in one page
//! of options; there the directories are named by descriptor number, relative to `/proc/self/fd`,
//! so that hundreds of layers with names of any length and with any characters fit.
//!
//! What overlayfs can do beyond plain copies (redirected directories, metadata-only copies,
//! indexes) is turned off: an upper directory has to mean the same without the lower ones.

use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount, open_tree,
    unmount,
};

use super::spec::Upper;
use super::wire::{Failure, describe};

/// The longest value that `fsconfig` takes.
const MAX_VALUE: usize = 255;

/// Mounts an overlay and returns its root, attached nowhere.
pub(super) fn mount_overlay(
    lowers: &[impl AsRef<Path>],
    upper: Option<&Upper>,
    anchor: &Path,
) -> Result<OwnedFd, Failure> {
    // A mount without an upper directory and with one lower directory is refused by the kernel.
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .map_err(Failure::doing("open file system overlay"))?;
    let mut held = Vec::new();
    for lower in lowers {
        match set_path(&context, "lowerdir+", lower.as_ref(), &mut held) {
            Ok(()) => {}
            Err((Errno::INVAL, _)) if held.is_empty() => {
                return legacy(lowers, upper, anchor);
            }
            Err((_, failure)) => return Err(failure),
        }
    }
    if let Some(upper) = upper {
        set_path(&context, "upperdir", &upper.fs, &mut held).map_err(|(_, failure)| failure)?;
        set_path(&context, "workdir", &upper.work, &mut held).map_err(|(_, failure)| failure)?;
        // Without it the kernel writes the whole file system of the upper directory out when the
        // mount goes. Kernels before 5.10 don't know it.
        let _ = fsconfig_set_flag(&context, "volatile");
    }
    for (key, value) in [("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off")] {
        fsconfig_set_string(&context, key, value)
            .map_err(|errno| explain(&context, &format!("set {key} of overlay"), errno))?;
    }
    fsconfig_create(&context).map_err(|errno| explain(&context, "mount overlay", errno))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::MOUNT_ATTR_NODEV)
        .map_err(|errno| explain(&context, "mount overlay", errno))
}

fn set_path(
    context: &OwnedFd,
    key: &'static str,
    path: &Path,
    held: &mut Vec<OwnedFd>,
) -> Result<(), (Errno, Failure)> {
    let action = || format!("set {key} of overlay to {path:?}");
    let set = if path.as_os_str().len() > MAX_VALUE {
        open_path(path).and_then(|fd| {
            let set =
                fsconfig_set_string(context, key, format!("/proc/self/fd/{}", fd.as_raw_fd()));
            held.push(fd);
            set
        })
    } else {
        fsconfig_set_string(context, key, path)
    };
    set.map_err(|errno| (errno, explain(context, &action(), errno)))
}

fn open_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Adds what the kernel itself says of an error.
fn explain(context: &OwnedFd, action: &str, errno: Errno) -> Failure {
    let mut message = format!("{action}: {}", describe(&errno.into()));
    let Ok(context) = context.as_fd().try_clone_to_owned() else { return Failure::new(message) };
    let mut context = std::fs::File::from(context);
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = context.read(&mut buffer) {
        let line = String::from_utf8_lossy(&buffer[..length]);
        // Lines begin with their kind: e, w or i.
        if let Some(text) = line.strip_prefix("e ") {
            message = format!("{message} ({})", text.trim_end());
        }
    }
    Failure::new(message)
}

/// Mounts an overlay with the old call, on kernels before 6.8.
pub(super) fn legacy(
    lowers: &[impl AsRef<Path>],
    upper: Option<&Upper>,
    anchor: &Path,
) -> Result<OwnedFd, Failure> {
    let mut held = Vec::new();
    let mut name = |path: &Path| {
        let fd = open_path(path).map_err(Failure::doing(&format!("open {path:?}")))?;
        held.push(fd);
        Ok::<_, Failure>(held.last().map_or(-1, AsRawFd::as_raw_fd).to_string())
    };
    let lowers =
        lowers.iter().map(|lower| name(lower.as_ref())).collect::<Result<Vec<_>, _>>()?.join(":");
    let mut options = format!("lowerdir={lowers},redirect_dir=nofollow,index=off,metacopy=off");
    if let Some(upper) = upper {
        let (fs, work) = (name(&upper.fs)?, name(&upper.work)?);
        options.push_str(&format!(",upperdir={fs},workdir={work},volatile"));
    }
    let options = std::ffi::CString::new(options)
        .map_err(|_| Failure::new("options of overlay contain a zero byte"))?;
    std::env::set_current_dir("/proc/self/fd").map_err(Failure::doing("enter /proc/self/fd"))?;
    let mounted = mount("overlay", anchor, "overlay", MountFlags::NODEV, options.as_c_str());
    std::env::set_current_dir("/").map_err(Failure::doing("enter /"))?;
    mounted.map_err(Failure::doing("mount overlay"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(CWD, anchor, flags).map_err(Failure::doing("open overlay"))?;
    unmount(anchor, UnmountFlags::DETACH).map_err(Failure::doing("detach overlay"))?;
    Ok(root)
}
