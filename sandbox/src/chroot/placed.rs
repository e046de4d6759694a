//! The mounts of a program, placed in its tree.
//!
//! kiln places them before the program starts, and removes them after its last process has ended:
//!
//! | mount | in the tree | afterwards |
//! | --- | --- | --- |
//! | read-only bind | a copy, which shares blocks if the file system supports it | removed |
//! | writable bind, cache | hard links to the files of the source | changes go back to the source |
//! | tmpfs | an empty directory | removed |
//! | file in memory | an empty file if there is none: the supervisor serves the content | removed if empty |
//! | socket | a hard link | removed |
//! | `/dev` | nodes of harmless devices, links, directories | removed |
//! | `/proc`, `/sys` | an empty directory | emptied |
//!
//! Device nodes of the image are covered too, except harmless ones: nothing else prevents the program
//! from opening them.
//!
//! An entry of the image at the target of a mount is *covered*: it waits in a directory beside the
//! tree, outside of the program's reach, and then moves back. No directory ever moves out of the tree
//! while a process of the program exists, because a process in it could then leave the tree.
//!
//! # Writable directories
//!
//! A hard link shares the content of its file. Two steps with the same cache see each other's changes
//! to existing files at once, and new and removed files after a step's end. Nothing moves out of the
//! source, so a killed kiln loses no file of a cache. On another file system, files are copied in both
//! directions.
//!
//! A program may give a file of the source a second name elsewhere in its tree, which other rungs
//! refuse. Such a file is replaced by a copy in the source, because the layer must not share it.

mod nodes;
mod source;

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use kiln_tree::remove_all;
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, linkat, mkdirat, openat2,
    renameat, statat,
};
use rustix::io::Errno;

use self::nodes::{device_nodes, is_harmless, make_device, remove_nodes};
use self::source::{Source, copy};
use super::locate::inode_of;
use crate::descriptors::{own_path, path_of};
use crate::devices::{DEVICES, LINKS};
use crate::error::SandboxError;
use crate::root::{Missing, Root, clean};
use crate::sources::open_inside;
use crate::spec::{Mount, MountKind, Spec, Tree};
use crate::stubs::{Cleanup, CreatedStubs, Look, keeping_times, open_below, times};
use crate::wire::Failure;

/// The mounts that are placed in a tree. Dropping the value removes them.
#[derive(Debug)]
pub(crate) struct Placed {
    tree: Tree,
    root: OwnedFd,
    /// The path of the directory for covered entries, and the directory once it is needed.
    beside: (PathBuf, Option<OwnedFd>),
    own: Vec<OwnDirectory>,
    mounts: Vec<PlacedMount>,
    /// The paths of the image's device nodes, whose indexes are their names beside the tree.
    nodes: Vec<PathBuf>,
    made: CreatedStubs,
    is_undone: bool,
}

/// A directory of the tree that the sandbox fills, such as `/dev`.
#[derive(Debug)]
struct OwnDirectory {
    name: &'static str,
    /// The state of the image's directory, unless the sandbox has created it.
    before: Option<Stat>,
    /// `true` if the image's own directory is beside the tree.
    covers: bool,
}

/// A mount in the tree.
#[derive(Debug)]
struct PlacedMount {
    /// The placed entry. The program may have moved a directory above it.
    entry: OwnedFd,
    /// The name of the covered entry beside the tree.
    covered: String,
    /// The source that receives the changes.
    source: Option<Source>,
}

impl Placed {
    /// Places the mounts of a specification.
    pub(crate) fn place(spec: &Spec) -> Result<Self, SandboxError> {
        let setup = |failure: Failure| SandboxError::Setup(failure.message);
        super::check(spec).map_err(setup)?;
        let path = spec.rootfs.directory().ok_or_else(|| {
            let message =
                "the layers are mounted, but this isolation requires copies (isolation: chroot)";
            SandboxError::Setup(message.to_owned())
        })?;
        let mut root = Root::of_directory(path).map_err(setup)?;
        let fd = root.fd().try_clone().map_err(SandboxError::host("open the root file system"))?;
        let mut placed = Self {
            tree: spec.rootfs.clone(),
            root: fd,
            beside: (beside(path), None),
            own: Vec::new(),
            mounts: Vec::new(),
            nodes: Vec::new(),
            made: CreatedStubs::default(),
            is_undone: false,
        };
        let outcome = placed.place_all(&mut root, spec);
        placed.made = root.into_made();
        outcome.map_err(setup)?;
        Ok(placed)
    }

