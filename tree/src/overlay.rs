//! Overlay mounts that are attached nowhere.
//!
//! A mounted overlay lives as long as its descriptor. No other process can name it, and when the
//! process dies, the kernel unmounts it.
//!
//! # Mounting
//!
//! | kernel | method |
//! | --- | --- |
//! | supports `lowerdir+` (Linux 6.8) | a file system context; directories are added one by one |
//! | does not | the old mount call, in a private mount namespace of the calling thread |
//!
//! The old call accepts all options in one page of text. So the directories are named by descriptor
//! number, relative to `/proc/self/fd`. Hundreds of layers then fit, with names of any length and
//! any characters. The call attaches the mount; it is cloned to a detached mount and disappears
//! with the namespace.
//!
//! A process finds out once, by trying, whether the kernel supports `lowerdir+`. File systems that
//! don't parse options one by one accept any option in a context, and report errors only when the
//! file system is created.
//!
//! # Options
//!
//! Redirected directories, metadata-only copies and indexes are turned off, because some
//! distributions turn them on. With these features, an upper directory is only valid together with
//! the lower directories on which it was created.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use nix::sched::{CloneFlags, unshare};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, OpenTreeFlags,
    UnmountFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount,
    mount_change, open_tree, unmount,
};
use serde::{Deserialize, Serialize};

use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::ids::Ids;

/// The maximal length in bytes of a value for `fsconfig`.
const MAX_VALUE: usize = 255;

/// The options that are turned off in every overlay.
const PLAIN: [(&str, &str); 3] =
    [("redirect_dir", "nofollow"), ("index", "off"), ("metacopy", "off")];

/// The directories of an overlay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlay {
    /// The read-only directories, uppermost first. They are trusted paths of the host. Without an
    /// upper directory, the kernel requires at least two of them.
    pub lowers: Vec<PathBuf>,
    /// The directory for changes; `None` for a read-only overlay.
    pub upper: Option<Upper>,
}

/// The directories for changes to an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upper {
    /// The directory that receives the changes.
    pub fs: PathBuf,
    /// An empty directory on the same file system, used by the kernel.
    pub work: PathBuf,
}

impl Overlay {
    /// The maximal number of lower directories in the kernel.
    pub const MAX_LOWERS: usize = 500;

    /// Mounts the overlay for use by this process, writable if it has an upper directory. Files in
    /// it can't be executed, and devices can't be opened.
    ///
    /// # Errors
    /// Fails with the kernel's messages if there are any.
    pub fn open(&self) -> Result<Dir> {
        let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOSUID
            | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        if self.upper.is_none() {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
        }
        self.mount(attributes).map(|fd| Dir::from_fd(fd).without_devices())
    }

    /// Mounts the overlay and returns its root.
    ///
    /// # Errors
    /// Fails with the kernel's messages if there are any.
    pub fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        // The old call holds all directories open, so only one call runs at a time.
        static CALLING: Mutex<()> = Mutex::new(());

