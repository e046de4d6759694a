//! The container's root during its setup.

use std::collections::BTreeSet;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

use super::descriptors::path_of;
use super::mount_handle::MountHandle;
use super::sources::open_inside;
use super::stubs::{CopiedUp, CreatedStubs, Look, keeping_times, open_below};
use super::wire::Failure;

/// The kernel's limit on links in a path.
pub(super) const MAX_LINKS: u32 = 40;

/// The file to create in place of a missing one.
#[derive(Clone, Copy, Debug)]
pub(super) enum Missing {
    /// A directory that is removed afterwards.
    StubDirectory,
    /// A file that is removed afterwards.
    StubFile,
    /// A directory that stays and has this owner.
    Directory {
        /// The owner's user ID.
        uid: u32,
        /// The owner's group ID.
        gid: u32,
    },
}

/// The container's root file system during its setup.
pub(super) struct Root {
    fd: OwnedFd,
    /// The canonical path that the root is attached at.
    anchor: PathBuf,
    device: u64,
    /// The directory that receives an overlay's changes.
    upper: Option<OwnedFd>,
    made: CreatedStubs,
    /// The directories that are known to be in the upper directory or in `made`.
    known: BTreeSet<PathBuf>,
}

impl Root {
    /// Attaches a root file system at `anchor`.
    pub(super) fn attach(
        mount: &MountHandle,
        anchor: &Path,
        upper: Option<&Path>,
    ) -> Result<Self, Failure> {
        mount.attach_at(anchor)?;
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(anchor, open, Mode::empty())
            .map_err(Failure::doing("open the root file system"))?;
        let upper = upper
            .map(|path| rustix::fs::open(path, open, Mode::empty()))
            .transpose()
            .map_err(Failure::doing("open upper directory"))?;
        let device = device_of(&fd)?;
        let anchor = anchor.to_owned();
        Ok(Self {
            fd,
            anchor,
            device,
            upper,
            made: CreatedStubs::default(),
            known: BTreeSet::new(),
        })
    }

