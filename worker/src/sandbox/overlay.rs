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

use kiln_tree::Ids;
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

/// Mounts an overlay and returns its root, attached nowhere. Whoever shows it to a program sees to
/// it that devices can't be opened there.
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
    if Ids::current().is_namespace() {
        fsconfig_set_flag(&context, "userxattr")
            .map_err(|errno| explain(&context, "set userxattr of overlay", errno))?;
    }
    for (key, value) in [("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off")] {
        fsconfig_set_string(&context, key, value)
            .map_err(|errno| explain(&context, &format!("set {key} of overlay"), errno))?;
    }
    fsconfig_create(&context).map_err(|errno| explain(&context, "mount overlay", errno))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        .map_err(|errno| explain(&context, "mount overlay", errno))
}

/// Mounts an overlay of two directories that has nowhere to write to, and returns its root,
/// attached nowhere. Needs a kernel with `lowerdir+`.
pub(super) fn mount_unwritable(lowers: [&Path; 2]) -> rustix::io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for lower in lowers {
        set_path(&context, "lowerdir+", lower, &mut Vec::new()).map_err(|(errno, _)| errno)?;
    }
    if Ids::current().is_namespace() {
        fsconfig_set_flag(&context, "userxattr")?;
    }
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
}

fn set_path(
    context: &OwnedFd,
    key: &'static str,
    path: &Path,
    held: &mut Vec<OwnedFd>,
) -> Result<(), (Errno, Failure)> {
    let action = || format!("set {key} of overlay to {}", path.display());
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
        let fd = open_path(path).map_err(Failure::doing(&format!("open {}", path.display())))?;
        held.push(fd);
        Ok::<_, Failure>(held.last().map_or(-1, AsRawFd::as_raw_fd).to_string())
    };
    let lowers =
        lowers.iter().map(|lower| name(lower.as_ref())).collect::<Result<Vec<_>, _>>()?.join(":");
    let mut options = format!("lowerdir={lowers},redirect_dir=nofollow,index=off,metacopy=off");
    if let Some(upper) = upper {
        let (fs, work) = (name(&upper.fs)?, name(&upper.work)?);
        options = format!("{options},upperdir={fs},workdir={work},volatile");
    }
    if Ids::current().is_namespace() {
        options.push_str(",userxattr");
    }
    let options = std::ffi::CString::new(options)
        .map_err(|_| Failure::new("options of overlay contain a zero byte"))?;
    std::env::set_current_dir("/proc/self/fd").map_err(Failure::doing("enter /proc/self/fd"))?;
    let mounted = mount("overlay", anchor, "overlay", MountFlags::empty(), options.as_c_str());
    std::env::set_current_dir("/").map_err(Failure::doing("enter /"))?;
    mounted.map_err(Failure::doing("mount overlay"))?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root = open_tree(CWD, anchor, flags).map_err(Failure::doing("open overlay"))?;
    unmount(anchor, UnmountFlags::DETACH).map_err(Failure::doing("detach overlay"))?;
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs in a thread with mounts of its own.
    fn apart(test: impl FnOnce(&Path) + Send + 'static) {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let thread = std::thread::spawn(|| {
            use nix::sched::{CloneFlags, unshare};
            use rustix::mount::{MountPropagationFlags, mount_change};
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
            mount_change("/", private).unwrap();
            let dir = tempfile::tempdir().unwrap();
            for name in ["a:,b", "c", "fs", "work", "anchor"] {
                std::fs::create_dir(dir.path().join(name)).unwrap();
            }
            std::fs::write(dir.path().join("a:,b/file"), "upper layer").unwrap();
            std::fs::write(dir.path().join("c/file"), "lower layer").unwrap();
            std::fs::write(dir.path().join("c/other"), "").unwrap();
            test(dir.path());
        });
        thread.join().unwrap();
    }

    fn check(dir: &Path, root: &OwnedFd) {
        let read = |name: &str| {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(root, name, flags, Mode::empty())?;
            Ok::<_, Errno>(std::io::read_to_string(std::fs::File::from(file)).unwrap())
        };
        assert_eq!(read("file").unwrap(), "upper layer");
        assert_eq!(read("other").unwrap(), "");
        rustix::fs::mkdirat(root, "made", Mode::RWXU).unwrap();
        assert!(dir.join("fs/made").is_dir());
    }

    fn parts(dir: &Path) -> ([std::path::PathBuf; 2], Upper) {
        let upper = Upper { fs: dir.join("fs"), work: dir.join("work") };
        ([dir.join("a:,b"), dir.join("c")], upper)
    }

    #[test]
    fn layers_are_stacked() {
        apart(|dir| {
            let (lowers, upper) = parts(dir);
            check(dir, &mount_overlay(&lowers, Some(&upper), &dir.join("anchor")).unwrap());
        });
    }

    #[test]
    fn layers_are_stacked_with_the_old_call() {
        apart(|dir| {
            let (lowers, upper) = parts(dir);
            check(dir, &legacy(&lowers, Some(&upper), &dir.join("anchor")).unwrap());
        });
    }

    #[test]
    fn a_failure_names_what_is_missing() {
        apart(|dir| {
            let (_, upper) = parts(dir);
            let missing = [dir.join("missing"), dir.join("c")];
            let failure = mount_overlay(&missing, Some(&upper), dir).unwrap_err();
            assert!(failure.message.contains("missing"), "{}", failure.message);
        });
    }
}
