//! The mounts of a container, before and after they are attached.
//!
//! A mount is created detached, restricted, and attached to a descriptor in the container. With
//! `mount_setattr` (Linux 5.12), it is restricted before it is attached. Otherwise it is restricted
//! immediately afterwards with mount(2), through the mount's own descriptor. That looks up no path
//! of the container, and no program of the container runs before all mounts are in place.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MountPropagationFlags, MoveMountFlags,
    OpenTreeFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change,
    mount_remount, move_mount, open_tree,
};

use super::wire::Failure;
use crate::sys::{MountAttributes, set_mount_attributes};

/// A mount to attach in a container.
#[derive(Debug)]
pub(super) struct MountHandle {
    fd: OwnedFd,
    /// The attributes to set after attaching.
    pending: Cell<Option<MountAttributes>>,
    /// `true` if the mount becomes a slave of its source after attaching.
    is_slave: Cell<bool>,
}

impl AsFd for MountHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for MountHandle {
    fn from(fd: OwnedFd) -> Self {
        Self { fd, pending: Cell::new(None), is_slave: Cell::new(false) }
    }
}

impl MountHandle {
    /// Creates an instance of a file system.
    pub(super) fn file_system(
        kind: &str,
        options: &[(&str, &str)],
        attributes: MountAttrFlags,
    ) -> Result<Self, Failure> {
        let action = format!("mount {kind}");
        let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Failure::doing(&action))?;
        for (key, value) in options {
            fsconfig_set_string(&context, *key, *value)
                .map_err(Failure::doing(&format!("{action} with {key}={value}")))?;
        }
        fsconfig_create(&context).map_err(Failure::doing(&action))?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .map(Self::from)
            .map_err(Failure::doing(&action))
    }

    /// Clones the mount of `fd`, from `fd` downwards. Before Linux 6.15, the kernel clones attached
    /// mounts only.
    pub(super) fn clone_of(fd: impl AsFd) -> rustix::io::Result<Self> {
        Self::open(fd, "", clone_flags(true) | OpenTreeFlags::AT_EMPTY_PATH)
    }

    /// Clones the mount at `path`, with all mounts below it if `recursive`.
    pub(super) fn of_path(path: &Path, recursive: bool) -> rustix::io::Result<Self> {
        Self::open(CWD, path, clone_flags(recursive))
    }

    /// Clones the entry `name` of the directory `fd`, which is on an attached mount.
    pub(super) fn of_entry(fd: impl AsFd, name: &str) -> rustix::io::Result<Self> {
        Self::open(fd, name, clone_flags(false))
    }

    /// Clones the mount of `fd`, with all mounts below it if `recursive`.
    pub(super) fn of_fd(fd: impl AsFd, recursive: bool) -> rustix::io::Result<Self> {
        Self::open(fd, "", clone_flags(recursive) | OpenTreeFlags::AT_EMPTY_PATH)
    }

    fn open(
        fd: impl AsFd,
        path: impl rustix::path::Arg,
        flags: OpenTreeFlags,
    ) -> rustix::io::Result<Self> {
        open_tree(fd, path, flags).map(Self::from)
    }

    /// Sets attributes of a detached mount, or remembers them until it is attached.
    pub(super) fn restrict(&self, attributes: MountAttributes) -> Result<(), Failure> {
        match set_mount_attributes(self, attributes) {
            Err(error) if lacks_call(&error) => {
                self.pending.set(Some(attributes));
                Ok(())
            }
            other => other.map_err(Failure::doing("set attributes of mount")),
        }
    }

    /// Attaches the mount to the file that `target` refers to, without looking up a name.
    pub(super) fn attach(&self, target: impl AsFd) -> rustix::io::Result<()> {
        let flags =
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
        move_mount(self, "", target, "", flags)?;
        self.settle()
    }

    /// Attaches the mount to a trusted path of the host.
    pub(super) fn attach_at(&self, path: &Path) -> Result<(), Failure> {
        move_mount(self, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .and_then(|()| self.settle())
            .map_err(Failure::doing(&format!("mount at {}", path.display())))
    }

    /// Makes the mount and all mounts below it slaves of their source: they receive its new mounts
    /// but don't send any back.
    pub(super) fn enslave(&self) {
        self.is_slave.set(true);
    }

    fn settle(&self) -> rustix::io::Result<()> {
        if self.is_slave.take() {
            let slave = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
            mount_change(format!("/proc/self/fd/{}", self.fd.as_raw_fd()), slave)?;
        }
        self.pending.take().map_or(Ok(()), |attributes| remount(self.as_fd(), attributes))
    }

    /// Returns `true` if the mount's root is a directory.
    pub(super) fn is_directory(&self) -> Result<bool, Failure> {
        is_directory(self)
    }
}