        self.check()?;
        if takes_directories_one_by_one() {
            return self.mount_by_context(attributes);
        }
        let _alone = CALLING.lock().unwrap_or_else(PoisonError::into_inner);
        std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                have_own_namespace().map_err(failed("make a mount namespace"))?;
                let at = self.lowers.first().map_or(Path::new("/"), PathBuf::as_path);
                self.mount_by_old_call(attributes, at)
            });
            mounted.join().unwrap_or_else(|_| Err(failed("mount overlay")(Errno::INVAL)))
        })
    }

    /// Mounts the overlay and returns its root. The process must have a mount namespace of its own
    /// and a single thread. If the mount must be attached for a moment, it is attached at `anchor`.
    /// The working directory is `/` afterwards.
    ///
    /// # Errors
    /// Fails with the kernel's messages if there are any.
    pub fn mount_apart(&self, attributes: MountAttrFlags, anchor: &Path) -> Result<OwnedFd> {
        self.check()?;
        if takes_directories_one_by_one() {
            return self.mount_by_context(attributes);
        }
        let mounted = self.mount_by_old_call(attributes, anchor);
        std::env::set_current_dir("/").map_err(failed("enter /"))?;
        let mounted = mounted?;
        unmount(anchor, UnmountFlags::DETACH).map_err(failed("detach overlay"))?;
        Ok(mounted)
    }

    fn check(&self) -> Result<()> {
        let count = self.lowers.len();
        if count <= Self::MAX_LOWERS {
            return Ok(());
        }
        let most = Self::MAX_LOWERS;
        Err(failed(format!("mount overlay of {count} layers, of which the kernel stacks {most}"))(
            Errno::TOOBIG,
        ))
    }

    fn mount_by_context(&self, attributes: MountAttrFlags) -> Result<OwnedFd> {
        let context = Context::open()?;
        let mut held = Vec::new();
        for lower in &self.lowers {
            held.extend(context.set_path("lowerdir+", lower)?);
        }
        for (key, value) in PLAIN {
            let set = fsconfig_set_string(&context.0, key, value);
            set.map_err(|errno| context.explain(&format!("set {key} of overlay"), errno))?;
        }
        if let Some(upper) = &self.upper {
            held.extend(context.set_path("upperdir", &upper.fs)?);
            held.extend(context.set_path("workdir", &upper.work)?);
            // The store flushes the upper directory later, so overlayfs need not do it.
            fsconfig_set_flag(&context.0, "volatile")
                .map_err(|errno| context.explain("set volatile of overlay", errno))?;
        }
        if Ids::current().is_namespace() {
            fsconfig_set_flag(&context.0, "userxattr")
                .map_err(|errno| context.explain("set userxattr of overlay", errno))?;
        }
        fsconfig_create(&context.0).map_err(|errno| context.explain("mount overlay", errno))?;
        fsmount(&context.0, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map_err(|errno| context.explain("mount overlay", errno))
    }

    /// Mounts the overlay at `at`, and returns a clone of the mount. Changes the working directory.
    fn mount_by_old_call(&self, attributes: MountAttrFlags, at: &Path) -> Result<OwnedFd> {
        let mut held = Vec::new();
        let mut name = |path: &Path| {
            let fd = open_path(path).map_err(failed(format!("open {}", path.display())))?;
            let name = fd.as_raw_fd().to_string();
            held.push(fd);
            Ok::<_, Error>(name)
        };
        let lowers = self.lowers.iter().map(|lower| name(lower)).collect::<Result<Vec<_>>>()?;
        let mut options = format!("lowerdir={}", lowers.join(":"));
        for (key, value) in PLAIN {
            options = format!("{options},{key}={value}");
        }
        if let Some(upper) = &self.upper {
            let (fs, work) = (name(&upper.fs)?, name(&upper.work)?);
            options = format!("{options},upperdir={fs},workdir={work}");
        }
        if Ids::current().is_namespace() {
            options.push_str(",userxattr");
        }
        std::env::set_current_dir("/proc/self/fd").map_err(failed("enter /proc/self/fd"))?;
        self.call(&options, old_flags(attributes), at).map_err(failed("mount overlay"))?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        open_tree(CWD, at, flags).map_err(failed("open overlay"))
    }

    fn call(&self, options: &str, flags: MountFlags, at: &Path) -> io::Result<()> {
        let call = |options: &str| {
            let options = CString::new(options).map_err(|_| Errno::INVAL)?;
            mount("overlay", at, "overlay", flags, options.as_c_str())
        };
        if self.upper.is_none() {
            return Ok(call(options)?);
        }
        // Kernels before 5.10 reject `volatile`.
        match call(&format!("{options},volatile")) {
            Err(Errno::INVAL) => Ok(call(options)?),
            other => Ok(other?),
        }
    }
}

/// A file system context of overlayfs.
struct Context(OwnedFd);

impl Context {
    fn open() -> Result<Self> {
        let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC);
        context.map(Self).map_err(failed("open file system overlay"))
    }

    /// Sets an option to a path. If the path is too long for an option, a descriptor names it. The
    /// caller must keep the returned descriptor open until the file system is created.
    fn set_path(&self, key: &'static str, path: &Path) -> Result<Option<OwnedFd>> {
        let action = || format!("set {key} of overlay to {}", path.display());
        let (set, held) = if path.as_os_str().as_bytes().len() > MAX_VALUE {
            let fd = open_path(path).map_err(failed(action()))?;
            let name = format!("/proc/self/fd/{}", fd.as_raw_fd());
            (fsconfig_set_string(&self.0, key, name), Some(fd))
        } else {
            (fsconfig_set_string(&self.0, key, path), None)
        };
        set.map(|()| held).map_err(|errno| self.explain(&action(), errno))
    }

    /// Returns an error with the kernel's messages, which can be read from the context.
    fn explain(&self, action: &str, errno: Errno) -> Error {
        let mut words = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = rustix::io::read(self.0.as_fd(), &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..count]);
            // A line begins with its kind: e, w or i.
            if let Some(text) = line.strip_prefix("e ") {
                words.push(text.trim_end().to_owned());
            }
        }
        let action = match words.as_slice() {
            [] => action.to_owned(),
            words => format!("{action} ({})", words.join("; ")),
        };
        failed(action)(errno)
    }
}

/// Returns `true` if the kernel supports `lowerdir+`, or has no overlayfs at all. In the latter
/// case, mounting reports the error.
#[must_use]
pub fn takes_directories_one_by_one() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| match fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC) {
        Err(Errno::NOSYS) => false,
        Err(_) => true,
        Ok(context) => {
            // A context that accepts this option accepts any, so it doesn't know `lowerdir+`.
            let takes_everything = fsconfig_set_flag(&context, "kiln").is_ok();
            !takes_everything
                && fsconfig_set_string(&context, "lowerdir+", "/") != Err(Errno::INVAL)
        }
    })
}

