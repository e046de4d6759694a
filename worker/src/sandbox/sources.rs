//! What is mounted: trees and files, as mounts that are attached nowhere in the container yet.
//!
//! Everything is made before the new root is, so that no path of the host is looked up once there
//! is something of the container in its place.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use kiln_tree::{Ids, Owner};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::overlay::mount_overlay;
use super::spec::{Mount, MountKind, Tree};
use super::wire::Failure;
use crate::sys::{MountAttributes, set_mount_attributes};

/// A mount that is attached nowhere, with what it is called in messages.
pub(super) type Detached = OwnedFd;

/// Makes mounts, outside of the container's root.
pub(super) struct Sources {
    /// An empty directory that this mount namespace can attach things to.
    anchor: PathBuf,
    /// A file system in memory for single files and devices, where there are any. Its root is seen by
    /// nobody.
    store: Option<OwnedFd>,
    /// How many bytes it may hold.
    room: u64,
    files: u32,
}

/// How much more than they are made with the files in memory may hold, all together.
const GROWTH: u64 = 1 << 20;
/// No page is larger.
const PAGE: u64 = 64 << 10;

impl Sources {
    /// Returns a maker of mounts that has room for the files of `mounts`.
    pub(super) fn new(anchor: &Path, mounts: &[Mount]) -> Self {
        let pages = mounts.iter().map(|mount| match &mount.kind {
            MountKind::File { contents, .. } => (contents.len() as u64).next_multiple_of(PAGE),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } => 0,
        });
        let room = pages.sum::<u64>() + GROWTH;
        Self { anchor: anchor.to_owned(), store: None, room, files: 0 }
    }

    fn store(&mut self) -> Result<&OwnedFd, Failure> {
        let store = if let Some(store) = self.store.take() {
            store
        } else {
            let none = MountAttrFlags::empty();
            let size = self.room.to_string();
            let options = [("mode", "700"), ("size", size.as_str())];
            let store = new_file_system("tmpfs", &options, none)?;
            // Parts of a mount can be cloned only where it is attached somewhere.
            attach_at(&store, &self.anchor)?;
            store
        };
        Ok(self.store.insert(store))
    }

    /// Makes a character device and returns a mount of it.
    pub(super) fn device(
        &mut self,
        name: &str,
        major: u32,
        minor: u32,
    ) -> Result<Detached, Failure> {
        let store = self.store()?;
        let action = format!("create device {name}");
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(store, name, FileType::CharacterDevice, mode, device)
            .map_err(Failure::doing(&action))?;
        open_tree(store, name, clone_flags(false)).map_err(Failure::doing(&action))
    }

    /// Returns a mount of one of the machine's own devices.
    pub(super) fn host_device(name: &str, major: u32, minor: u32) -> Result<Detached, Failure> {
        let action = format!("mount device {name}");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let path = Path::new("/dev").join(name);
        let device =
            rustix::fs::open(path, flags, Mode::empty()).map_err(Failure::doing(&action))?;
        let stat = rustix::fs::fstat(&device).map_err(Failure::doing(&action))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if !is_device || stat.st_rdev != rustix::fs::makedev(major, minor) {
            return Err(Failure::new(format!("{action}: the one of this machine is another")));
        }
        open_tree(&device, "", clone_flags(false) | OpenTreeFlags::AT_EMPTY_PATH)
            .map_err(Failure::doing(&action))
    }

    /// Makes what `kind` asks for.
    pub(super) fn mount(&mut self, kind: &MountKind) -> Result<Detached, Failure> {
        match kind {
            MountKind::Bind { tree, selector, readonly, recursive } => {
                let mount = self.part(tree, selector, *recursive)?;
                let attributes = MountAttributes {
                    readonly: *readonly,
                    nodev: true,
                    recursive: *recursive,
                    ..MountAttributes::default()
                };
                set_mount_attributes(&mount, attributes)
                    .map_err(Failure::doing("set attributes of mount"))?;
                Ok(mount)
            }
            MountKind::Tmpfs { size, mode } => {
                let size = size.map(|size| size.to_string());
                let mode = format!("{mode:o}");
                let mut options = vec![("mode", mode.as_str())];
                options.extend(size.as_deref().map(|size| ("size", size)));
                let attributes =
                    MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
                new_file_system("tmpfs", &options, attributes)
            }
            MountKind::File { contents, mode, uid, gid, readonly } => {
                let mount = self.file(contents, *mode, (*uid, *gid))?;
                let attributes = MountAttributes {
                    readonly: *readonly,
                    nodev: true,
                    nosuid: true,
                    noexec: true,
                    recursive: false,
                };
                set_mount_attributes(&mount, attributes)
                    .map_err(Failure::doing("set attributes of mount"))?;
                Ok(mount)
            }
        }
    }

    /// Mounts a whole tree, as it is to be the container's root.
    pub(super) fn tree(&mut self, tree: &Tree, nodev: bool) -> Result<Detached, Failure> {
        let mount = self.part(tree, Path::new(""), false)?;
        let attributes = MountAttributes { nodev, ..MountAttributes::default() };
        set_mount_attributes(&mount, attributes)
            .map_err(Failure::doing("set attributes of the root file system"))?;
        Ok(mount)
    }

    fn part(&mut self, tree: &Tree, selector: &Path, recursive: bool) -> Result<Detached, Failure> {
        let flags = clone_flags(recursive);
        match directory(tree)? {
            Some(path) if is_whole(selector) => open_tree(CWD, path, flags)
                .map_err(Failure::doing(&format!("open {}", path.display()))),
            Some(path) => {
                let open = OFlags::PATH | OFlags::CLOEXEC;
                let root = rustix::fs::open(path, open, Mode::empty())
                    .map_err(Failure::doing(&format!("open {}", path.display())))?;
                select(&root, selector, flags)
            }
            None => {
                let Tree::Overlay { lowers, upper } = tree else {
                    return Err(Failure::new("a tree that is neither directory nor overlay"));
                };
                let root = mount_overlay(lowers, upper.as_ref(), &self.anchor)?;
                if is_whole(selector) {
                    return Ok(root);
                }
                attach_at(&root, &self.anchor)?;
                select(&root, selector, flags)
            }
        }
    }

    fn file(&mut self, contents: &[u8], mode: u32, owner: (u32, u32)) -> Result<Detached, Failure> {
        let name = format!("file{}", self.files);
        self.files += 1;
        let store = self.store()?;
        let action = "create file";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let file = rustix::fs::openat(store, &name, flags, mode).map_err(Failure::doing(action))?;
        let mut file = File::from(file);
        file.write_all(contents).map_err(Failure::doing(action))?;
        let owner = Ids::current().possible(Owner { uid: owner.0, gid: owner.1 });
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(Failure::doing(action))?;
        // A changed owner takes setuid bits away; nobody else counts on the mode given at first.
        rustix::fs::fchmod(&file, mode).map_err(Failure::doing(action))?;
        drop(file);
        open_tree(store, &name, clone_flags(false)).map_err(Failure::doing(action))
    }
}