/// Returns `true` if `fd` is a directory.
pub(super) fn is_directory(fd: impl AsFd) -> Result<bool, Failure> {
    let stat =
        rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).map_err(Failure::doing("look at mount"))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// Sets attributes of an attached mount; `mount` is its root.
pub(super) fn restrict_attached(
    mount: impl AsFd,
    attributes: MountAttributes,
) -> Result<(), Failure> {
    match set_mount_attributes(&mount, attributes) {
        Err(error) if lacks_call(&error) => {
            remount(mount.as_fd(), attributes).map_err(Failure::doing("set attributes of mount"))
        }
        other => other.map_err(Failure::doing("set attributes of mount")),
    }
}

/// Opens a directory in a detached clone of its mount and of the mounts below it, in which no
/// device can be opened. Returns the directory and a descriptor that must stay open as long as it
/// is used.
///
/// # Errors
/// Fails if this process can't mount, if the kernel lacks the call, or if there may be an
/// unbindable mount below the directory.
pub fn mount_without_devices(directory: impl AsFd) -> std::io::Result<(OwnedFd, OwnedFd)> {
    if read("/proc/self/mountinfo")?.contains(" unbindable ") {
        return Err(std::io::ErrorKind::Unsupported.into());
    }
    let clone = open_tree(directory, "", clone_flags(true) | OpenTreeFlags::AT_EMPTY_PATH)?;
    let attributes = MountAttributes { nodev: true, recursive: true, ..MountAttributes::default() };
    set_mount_attributes(&clone, attributes)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::openat(&clone, ".", flags, Mode::empty())?, clone))
}