/// Moves the calling thread to a private mount namespace.
fn have_own_namespace() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    Ok(mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

fn old_flags(attributes: MountAttrFlags) -> MountFlags {
    let pairs = [
        (MountAttrFlags::MOUNT_ATTR_RDONLY, MountFlags::RDONLY),
        (MountAttrFlags::MOUNT_ATTR_NOSUID, MountFlags::NOSUID),
        (MountAttrFlags::MOUNT_ATTR_NODEV, MountFlags::NODEV),
        (MountAttrFlags::MOUNT_ATTR_NOEXEC, MountFlags::NOEXEC),
    ];
    let set = pairs.into_iter().filter(|(attribute, _)| attributes.contains(*attribute));
    set.fold(MountFlags::empty(), |flags, (_, flag)| flags | flag)
}

fn open_path(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

fn failed<E: Into<io::Error>>(action: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |error| Error::Mount { action: action.into(), source: error.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Room(tempfile::TempDir);

    impl Room {
        /// Returns `None` if the process can't mount.
        fn new() -> Option<Self> {
            if !rustix::process::geteuid().is_root() {
                return None;
            }
            let room = Self(tempfile::tempdir().unwrap());
            for name in ["a:,b\\", "c", "fs", "work", "anchor"] {
                std::fs::create_dir(room.path(name)).unwrap();
            }
            std::fs::write(room.path("a:,b\\/file"), "upper layer").unwrap();
            std::fs::write(room.path("c/file"), "lower layer").unwrap();
            std::fs::write(room.path("c/other"), "").unwrap();
            Some(room)
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn overlay(&self) -> Overlay {
            let upper = Some(Upper { fs: self.path("fs"), work: self.path("work") });
            Overlay { lowers: vec![self.path("a:,b\\"), self.path("c")], upper }
        }

        fn check(&self, root: OwnedFd) {
            let root = Dir::from_fd(root);
            let read = |name: &str| {
                std::io::read_to_string(root.open_file(Path::new(name)).unwrap()).unwrap()
            };
            assert_eq!((read("file").as_str(), read("other").as_str()), ("upper layer", ""));
            root.remove_all(Path::new("other")).unwrap();
            assert!(self.path("fs/other").symlink_metadata().is_ok(), "no whiteout");
        }
    }

    fn by_old_call(overlay: &Overlay, attributes: MountAttrFlags) -> Result<OwnedFd> {
        std::thread::scope(|scope| {
            let mounted = scope.spawn(|| {
                have_own_namespace().unwrap();
                overlay.mount_by_old_call(attributes, &overlay.lowers[0])
            });
            mounted.join().unwrap()
        })
    }

    #[test]
    fn overlays_are_seen_through_their_descriptor_alone() {
        let Some(room) = Room::new() else { return };
        let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
        let before = mounts();
        let root = room.overlay().mount(MountAttrFlags::empty()).unwrap();
        assert_eq!(mounts(), before);
        room.check(root);
    }

    #[test]
    fn the_old_call_makes_the_same_overlay() {
        let Some(room) = Room::new() else { return };
        let mounts = || std::fs::read_to_string("/proc/self/mounts").unwrap();
        let (before, directory) = (mounts(), std::env::current_dir().unwrap());
        let root = by_old_call(&room.overlay(), MountAttrFlags::empty()).unwrap();
        assert_eq!((mounts(), std::env::current_dir().unwrap()), (before, directory));
        room.check(root);
    }

    #[test]
    fn attributes_hold_with_either_call() {
        let Some(room) = Room::new() else { return };
        let overlay = Overlay { upper: None, ..room.overlay() };
        let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        for root in [overlay.mount(attributes), by_old_call(&overlay, attributes)] {
            let root = root.unwrap();
            let flags = rustix::fs::fstatvfs(&root).unwrap().f_flag;
            let wanted =
                rustix::fs::StatVfsMountFlags::RDONLY | rustix::fs::StatVfsMountFlags::NOEXEC;
            assert!(flags.contains(wanted), "{flags:?}");
            let written = rustix::fs::mkdirat(&root, "made", Mode::RWXU);
            assert_eq!(written, Err(Errno::ROFS));
        }
    }

    #[test]
    fn hundreds_of_layers_with_long_names_are_stacked_with_either_call() {
        let Some(room) = Room::new() else { return };
        let lowers: Vec<_> = (0..200).map(|n| room.path(&format!("{n:0250}"))).collect();
        for lower in &lowers {
            std::fs::create_dir(lower).unwrap();
        }
        std::fs::write(lowers[199].join("deep"), "").unwrap();
        let overlay = Overlay { lowers, upper: None };
        let nothing = MountAttrFlags::empty();
        for root in [overlay.mount(nothing), by_old_call(&overlay, nothing)] {
            let root = Dir::from_fd(root.unwrap());
            assert!(root.open_file(Path::new("deep")).is_ok());
        }
    }

    #[test]
    fn a_failure_names_what_is_missing() {
        let Some(room) = Room::new() else { return };
        let mut overlay = room.overlay();
        overlay.lowers[0] = room.path("missing");
        for mounted in [
            overlay.mount(MountAttrFlags::empty()),
            overlay.mount_by_old_call(MountAttrFlags::empty(), Path::new("/nowhere")),
        ] {
            let error = mounted.unwrap_err().to_string();
            assert!(error.contains("missing"), "{error}");
        }
    }
}
