//! The sources of mounts: trees and files as detached mounts.
//!
//! All of them are created before the new root exists, so that no path of the host is looked up
//! when the container's files could be in its place.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use kiln_tree::{Ids, Overlay, Owner};
use rustix::fs::{FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::mount::MountAttrFlags;

use super::mount_handle::MountHandle;
use super::spec::{AccessTimes, Mount, MountKind, Propagation, TmpfsOptions, Tree};
use super::wire::Failure;
use crate::sys::MountAttributes;

/// A factory of mounts outside of the container's root.
pub(super) struct Sources {
    /// An empty directory for attaching mounts in this mount namespace.
    anchor: PathBuf,
    /// A hidden file system in memory for single files and devices, created on demand.
    store: Option<MountHandle>,
    /// The capacity of the file system in memory, in bytes.
    room: u64,
    files: u32,
    linked: Linked,
}

/// Clones of host directories with mount propagation. They are made while this process's mounts
/// still share propagation with the host's.
#[derive(Default)]
pub(super) struct Linked(Vec<(PathBuf, MountHandle)>);

impl Linked {
    /// Clones the directories in `mounts` that have propagation.
    pub(super) fn clone_of(mounts: &[Mount]) -> Result<Self, Failure> {
        let mut all = Vec::new();
        for mount in mounts {
            let MountKind::Bind { tree: Tree::Directory(path), recursive, propagation, .. } =
                &mount.kind
            else {
                continue;
            };
            if *propagation != Propagation::Private {
                let clone = MountHandle::of_path(path, *recursive)
                    .map_err(Failure::doing(&format!("open {}", path.display())))?;
                if *propagation == Propagation::Slave {
                    clone.enslave();
                }
                all.push((path.clone(), clone));
            }
        }
        Ok(Self(all))
    }

    fn take(&mut self, tree: &Tree) -> Result<MountHandle, Failure> {
        let is_it = |(path, _): &(PathBuf, MountHandle)| *tree == Tree::Directory(path.clone());
        let place = self.0.iter().position(is_it);
        let place = place.ok_or_else(|| Failure::new("only directories of the host are linked"))?;
        Ok(self.0.remove(place).1)
    }
}

/// The number of bytes by which all files in memory together may grow.
const GROWTH: u64 = 1 << 20;
/// The maximum size of a page in bytes.
const PAGE: u64 = 64 << 10;

impl Sources {
    /// Creates a factory with capacity for the files of `mounts` and with the existing clones.
    pub(super) fn new(anchor: &Path, mounts: &[Mount], linked: Linked) -> Self {
        let pages = mounts.iter().map(|mount| match &mount.kind {
            MountKind::File { contents, .. } => (contents.len() as u64).next_multiple_of(PAGE),
            MountKind::Bind { .. } | MountKind::Tmpfs { .. } | MountKind::Device(_) => 0,
        });
        let room = pages.sum::<u64>() + GROWTH;
        Self { anchor: anchor.to_owned(), store: None, room, files: 0, linked }
    }

    fn store(&mut self) -> Result<&MountHandle, Failure> {
        let store = if let Some(store) = self.store.take() {
            store
        } else {
            let none = MountAttrFlags::empty();
            let size = self.room.to_string();
            let options = [("mode", "700"), ("size", size.as_str())];
            let store = MountHandle::file_system("tmpfs", &options, none)?;
            // The kernel clones parts of attached mounts only.
            store.attach_at(&self.anchor)?;
            store
        };
        Ok(self.store.insert(store))
    }

    /// Creates a character device and returns its mount.
    pub(super) fn device(
        &mut self,
        name: &str,
        major: u32,
        minor: u32,
    ) -> Result<MountHandle, Failure> {
        let store = self.store()?;
        let action = format!("create device {name}");
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(store, name, FileType::CharacterDevice, mode, device)
            .map_err(Failure::doing(&action))?;
        MountHandle::of_entry(store, name).map_err(Failure::doing(&action))
    }

    /// Returns a mount of one of the host's devices, after checking its number.
    pub(super) fn host_device(name: &str, major: u32, minor: u32) -> Result<MountHandle, Failure> {
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
        MountHandle::of_fd(&device, false).map_err(Failure::doing(&action))
    }

    /// Creates the mount that `kind` describes.
    pub(super) fn mount(&mut self, kind: &MountKind) -> Result<MountHandle, Failure> {
        match kind {
            MountKind::Bind { tree, selector, readonly, recursive, propagation } => {
                let mount = match propagation {
                    Propagation::Private => self.part(tree, selector, *recursive)?,
                    Propagation::Slave | Propagation::Shared => self.linked.take(tree)?,
                };
                let attributes = MountAttributes {
                    readonly: *readonly,
                    nodev: true,
                    recursive: *recursive,
                    ..MountAttributes::default()
                };
                mount.restrict(attributes)?;
                Ok(mount)
            }
            MountKind::Tmpfs { size, mode, options } => tmpfs(*size, *mode, options),
            MountKind::Device(path) => shared_device(path),
            MountKind::File { contents, mode, uid, gid, readonly } => {
                let mount = self.file(contents, *mode, Owner { uid: *uid, gid: *gid })?;
                let attributes = MountAttributes {
                    readonly: *readonly,
                    nodev: true,
                    nosuid: true,
                    noexec: true,
                    recursive: false,
                };
                mount.restrict(attributes)?;
                Ok(mount)
            }
        }
    }

    /// Mounts a whole tree as the container's root.
    pub(super) fn tree(&mut self, tree: &Tree, nodev: bool) -> Result<MountHandle, Failure> {
        let mount = self.part(tree, Path::new(""), false)?;
        let attributes = MountAttributes { nodev, ..MountAttributes::default() };
        mount.restrict(attributes)?;
        Ok(mount)
    }

    fn part(
        &mut self,
        tree: &Tree,
        selector: &Path,
        recursive: bool,
    ) -> Result<MountHandle, Failure> {
        match tree.directory() {
            Some(path) if is_whole(selector) => MountHandle::of_path(path, recursive)
                .map_err(Failure::doing(&format!("open {}", path.display()))),
            Some(path) => {
                let open = OFlags::PATH | OFlags::CLOEXEC;
                let root = rustix::fs::open(path, open, Mode::empty())
                    .map_err(Failure::doing(&format!("open {}", path.display())))?;
                select(&root, selector, recursive)
            }
            None => {
                let Tree::Overlay { lowers, upper } = tree else {
                    return Err(Failure::new("a tree that is neither directory nor overlay"));
                };
                if lowers.is_empty() {
                    return Err(Failure::new("a tree of no directories"));
                }
                let overlay = Overlay { lowers: lowers.clone(), upper: upper.clone() };
                let root = overlay
                    .mount_apart(MountAttrFlags::empty(), &self.anchor)
                    .map_err(|error| Failure::because(&error))?;
                let root = MountHandle::from(root);
                if is_whole(selector) {
                    return Ok(root);
                }
                root.attach_at(&self.anchor)?;
                select(&root, selector, recursive)
            }
        }
    }

    fn file(&mut self, contents: &[u8], mode: u32, owner: Owner) -> Result<MountHandle, Failure> {
        let name = format!("file{}", self.files);
        self.files += 1;
        let store = self.store()?;
        let action = "create file";
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let file = rustix::fs::openat(store, &name, flags, mode).map_err(Failure::doing(action))?;
        let mut file = File::from(file);
        file.write_all(contents).map_err(Failure::doing(action))?;
        let owner = Ids::current().possible(owner);
        let (uid, gid) = (Uid::from_raw(owner.uid), Gid::from_raw(owner.gid));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(Failure::doing(action))?;
        // A change of owner clears setuid bits, so the mode is set again.
        rustix::fs::fchmod(&file, mode).map_err(Failure::doing(action))?;
        drop(file);
        MountHandle::of_entry(store, &name).map_err(Failure::doing(action))
    }
}

/// Creates a file system in memory.
fn tmpfs(size: Option<u64>, mode: u32, options: &TmpfsOptions) -> Result<MountHandle, Failure> {
    let mut words = vec![("mode", format!("{mode:o}"))];
    words.extend(size.map(|size| ("size", size.to_string())));
    words.extend(options.inodes.map(|inodes| ("nr_inodes", inodes.to_string())));
    // Root is the default owner.
    let owners =
        [("uid", options.uid), ("gid", options.gid)].into_iter().filter(|(_, id)| *id != 0);
    words.extend(owners.map(|(name, id)| (name, id.to_string())));
    let words: Vec<(&str, &str)> =
        words.iter().map(|(name, word)| (*name, word.as_str())).collect();
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOSUID, !options.suid);
    attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, options.noexec);
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, options.readonly);
    match options.access_times {
        AccessTimes::Relative => {}
        AccessTimes::Never => attributes |= MountAttrFlags::MOUNT_ATTR_NOATIME,
        AccessTimes::Always => attributes |= MountAttrFlags::MOUNT_ATTR_STRICTATIME,
    }
    MountHandle::file_system("tmpfs", &words, attributes)
}