    fn place_all(&mut self, root: &mut Root, spec: &Spec) -> Result<(), Failure> {
        self.cover_nodes(spec).map_err(Failure::doing("cover the device nodes of the image"))?;
        for name in ["proc", "sys", "dev"] {
            self.place_own(root, name)?;
        }
        self.fill_dev(spec).map_err(Failure::doing("furnish /dev"))?;
        for mount in &spec.mounts {
            self.place_mount(root, mount)?;
        }
        Ok(())
    }

    /// Covers all device nodes of the image that aren't harmless.
    fn cover_nodes(&mut self, spec: &Spec) -> rustix::io::Result<()> {
        let nodes = match &spec.device_nodes {
            Some(nodes) => nodes.clone(),
            None => device_nodes(&self.root)?,
        };
        for path in nodes {
            let (parent, name) = parent(&self.root, &path)?;
            if is_harmless(&statat(&parent, &name, AtFlags::SYMLINK_NOFOLLOW)?) {
                continue;
            }
            let beside = self.beside()?;
            let covered = node_name(self.nodes.len());
            keeping_times(&parent, || renameat(&parent, &name, &beside, &covered))?;
            self.nodes.push(path);
        }
        Ok(())
    }

    /// Moves the device nodes of the image back, unless the program has taken their places.
    fn uncover_nodes(&mut self) -> rustix::io::Result<()> {
        while let Some(path) = self.nodes.pop() {
            let beside = self.beside()?;
            let covered = node_name(self.nodes.len());
            let back = parent(&self.root, &path).and_then(|(parent, name)| {
                let flags = rustix::fs::RenameFlags::NOREPLACE;
                keeping_times(&parent, || {
                    rustix::fs::renameat_with(&beside, &covered, &parent, &name, flags)
                })
            });
            if back.is_err() {
                remove_all(beside.as_fd(), covered.as_bytes())?;
            }
        }
        Ok(())
    }