/// Returns the directory that a tree is, where it is a single one.
fn directory(tree: &Tree) -> Result<Option<&PathBuf>, Failure> {
    match tree {
        Tree::Directory(path) => Ok(Some(path)),
        Tree::Overlay { lowers, upper } => match (lowers.as_slice(), upper) {
            ([], Some(upper)) => Ok(Some(&upper.fs)),
            // The kernel makes no overlay of one directory.
            ([lower], None) => Ok(Some(lower)),
            ([], None) => Err(Failure::new("a tree of no directories")),
            _ => Ok(None),
        },
    }
}

fn is_whole(selector: &Path) -> bool {
    selector.as_os_str().is_empty() || selector == Path::new("/")
}

/// Clones the part of `root` that `selector` names, inside it.
fn select(root: &OwnedFd, selector: &Path, flags: OpenTreeFlags) -> Result<Detached, Failure> {
    let action = format!("open {}", selector.display());
    let part = open_inside(root, selector, OFlags::PATH).map_err(Failure::doing(&action))?;
    open_tree(&part, "", flags | OpenTreeFlags::AT_EMPTY_PATH).map_err(Failure::doing(&action))
}

/// Opens a path inside a root: links, `..` and `/` can't lead out, and links of `/proc` that are
/// none in truth aren't followed.
pub(super) fn open_inside(
    root: &OwnedFd,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Something was renamed elsewhere in the system while `..` was followed.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}

/// Makes an instance of a file system, attached nowhere.
pub(super) fn new_file_system(
    kind: &str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<Detached, Failure> {
    let action = format!("mount {kind}");
    let context = fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).map_err(Failure::doing(&action))?;
    for (key, value) in options {
        fsconfig_set_string(&context, *key, *value)
            .map_err(Failure::doing(&format!("{action} with {key}={value}")))?;
    }
    fsconfig_create(&context).map_err(Failure::doing(&action))?;
    fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(Failure::doing(&action))
}

fn clone_flags(recursive: bool) -> OpenTreeFlags {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive { flags | OpenTreeFlags::AT_RECURSIVE } else { flags }
}

/// Clones the mount that `fd` is in, from `fd` downwards.
pub(super) fn clone_of(fd: &OwnedFd) -> rustix::io::Result<Detached> {
    open_tree(fd, "", clone_flags(true) | OpenTreeFlags::AT_EMPTY_PATH)
}

/// Attaches a mount to what `target` refers to: no name is looked up.
pub(super) fn attach(mount: &Detached, target: &OwnedFd) -> rustix::io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, "", target, "", flags)
}

/// Attaches a mount to a trusted path of the host.
pub(super) fn attach_at(mount: &Detached, path: &Path) -> Result<(), Failure> {
    move_mount(mount, "", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(Failure::doing(&format!("mount at {}", path.display())))
}

/// Tells whether `fd` is a directory.
pub(super) fn is_directory(fd: &OwnedFd) -> Result<bool, Failure> {
    let stat =
        rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH).map_err(Failure::doing("look at mount"))?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