/// Returns a mount of a device of the host. This is the only kind of mount in which devices can be
/// opened.
fn shared_device(path: &Path) -> Result<MountHandle, Failure> {
    let action = format!("mount device {}", path.display());
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let device = rustix::fs::open(path, flags, Mode::empty()).map_err(Failure::doing(&action))?;
    let stat = rustix::fs::fstat(&device).map_err(Failure::doing(&action))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(Failure::new(format!("{action}: it is no device")));
    }
    let mount = MountHandle::of_fd(&device, false).map_err(Failure::doing(&action))?;
    mount.restrict(MountAttributes { nosuid: true, noexec: true, ..MountAttributes::default() })?;
    Ok(mount)
}

fn is_whole(selector: &Path) -> bool {
    selector.as_os_str().is_empty() || selector == Path::new("/")
}

/// Clones the part of `root` at `selector`, resolved inside it.
fn select(root: impl AsFd, selector: &Path, recursive: bool) -> Result<MountHandle, Failure> {
    let action = format!("open {}", selector.display());
    let part = open_inside(root, selector, OFlags::PATH).map_err(Failure::doing(&action))?;
    MountHandle::of_fd(&part, recursive).map_err(Failure::doing(&action))
}

/// Opens a path inside a root. Links, `..` and `/` can't lead out of it, and magic links of `/proc`
/// aren't followed.
pub(super) fn open_inside(
    root: impl AsFd,
    path: &Path,
    flags: OFlags,
) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(&root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // Another process renamed a directory while the kernel resolved `..`.
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
            other => return other,
        }
    }
}