    /// Makes a directory for the sandbox's own entries, or takes the image's if it is empty.
    fn place_own(&mut self, root: &mut Root, name: &'static str) -> Result<(), Failure> {
        let action = format!("mount /{name}");
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let directory = match openat2(&self.root, name, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) => {
                root.open_or_make(&Path::new("/").join(name), Missing::StubDirectory)?;
                self.own.push(OwnDirectory { name, before: None, covers: false });
                return Ok(());
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(Failure::new(format!("{action}: it is no directory in the image")));
            }
            other => other.map_err(Failure::doing(&action))?,
        };
        let before = rustix::fs::fstat(&directory).map_err(Failure::doing(&action))?;
        let is_empty = names(&directory).map_err(Failure::doing(&action))?.is_empty();
        let mut cover = || -> rustix::io::Result<()> {
            let beside = self.beside()?;
            let top = open_below(&self.root, Path::new("."))?;
            keeping_times(&top, || {
                renameat(&top, name, &beside, name)?;
                mkdirat(&top, name, Mode::from_raw_mode(0o755))
            })
        };
        if !is_empty {
            cover().map_err(Failure::doing(&action))?;
        }
        self.own.push(OwnDirectory { name, before: Some(before), covers: !is_empty });
        Ok(())
    }

    fn fill_dev(&self, spec: &Spec) -> rustix::io::Result<()> {
        let dev = open_below(&self.root, Path::new("dev"))?;
        keeping_times(&dev, || {
            for (name, major, minor) in DEVICES {
                make_device(&dev, name, FileType::CharacterDevice, major, minor)?;
            }
            for (target, name) in LINKS {
                // Not every kernel has `/proc/kcore`.
                if name == "core" && rustix::fs::access(target, rustix::fs::Access::EXISTS).is_err()
                {
                    continue;
                }
                rustix::fs::symlinkat(target, &dev, name)?;
            }
            mkdirat(&dev, "pts", Mode::from_raw_mode(0o755))?;
            mkdirat(&dev, "mqueue", Mode::from_raw_mode(0o755))?;
            if spec.shm_size.is_some() {
                make_directory(&dev, Path::new("shm"), 0o1777, 0, 0)?;
            }
            Ok(())
        })
    }

    fn place_mount(&mut self, root: &mut Root, mount: &Mount) -> Result<(), Failure> {
        let target = clean(&mount.target);
        let action = format!("mount at {}", target.display());
        if target == Path::new("/") {
            return Err(Failure::new("nothing can be mounted over the root file system"));
        }
        let source = source(&mount.kind).map_err(|failure| Failure {
            message: format!("{action}: {}", failure.message),
            ..failure
        })?;
        let is_directory = source.as_ref().is_none_or(|(_, stat)| is_directory(stat))
            && !matches!(mount.kind, MountKind::File { .. });
        let missing = if is_directory { Missing::StubDirectory } else { Missing::StubFile };
        let place = root.open_or_make(&target, missing)?;
        let doing = |errno| Failure::doing::<Errno>(&action)(errno);
        let stat = statat(&place, "", AtFlags::EMPTY_PATH).map_err(doing)?;
        let real = self.real_path(&place).map_err(doing)?;
        if real.starts_with("proc") {
            return Err(Failure::new(format!("{action}: nothing can be mounted in /proc")));
        }
        if is_directory != self::is_directory(&stat) {
            let errno = if is_directory { Errno::NOTDIR } else { Errno::ISDIR };
            return Err(doing(errno));
        }
        if matches!(mount.kind, MountKind::File { .. }) {
            return Ok(());
        }
        self.put(&real, &mount.kind, source)
            .map_err(|error| Failure { message: format!("{action}: {}", error.message), ..error })
    }

    /// Returns the path of an open entry in the tree.
    fn real_path(&self, place: &OwnedFd) -> rustix::io::Result<PathBuf> {
        use std::os::unix::ffi::OsStringExt;
        let path = PathBuf::from(std::ffi::OsString::from_vec(path_of(place)?));
        let root = PathBuf::from(std::ffi::OsString::from_vec(path_of(&self.root)?));
        path.strip_prefix(root).map(Path::to_owned).map_err(|_| Errno::XDEV)
    }

    /// Covers the entry at a real path, and puts a mount there.
    fn put(
        &mut self,
        place: &Path,
        kind: &MountKind,
        source: Option<(OwnedFd, Stat)>,
    ) -> Result<(), Failure> {
        let doing = |errno: Errno| Failure::doing::<Errno>("place it")(errno);
        let (parent, name) = parent(&self.root, place).map_err(doing)?;
        let covered = self.mounts.len().to_string();
        let beside = self.beside().map_err(doing)?;
        let before = times(&rustix::fs::fstat(&parent).map_err(doing)?);
        renameat(&parent, &name, &beside, &covered).map_err(doing)?;
        let placed = create(&parent, &name, kind, source).and_then(|source| {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
            let entry = openat2(&parent, &name, flags, Mode::empty(), resolve);
            Ok(PlacedMount { entry: entry.map_err(doing)?, covered: covered.clone(), source })
        });
        let placed = match placed {
            Ok(placed) => {
                self.mounts.push(placed);
                Ok(())
            }
            Err(failure) => {
                // The tree is as it was if this succeeds, and the first error says more.
                let _ = remove_all(parent.as_fd(), name.as_os_str().as_encoded_bytes())
                    .and_then(|()| renameat(&beside, &covered, &parent, &name));
                Err(failure)
            }
        };
        rustix::fs::futimens(&parent, &before).map_err(doing)?;
        placed
    }

    /// Returns the directory for covered entries.
    fn beside(&mut self) -> rustix::io::Result<OwnedFd> {
        let (path, opened) = &mut self.beside;
        if opened.is_none() {
            mkdirat(CWD, &*path, Mode::from_raw_mode(0o700))?;
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            *opened = Some(rustix::fs::open(&*path, flags, Mode::empty())?);
        }
        let opened = opened.as_ref().ok_or(Errno::BADF)?;
        rustix::io::fcntl_dupfd_cloexec(opened, 0)
    }

    /// Removes the mounts after the last process of the program has ended.
    ///
    /// # Errors
    /// Fails if the program has moved a mount, so that a part of it would remain in the tree.
    pub(crate) fn undo(mut self) -> Result<(), SandboxError> {
        self.remove()
    }

    fn remove(&mut self) -> Result<(), SandboxError> {
        if std::mem::replace(&mut self.is_undone, true) {
            return Ok(());
        }
        while let Some(mount) = self.mounts.pop() {
            self.remove_mount(&mount).map_err(SandboxError::host("remove a mount of a step"))?;
        }
        while let Some(own) = self.own.pop() {
            self.remove_own(&own).map_err(|errno| {
                SandboxError::host("empty a directory of the sandbox")(errno.into())
            })?;
        }
        self.uncover_nodes()
            .map_err(|errno| SandboxError::host("restore a device node")(errno.into()))?;
        if let (path, Some(_)) = &self.beside {
            let _ = rustix::fs::unlinkat(CWD, path, AtFlags::REMOVEDIR);
        }
        match Cleanup::of(&self.tree) {
            Some(cleanup) => cleanup.remove(&self.made),
            None => Ok(()),
        }
    }

    fn remove_mount(&mut self, mount: &PlacedMount) -> std::io::Result<()> {
        if let Some(source) = &mount.source {
            source.take_changes(&open_below(&mount.entry, Path::new("."))?)?;
        }
        let beside = self.beside()?;
        let place = self.real_path(&mount.entry)?;
        match parent(&self.root, &place) {
            Ok((parent, name)) if is_at(&mount.entry, &parent, &name) => {
                keeping_times(&parent, || {
                    remove_all(parent.as_fd(), name.as_os_str().as_encoded_bytes())?;
                    renameat(&beside, &mount.covered, &parent, &name)
                })?;
            }
            // The program has removed the mount with a directory above it.
            _ => remove_all(beside.as_fd(), mount.covered.as_bytes())?,
        }
        if let Some(source) = &mount.source {
            source.part()?;
        }
        Ok(())
    }

    fn remove_own(&mut self, own: &OwnDirectory) -> rustix::io::Result<()> {
        if own.covers {
            let beside = self.beside()?;
            let top = open_below(&self.root, Path::new("."))?;
            return keeping_times(&top, || {
                remove_all(top.as_fd(), own.name.as_bytes())?;
                renameat(&beside, own.name, &top, own.name)
            });
        }
        let directory = match open_below(&self.root, Path::new(own.name)) {
            // The program has replaced it.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            other => other?,
        };
        names(&directory)?.iter().try_for_each(|name| remove_all(directory.as_fd(), name))?;
        match &own.before {
            Some(before) => restore(&directory, before),
            None => Ok(()),
        }
    }
}