    /// Opens a directory as a root file system without attaching it.
    pub(super) fn of_directory(path: &Path) -> Result<Self, Failure> {
        let open = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, open, Mode::empty())
            .map_err(Failure::doing("open the root file system"))?;
        let device = device_of(&fd)?;
        let anchor = path_of(&fd).map_err(Failure::doing("open the root file system"))?;
        Ok(Self {
            fd,
            anchor: OsString::from_vec(anchor).into(),
            device,
            upper: None,
            made: CreatedStubs::default(),
            known: BTreeSet::new(),
        })
    }

    /// Returns the descriptor of the root directory.
    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Returns the list of created files and directories.
    pub(super) fn into_made(self) -> CreatedStubs {
        self.made
    }

    /// Attaches a mount at `target`, a path in the container. Creates `target` if it is missing.
    pub(super) fn mount(&mut self, mount: &MountHandle, target: &Path) -> Result<(), Failure> {
        let target = clean(target);
        if target == Path::new("/") {
            return Err(Failure::new("nothing can be mounted over the root file system"));
        }
        let missing =
            if mount.is_directory()? { Missing::StubDirectory } else { Missing::StubFile };
        let place = self.open_or_make(&target, missing)?;
        let action = format!("mount at {}", target.display());
        let kind = rustix::fs::fstatfs(&place).map_err(Failure::doing(&action))?;
        if kind.f_type as u64 == PROC_SUPER_MAGIC {
            return Err(Failure::new(format!("{action}: nothing can be mounted in /proc")));
        }
        mount.attach(&place).map_err(Failure::doing(&action))
    }

    /// Attaches one of the sandbox's own mounts at a directory of the root. Fails if that is a
    /// link.
    pub(super) fn mount_own(&mut self, mount: &MountHandle, name: &str) -> Result<(), Failure> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let action = format!("mount /{name}");
        let place = match rustix::fs::openat2(&self.fd, name, flags, Mode::empty(), resolve) {
            Err(Errno::NOENT) => {
                self.open_or_make(&Path::new("/").join(name), Missing::StubDirectory)?
            }
            Err(Errno::LOOP | Errno::NOTDIR) => {
                return Err(Failure::new(format!("{action}: it is no directory in the image")));
            }
            other => other.map_err(Failure::doing(&action))?,
        };
        mount.attach(&place).map_err(Failure::doing(&action))
    }

    /// Opens a path in the container and creates its missing parts.
    pub(super) fn open_or_make(
        &mut self,
        path: &Path,
        missing: Missing,
    ) -> Result<OwnedFd, Failure> {
        let path = clean(path);
        self.walk(&path, missing, &mut 0)
            .map_err(Failure::doing(&format!("create {} in the root file system", path.display())))
    }

    fn walk(
        &mut self,
        path: &Path,
        missing: Missing,
        links: &mut u32,
    ) -> rustix::io::Result<OwnedFd> {
        match open_inside(&self.fd, path, OFlags::PATH) {
            Err(Errno::NOENT) => {}
            other => return other,
        }
        let (Some(parent_path), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Errno::NOENT);
        };
        let parent_missing = match missing {
            Missing::StubFile => Missing::StubDirectory,
            other => other,
        };
        let parent = self.walk(parent_path, parent_missing, links)?;
        match self.make(&parent, Path::new(name), missing) {
            Err(Errno::EXIST) => {}
            other => return other,
        }
        // The entry is there now. Either it is a dangling link, whose target is created, or another
        // container has made it in a directory that both have mounted.
        *links += 1;
        if *links > MAX_LINKS {
            return Err(Errno::LOOP);
        }
        let link = match rustix::fs::readlinkat(&parent, name, Vec::new()) {
            Err(Errno::INVAL) => return open_inside(&self.fd, path, OFlags::PATH),
            link => link?,
        };
        let target = clean(&parent_path.join(path_from(link)));
        self.walk(&target, missing, links)
    }

    /// Creates `name` in `parent`, a directory inside the root.
    fn make(
        &mut self,
        parent: &OwnedFd,
        name: &Path,
        missing: Missing,
    ) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let parent = rustix::fs::openat(parent, ".", flags, Mode::empty())?;
        let place = self.place_of(&parent)?;
        match missing {
            Missing::StubDirectory | Missing::StubFile => {
                if let Some(place) = &place {
                    self.note_copied_up(place)?;
                }
                keeping_times(&parent, || match missing {
                    Missing::StubFile => {
                        let flags =
                            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                        let mode = Mode::from_raw_mode(0o644);
                        rustix::fs::openat(&parent, name, flags, mode).map(drop)
                    }
                    _ => rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)),
                })?;
                if let Some(place) = place {
                    self.made.stubs.push(place.join(name));
                }
            }
            Missing::Directory { uid, gid } => {
                rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                let flags = AtFlags::SYMLINK_NOFOLLOW;
                rustix::fs::chownat(&parent, name, Some(uid), Some(gid), flags)?;
            }
        }
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
        let flags = OFlags::PATH | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        rustix::fs::openat2(&parent, name, flags, Mode::empty(), resolve)
    }

    /// Returns the real path of a directory relative to the root. Returns `None` if it is on
    /// another mount, such as a volume, which isn't part of the layer.
    fn place_of(&self, directory: &OwnedFd) -> rustix::io::Result<Option<PathBuf>> {
        if rustix::fs::fstat(directory)?.st_dev != self.device {
            return Ok(None);
        }
        let real = PathBuf::from(OsString::from_vec(path_of(directory)?));
        Ok(real.strip_prefix(&self.anchor).ok().map(Path::to_owned))
    }

    /// Records the state of a directory and those above it before they are copied up.
    fn note_copied_up(&mut self, place: &Path) -> rustix::io::Result<()> {
        let Some(upper) = &self.upper else { return Ok(()) };
        let mut found = Vec::new();
        for path in place.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            if self.known.contains(path) || self.made.stubs.iter().any(|stub| stub == path) {
                continue;
            }
            match open_below(upper, path) {
                Err(Errno::NOENT) => {
                    let directory = open_below(&self.fd, path)?;
                    let look = Look::of(&directory)?;
                    found.push(CopiedUp { path: path.to_owned(), look });
                }
                other => drop(other?),
            }
            self.known.insert(path.to_owned());
        }
        found.reverse();
        self.made.copied_up.extend(found);
        Ok(())
    }
}

const PROC_SUPER_MAGIC: u64 = 0x9fa0;

fn device_of(fd: impl AsFd) -> Result<u64, Failure> {
    rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)
        .map(|stat| stat.st_dev)
        .map_err(Failure::doing("look at the root file system"))
}

/// Makes a path absolute and resolves `.` and `..` in its text, as BuildKit does.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

/// Converts a path from the kernel.
pub(super) fn path_from(text: CString) -> PathBuf {
    OsString::from_vec(text.into_bytes()).into()
}

/// Returns `true` if `fd` is a pipe.
pub(super) fn is_pipe(fd: impl AsFd) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_by_text() {
        for (path, expected) in
            [("a/b", "/a/b"), ("/a/../../b/.", "/b"), ("", "/"), ("/..", "/"), ("//x//y/", "/x/y")]
        {
            assert_eq!(clean(Path::new(path)), Path::new(expected));
        }
    }

    #[test]
    fn containers_that_share_a_directory_make_mount_points_side_by_side() {
        let directory = tempfile::tempdir().unwrap();
        let barrier = std::sync::Barrier::new(8);
        for round in 0..50 {
            std::thread::scope(|scope| {
                for _ in 0..8 {
                    scope.spawn(|| {
                        let mut root = Root::of_directory(directory.path()).unwrap();
                        let path = format!("/cache{round}/a/b");
                        barrier.wait();
                        root.open_or_make(Path::new(&path), Missing::StubDirectory).unwrap();
                    });
                }
            });
        }
    }
}