/// Makes an attached mount of the calling thread's mount namespace read-only. The thread must not
/// share its working directory.
pub(super) fn make_read_only(mount: BorrowedFd<'_>) -> rustix::io::Result<()> {
    let attributes = MountAttributes { readonly: true, ..MountAttributes::default() };
    match set_mount_attributes(mount, attributes) {
        Err(error) if lacks_call(&error) => remount_here(mount, attributes),
        other => other.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

/// Sets attributes with mount(2) by way of the working directory. `/proc` may belong to another
/// namespace.
fn remount_here(mount: BorrowedFd<'_>, attributes: MountAttributes) -> rustix::io::Result<()> {
    rustix::process::fchdir(mount)?;
    mount_remount(".", remount_flags(mount, attributes)?, c"")
}

fn lacks_call(error: &std::io::Error) -> bool {
    error.raw_os_error() == Some(libc::ENOSYS)
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Sets attributes with mount(2), which accepts attached mounts only.
fn remount(mount: BorrowedFd<'_>, attributes: MountAttributes) -> rustix::io::Result<()> {
    remount_one(mount, attributes)?;
    if attributes.recursive {
        for below in below(mount)? {
            remount_one(below.as_fd(), attributes)?;
        }
    }
    Ok(())
}

fn remount_one(mount: BorrowedFd<'_>, attributes: MountAttributes) -> rustix::io::Result<()> {
    let flags = remount_flags(mount, attributes)?;
    mount_remount(format!("/proc/self/fd/{}", mount.as_raw_fd()), flags, c"")
}

fn remount_flags(
    mount: BorrowedFd<'_>,
    attributes: MountAttributes,
) -> rustix::io::Result<MountFlags> {
    let has = rustix::fs::fstatvfs(mount)?.f_flag;
    // The call replaces all flags, so the existing ones are passed again.
    let pairs = [
        (attributes.readonly, StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (attributes.nodev, StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (attributes.nosuid, StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (attributes.noexec, StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (false, StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (false, StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (false, StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let set = pairs.into_iter().filter(|(wanted, had, _)| *wanted || has.contains(*had));
    Ok(set.fold(MountFlags::BIND, |flags, (_, _, flag)| flags | flag))
}

/// Opens the mounts below an attached one. Leaves out mounts that another one hides.
fn below(mount: BorrowedFd<'_>) -> rustix::io::Result<Vec<OwnedFd>> {
    let table = read("/proc/self/mountinfo")?;
    let mut opened = Vec::new();
    for (id, place) in places_below(&table, mount_id(mount)?) {
        let resolve =
            ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat2(mount, &place, flags, Mode::empty(), resolve) {
            Ok(fd) if mount_id(fd.as_fd())? == id => opened.push(fd),
            Ok(_) | Err(Errno::NOENT | Errno::NOTDIR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(opened)
}

/// Returns the ID of the mount that `fd` is on.
pub(super) fn mount_id(fd: BorrowedFd<'_>) -> rustix::io::Result<u64> {
    let text = read(&format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let id = text.lines().find_map(|line| line.strip_prefix("mnt_id:"));
    id.and_then(|id| id.trim().parse().ok()).ok_or(Errno::INVAL)
}

fn read(path: &str) -> rustix::io::Result<String> {
    std::fs::read(path)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

/// Returns the mounts below mount `top` in the text of `/proc/self/mountinfo`: their IDs and their
/// paths relative to `top`.
fn places_below(table: &str, top: u64) -> Vec<(u64, PathBuf)> {
    let rows: Vec<_> = table.lines().filter_map(Row::of).collect();
    let Some(root) = rows.iter().find(|row| row.id == top) else { return Vec::new() };
    let parents: BTreeMap<u64, u64> = rows.iter().map(|row| (row.id, row.parent)).collect();
    let is_below = |mut id: u64| {
        let mut seen = BTreeSet::new();
        while let Some(parent) = parents.get(&id) {
            if *parent == top {
                return true;
            }
            if !seen.insert(id) {
                return false;
            }
            id = *parent;
        }
        false
    };
    let place = |row: &Row| Some((row.id, row.place.strip_prefix(&root.place).ok()?.to_owned()));
    rows.iter().filter(|row| row.id != top && is_below(row.id)).filter_map(place).collect()
}

/// A line of `/proc/self/mountinfo`.
struct Row {
    id: u64,
    parent: u64,
    place: PathBuf,
}

impl Row {
    fn of(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let (id, parent) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        Some(Self { id, parent, place: unescape(words.nth(2)?) })
    }
}

/// Decodes the `\ooo` escapes for blanks, line ends and backslashes in the kernel's tables.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, more)) = rest.split_first() {
        let octal = more.get(..3).filter(|_| *first == b'\\');
        let code = octal
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 8).ok());
        bytes.push(code.unwrap_or(*first));
        rest = if code.is_some() { &more[3..] } else { more };
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use kiln_testkit::{Need, skip};

    use super::*;

    #[test]
    fn the_old_call_makes_a_mount_read_only_that_nobody_writes_to() {
        let test = "the_old_call_makes_a_mount_read_only_that_nobody_writes_to";
        if skip(test, &[Need::Root]) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let attributes = MountAttributes { readonly: true, ..MountAttributes::default() };
        let in_namespace = || {
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            let mount = MountHandle::of_path(path, false).unwrap();
            mount.attach_at(path).unwrap();
            let held = File::create(path.join("file")).unwrap();
            assert_eq!(remount_here(mount.as_fd(), attributes), Err(Errno::BUSY));
            drop(held);
            remount_here(mount.as_fd(), attributes).unwrap();
            let made = rustix::fs::mkdirat(&mount, "made", Mode::RWXU);
            assert_eq!(made, Err(Errno::ROFS));
        };
        std::thread::scope(|scope| scope.spawn(in_namespace).join().unwrap());
        std::fs::create_dir(path.join("made")).unwrap();
    }

    #[test]
    fn no_device_can_be_opened_and_what_is_mounted_below_is_there() {
        if skip("no_device_can_be_opened_and_what_is_mounted_below_is_there", &[Need::Root]) {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let in_namespace = || {
            use nix::sched::{CloneFlags, unshare};
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_FS).unwrap();
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
            std::fs::create_dir(path.join("below")).unwrap();
            let tmpfs = MountHandle::file_system("tmpfs", &[], MountAttrFlags::empty()).unwrap();
            tmpfs.attach_at(&path.join("below")).unwrap();
            std::fs::write(path.join("below/file"), "").unwrap();
            for name in ["null", "below/null"] {
                let (kind, number) = (FileType::CharacterDevice, rustix::fs::makedev(1, 3));
                rustix::fs::mknodat(CWD, path.join(name), kind, Mode::RUSR, number).unwrap();
            }
            let found = mount_without_devices(File::open(path).unwrap());
            let (inside, kept) = match found {
                Ok(found) => found,
                // Without `mount_setattr`, the caller checks files one by one.
                Err(error) => return assert!(lacks_call(&error), "{error}"),
            };
            let open = |name| rustix::fs::openat(&inside, name, OFlags::RDONLY, Mode::empty());
            assert!(open("below/file").is_ok());
            for name in ["null", "below/null"] {
                assert_eq!(open(name).unwrap_err(), Errno::ACCESS, "{name}");
            }
            drop(kept);
        };
        std::thread::scope(|scope| scope.spawn(in_namespace).join().unwrap());
    }
}