impl Drop for Placed {
    fn drop(&mut self) {
        // The tree isn't used any more, or the error has been reported.
        let _ = self.remove();
    }
}

/// Returns the path of the directory beside a tree for covered entries.
fn beside(tree: &Path) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!(".kiln-covered-{}-{number}", std::process::id());
    tree.parent().unwrap_or(tree).join(name)
}

fn node_name(number: usize) -> String {
    format!("node-{number}")
}

/// Opens the source of a bind or device.
fn source(kind: &MountKind) -> Result<Option<(OwnedFd, Stat)>, Failure> {
    let (path, selector) = match kind {
        MountKind::Bind { tree, selector, .. } => {
            let path = tree.directory().ok_or_else(|| {
                Failure::new("several layers can't be mounted here (isolation: chroot)")
            })?;
            (path, selector.as_path())
        }
        MountKind::Device(path) => (path, Path::new("")),
        MountKind::Tmpfs { .. } | MountKind::File { .. } => return Ok(None),
    };
    let open = || -> rustix::io::Result<(OwnedFd, Stat)> {
        let top = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let is_whole = selector.as_os_str().is_empty() || selector == Path::new("/");
        let file = if is_whole { top } else { open_inside(&top, selector, OFlags::PATH)? };
        let stat = statat(&file, "", AtFlags::EMPTY_PATH)?;
        Ok((file, stat))
    };
    let part = if selector.as_os_str().is_empty() { path } else { selector };
    open().map(Some).map_err(Failure::doing(&format!("open {}", part.display())))
}

/// Creates a mount as `name` in an open directory of the tree.
fn create(
    parent: &OwnedFd,
    name: &Path,
    kind: &MountKind,
    source: Option<(OwnedFd, Stat)>,
) -> Result<Option<Source>, Failure> {
    let doing = |errno: Errno| Failure::doing::<Errno>("place it")(errno);
    match (kind, source) {
        (MountKind::Tmpfs { mode, options, .. }, _) => {
            make_directory(parent, name, *mode, options.uid, options.gid).map_err(doing)?;
            Ok(None)
        }
        (MountKind::Bind { readonly, .. }, Some((from, stat))) if is_directory(&stat) => {
            mkdirat(parent, name, Mode::from_raw_mode(0o700)).map_err(doing)?;
            let to = open_below(parent, name).map_err(doing)?;
            let from = open_below(&from, Path::new(".")).map_err(doing)?;
            if *readonly {
                copy(&from, &to)?;
                remove_nodes(&to).map_err(doing)?;
                return Ok(None);
            }
            Source::place(from, &to).map(Some)
        }
        (MountKind::Bind { .. }, Some((_, stat))) if !is_harmless(&stat) => {
            Err(Failure::new("a device is mounted by --device only"))
        }
        (MountKind::Bind { readonly, .. }, Some((from, stat))) => {
            place_file(parent, name, &from, &stat, *readonly).map_err(doing)?;
            Ok(None)
        }
        (MountKind::Device(path), Some((_, stat))) => {
            let kind = FileType::from_raw_mode(stat.st_mode);
            if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
                return Err(Failure::new(format!(
                    "mount device {}: it is no device",
                    path.display()
                )));
            }
            let (major, minor) = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
            make_device(parent, name, kind, major, minor).map_err(doing)?;
            Ok(None)
        }
        _ => Err(Failure::new("there is nothing to place")),
    }
}

/// Places a single file: a link if it is writable or no regular file, and a copy otherwise.
fn place_file(
    parent: &OwnedFd,
    name: &Path,
    from: &OwnedFd,
    stat: &Stat,
    readonly: bool,
) -> rustix::io::Result<()> {
    let link = own_path(from.as_fd());
    let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
    if !readonly || !is_regular {
        match linkat(CWD, &link, parent, name, AtFlags::SYMLINK_FOLLOW) {
            // Only copies can be on another file system.
            Err(Errno::XDEV) if is_regular => {}
            other => return other,
        }
    }
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let source = rustix::fs::open(&link, flags, Mode::empty())?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o600))?;
    if rustix::fs::ioctl_ficlone(&copy, &source).is_err() {
        while rustix::fs::sendfile(&copy, &source, None, 1 << 20)? > 0 {}
    }
    give_attributes(&source, &copy)
}

/// Gives an open file the owner, mode, attributes and times of another.
fn give_attributes(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(to, Mode::from_raw_mode(stat.st_mode))?;
    for (name, value) in Look::of(from)?.into_attributes() {
        let name = name.as_slice();
        rustix::fs::fsetxattr(to, name, &value, rustix::fs::XattrFlags::empty())?;
    }
    rustix::fs::futimens(to, &times(&stat))
}

/// Returns `true` if an open entry still has this name.
fn is_at(entry: &OwnedFd, parent: &OwnedFd, name: &Path) -> bool {
    let found = statat(parent, name, AtFlags::SYMLINK_NOFOLLOW);
    found.is_ok_and(|stat| inode_of(entry) == Some((stat.st_dev, stat.st_ino)))
}

/// Gives a directory the owner, mode and times that it had.
fn restore(directory: &OwnedFd, before: &Stat) -> rustix::io::Result<()> {
    let now = rustix::fs::fstat(directory)?;
    if (now.st_uid, now.st_gid) != (before.st_uid, before.st_gid) {
        let (uid, gid) = (Uid::from_raw(before.st_uid), Gid::from_raw(before.st_gid));
        rustix::fs::fchown(directory, Some(uid), Some(gid))?;
    }
    if now.st_mode != before.st_mode {
        rustix::fs::fchmod(directory, Mode::from_raw_mode(before.st_mode))?;
    }
    rustix::fs::futimens(directory, &times(before))
}

fn make_directory(
    parent: &OwnedFd,
    name: &Path,
    mode: u32,
    uid: u32,
    gid: u32,
) -> rustix::io::Result<()> {
    mkdirat(parent, name, Mode::from_raw_mode(0o700))?;
    let directory = open_below(parent, name)?;
    rustix::fs::fchown(&directory, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode & 0o7777))
}

/// Opens the parent of a real path in the tree, and returns the last name.
fn parent(root: &OwnedFd, place: &Path) -> rustix::io::Result<(OwnedFd, PathBuf)> {
    let (Some(above), Some(name)) = (place.parent(), place.file_name()) else {
        return Err(Errno::BUSY);
    };
    Ok((below(root, above)?, PathBuf::from(name)))
}

fn below(root: &OwnedFd, path: &Path) -> rustix::io::Result<OwnedFd> {
    open_below(root, if path.as_os_str().is_empty() { Path::new(".") } else { path })
}

fn names(directory: &OwnedFd) -> rustix::io::Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(directory)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if !matches!(name.as_slice(), b"." | b"..") {
            names.push(name);
        }
    }
    Ok(names)
}

fn as_path(name: &[u8]) -> &Path {
    use std::os::unix::ffi::OsStrExt;
    Path::new(std::ffi::OsStr::from_bytes(name))
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}
