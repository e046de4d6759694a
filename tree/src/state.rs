//! The state of a tree, with which a later comparison finds changes.
//!
//! Without overlayfs, a step works in a complete tree of its own, and its changes are found by
//! comparing. A state holds the result of `stat` for every entry. No process can set the status
//! change time (`ctime`) of a file. So a file with the same `ctime` and inode is unchanged, and its
//! content need not be read.
//!
//! # Clocks
//!
//! File systems take times from a clock that advances every few milliseconds, or every second. A
//! file that changes twice within a tick looks the same after both changes. So the tree must not
//! change before the clock has advanced beyond the latest change in the state.
//! [`TreeState::settle`] waits for that. It observes the file system's clock by creating a file.
//!
//! On Linux 6.13 and later, a file gets a distinct time for a change after its previous time was
//! read (multigrain timestamps, on ext4, XFS, btrfs and tmpfs). A state has read all times, so no
//! waiting is necessary.
//!
//! # Further states
//!
//! If the `ctime` of a directory is unchanged, its names are unchanged, and are not read again.
//! Every entry in it is checked nevertheless, because a change to a file's content leaves no trace
//! in its directory.
//!
//! # Directories
//!
//! A sandbox adds mount points to directories, removes them and restores the times. Only the `ctime`
//! then tells that. So a directory with the same attributes, extended ones included, counts as
//! unchanged. Otherwise every step would leave the directories of the sandbox in its layer.

use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rayon::prelude::*;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::attributes::{Xattr, xattrs};
use crate::dir::Dir;
use crate::error::{Error, Result};
use crate::metadata::{FileKind, Metadata, Timestamp};
use crate::walk::{list_names, open_without_links};
use crate::{edit, names, path_limit};

/// The number of directories from which other threads help.
const FEW: usize = 16;

/// The longest time for which the clock of a file system may stand still. File systems with owners
/// have a resolution of at least a second.
const LONGEST_TICK: Duration = Duration::from_millis(2500);

/// The state of every entry of a tree except its root.
#[derive(Clone, Debug, Default)]
pub struct TreeState {
    /// The directories by path, without a leading slash. The root has an empty path.
    directories: HashMap<Vec<u8>, Arc<Directory>>,
}

/// A difference between two states of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The path, without a leading slash.
    pub path: Vec<u8>,
    /// `true` if the entry was removed. The entries of a removed directory are not listed.
    pub gone: bool,
}

#[derive(Debug)]
struct Directory {
    look: Look,
    /// The extended attributes, sorted by name.
    xattrs: Vec<Xattr>,
    /// The entries, sorted by name.
    entries: Vec<(Vec<u8>, Look)>,
}

impl Directory {
    fn of(&self, name: &[u8]) -> Option<&Look> {
        let at = self.entries.binary_search_by(|(known, _)| known.as_slice().cmp(name)).ok()?;
        Some(&self.entries[at].1)
    }

    /// Returns `true` if a later state has the same attributes. The entries may differ.
    fn has_same_attributes(&self, later: &Self) -> bool {
        // Removed entries leave traces in these three.
        let Look { links, size, ctime, .. } = later.look;
        Look { links, size, ctime, ..self.look } == later.look && self.xattrs == later.xattrs
    }
}

/// The metadata that changes whenever an entry is touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    kind: FileKind,
    mode: u32,
    uid: u32,
    gid: u32,
    inode: u64,
    links: u64,
    size: u64,
    mtime: Timestamp,
    ctime: Timestamp,
}

impl From<Metadata> for Look {
    fn from(metadata: Metadata) -> Self {
        let Metadata { kind, mode, owner, size, mtime, ctime, inode, links, .. } = metadata;
        Self { kind, mode, uid: owner.uid, gid: owner.gid, inode, links, size, mtime, ctime }
    }
}

/// A directory with its path, and the paths of its subdirectories.
type VisitedDirectory = (Vec<u8>, Arc<Directory>, Vec<Vec<u8>>);

impl TreeState {
    /// Reads the state of a tree, which must not change meanwhile.
    ///
    /// # Errors
    /// Fails if an entry's metadata can't be read.
    pub fn of(root: &Dir) -> Result<Self> {
        Self::default().again(root)
    }

    /// Reads the state of the same tree again. The tree must not change meanwhile.
    ///
    /// # Errors
    /// Fails if an entry's metadata can't be read.
    pub fn again(&self, root: &Dir) -> Result<Self> {
        let mut directories = HashMap::with_capacity(self.directories.len());
        let mut level = vec![Vec::new()];
        while !level.is_empty() {
            let look = |path: Vec<u8>| self.look_at(root.as_fd(), path);
            let seen: Vec<VisitedDirectory> = if level.len() < FEW {
                level.into_iter().map(look).collect::<Result<_>>()?
            } else {
                level.into_par_iter().map(look).collect::<Result<_>>()?
            };
            level = Vec::new();
            for (path, directory, below) in seen {
                directories.insert(path, directory);
                level.extend(below);
            }
        }
        Ok(Self { directories })
    }

    /// Reads the state of some directories of the same tree again, namely those that a
    /// [`Watch`](crate::Watch) has reported. Returns `None` if that isn't sufficient: a touched
    /// file has several names, or a directory was replaced.
    ///
    /// # Errors
    /// Fails if the metadata of an entry can't be read.
    pub fn again_in(&self, root: &Dir, paths: &BTreeSet<Vec<u8>>) -> Result<Option<Self>> {
        // A change in a directory also shows in the entries of its parent.
        let parents = paths.iter().filter_map(|path| {
            let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
            (!path.is_empty()).then(|| path[..slash].to_vec())
        });
        let all: BTreeSet<Vec<u8>> = parents.chain(paths.iter().cloned()).collect();
        let mut later = self.clone();
        for path in all {
            let Some(before) = self.directories.get(&path) else { return Ok(None) };
            let (path, now, below) = self.look_at(root.as_fd(), path)?;
            let is_known = below.iter().all(|below| self.directories.contains_key(below));
            let had = before.entries.iter().filter(|(_, look)| look.kind == FileKind::Directory);
            let is_linked = |(name, look): &(Vec<u8>, Look)| {
                look.kind != FileKind::Directory && look.links > 1 && before.of(name) != Some(look)
            };
            if !is_known || had.count() != below.len() || now.entries.iter().any(is_linked) {
                return Ok(None);
            }
            later.directories.insert(path, now);
        }
        Ok(Some(later))
    }

    /// Returns the paths of all device nodes, without a leading slash.
    pub fn device_nodes(&self) -> Vec<Vec<u8>> {
        let is_node = |look: &Look| {
            matches!(look.kind, FileKind::CharDevice { .. } | FileKind::BlockDevice { .. })
        };
        let directories = self.directories.iter();
        let nodes = directories.flat_map(|(path, directory)| {
            let nodes = directory.entries.iter().filter(|(_, look)| is_node(look));
            nodes.map(|(name, _)| names::join(path, name))
        });
        nodes.collect()
    }

    /// Returns an iterator over the paths of all directories.
    pub(crate) fn directories(&self) -> impl ExactSizeIterator<Item = &Vec<u8>> {
        self.directories.keys()
    }

    fn look_at(&self, root: BorrowedFd<'_>, path: Vec<u8>) -> Result<VisitedDirectory> {
        let failed = |errno| Error::io("look at", names::path(&path), errno);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        let fd = open_without_links(root, &path, flags).map_err(failed)?;
        let look = Look::from(Metadata::of_fd(fd.as_fd()).map_err(failed)?);
        let before = self.directories.get(&path);
        let directory = match before {
            Some(before) if (before.look.inode, before.look.ctime) == (look.inode, look.ctime) => {
                again(before, look, fd.as_fd())
            }
            _ => read(look, fd.as_fd()).map(Arc::new),
        };
        let directory = directory.map_err(failed)?;
        directory
            .entries
            .iter()
            .try_for_each(|(name, _)| path_limit::check_name(&path, name, 0))?;
        let is_dir = |look: &Look| look.kind == FileKind::Directory;
        let below = directory.entries.iter().filter(|(_, look)| is_dir(look));
        let below = below.map(|(name, _)| names::join(&path, name)).collect();
        Ok((path, directory, below))
    }

    /// Returns the changes between this state and a later one, in the order of paths: parents
    /// precede their contents.
    pub fn touched(&self, later: &Self) -> Vec<Touched> {
        let mut touched = Vec::new();
        for (path, now) in &later.directories {
            match self.directories.get(path) {
                Some(before) if Arc::ptr_eq(before, now) => {}
                Some(before) => compare(path, &before.entries, &now.entries, &mut touched),
                None => compare(path, &[], &now.entries, &mut touched),
            }
        }
        touched.retain(|touched| touched.gone || !self.has_same_directory(later, &touched.path));
        touched.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        touched
    }

    /// Returns `true` if the root itself has the same attributes in a later state.
    pub fn has_same_root(&self, later: &Self) -> bool {
        self.has_same_directory(later, b"")
    }

    /// Returns `true` if a path is that of a directory in both states, with the same attributes.
    fn has_same_directory(&self, later: &Self, path: &[u8]) -> bool {
        match (self.directories.get(path), later.directories.get(path)) {
            (Some(before), Some(now)) => before.has_same_attributes(now),
            _ => false,
        }
    }

    /// Waits until further changes in the tree can be distinguished from those in this state.
    /// `beside` is a directory on the same file system, outside of the tree.
    ///
    /// # Errors
    /// Fails if no file can be created in `beside`, or if the file system's clock stands still.
    pub fn settle(&self, beside: &Dir) -> Result<()> {
        let looks = self.directories.values().flat_map(|directory| {
            let own = std::iter::once(directory.look.ctime);
            own.chain(directory.entries.iter().map(|(_, look)| look.ctime))
        });
        let Some(latest) = looks.max() else { return Ok(()) };
        let failed = |errno| Error::io("make a file in", Path::new("/"), errno);
        let beside = beside.as_fd();
        if tick(beside).map_err(failed)? > latest || tells_changes_apart(beside).map_err(failed)? {
            return Ok(());
        }
        let began = Instant::now();
        while tick(beside).map_err(failed)? <= latest {
            if began.elapsed() > LONGEST_TICK {
                let problem = "the clock of the file system stands still, or was set back";
                return Err(Error::invalid("/", problem));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// Returns `true` if every change after a read of the time changes the time.
fn tells_changes_apart(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    const NAME: &[u8] = b".times";
    let fd = edit::create(dir, NAME)?;
    let time = || Metadata::of_fd(fd.as_fd()).map(|metadata| metadata.ctime);
    let mut last = time();
    let mut apart = true;
    // A single pair of changes may differ because the clock has just advanced.
    for mode in [0o400, 0o600, 0o400, 0o600] {
        let changed = rustix::fs::fchmod(&fd, Mode::from_raw_mode(mode)).and_then(|()| time());
        apart = apart && matches!((&last, &changed), (Ok(last), Ok(changed)) if last < changed);
        last = changed;
    }
    rustix::fs::unlinkat(dir, names::path(NAME), rustix::fs::AtFlags::empty())?;
    last.map(|_| apart)
}

/// Returns the time that a change would get now.
fn tick(dir: BorrowedFd<'_>) -> Result<Timestamp, Errno> {
    const NAME: &[u8] = b".tick";
    let fd = edit::create(dir, NAME)?;
    let now = Metadata::of_fd(fd.as_fd()).map(|metadata| metadata.ctime);
    rustix::fs::unlinkat(dir, names::path(NAME), rustix::fs::AtFlags::empty())?;
    now
}

fn read(look: Look, fd: BorrowedFd<'_>) -> Result<Directory, Errno> {
    let names = list_names(fd)?;
    let entry = |name: Vec<u8>| match Metadata::of_entry(fd, &name) {
        Ok(metadata) => Some(Ok((name, Look::from(metadata)))),
        // File systems in user space may list names without entries.
        Err(Errno::NOENT) => None,
        Err(errno) => Some(Err(errno)),
    };
    let entries = names.into_iter().filter_map(entry).collect::<Result<_, Errno>>()?;
    Ok(Directory { look, xattrs: xattrs(fd)?, entries })
}

/// Reads the state of a directory whose names are unchanged.
fn again(before: &Arc<Directory>, look: Look, fd: BorrowedFd<'_>) -> Result<Arc<Directory>, Errno> {
    let looks = before.entries.iter().map(|(name, _)| Metadata::of_entry(fd, name).map(Look::from));
    let looks = match looks.collect::<Result<Vec<_>, _>>() {
        Err(Errno::NOENT) => return read(look, fd).map(Arc::new),
        looks => looks?,
    };
    if look == before.look && before.entries.iter().map(|(_, look)| look).eq(&looks) {
        return Ok(Arc::clone(before));
    }
    let names = before.entries.iter().map(|(name, _)| name.clone());
    let entries = names.zip(looks).collect();
    Ok(Arc::new(Directory { look, xattrs: before.xattrs.clone(), entries }))
}

fn compare(
    path: &[u8],
    before: &[(Vec<u8>, Look)],
    now: &[(Vec<u8>, Look)],
    touched: &mut Vec<Touched>,
) {
    let mut note =
        |name: &[u8], gone| touched.push(Touched { path: names::join(path, name), gone });
    let (mut before, mut now) = (before.iter().peekable(), now.iter().peekable());
    loop {
        match (before.peek(), now.peek()) {
            (None, None) => return,
            (Some((old, was)), Some((new, is))) if old == new => {
                if was != is {
                    note(new, false);
                }
                before.next();
                now.next();
            }
            (Some((old, _)), Some((new, _))) if old < new => {
                note(old, true);
                before.next();
            }
            (Some((old, _)), None) => {
                note(old, true);
                before.next();
            }
            (_, Some((new, _))) => {
                note(new, false);
                now.next();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Room {
        temp: tempfile::TempDir,
        tree: std::path::PathBuf,
        dir: Dir,
        beside: Dir,
    }

    impl Room {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let tree = temp.path().join("tree");
            for directory in ["a/b", "gone/below", "same"] {
                std::fs::create_dir_all(tree.join(directory)).unwrap();
            }
            for n in 0..40 {
                std::fs::create_dir(tree.join(format!("same/{n}"))).unwrap();
                std::fs::write(tree.join(format!("same/{n}/file")), "text").unwrap();
            }
            for file in ["a/b/file", "a/deleted", "gone/below/file", "kind"] {
                std::fs::write(tree.join(file), "text").unwrap();
            }
            let (dir, beside) = (Dir::open(&tree).unwrap(), Dir::open(temp.path()).unwrap());
            Self { temp, tree, dir, beside }
        }

        fn state(&self) -> TreeState {
            let state = TreeState::of(&self.dir).unwrap();
            state.settle(&self.beside).unwrap();
            state
        }
    }

    fn told(touched: &[Touched]) -> Vec<String> {
        let mark = |gone| if gone { "-" } else { "" };
        touched
            .iter()
            .map(|t| format!("{}{}", mark(t.gone), String::from_utf8_lossy(&t.path)))
            .collect()
    }

    #[test]
    fn nothing_is_touched_by_looking() {
        let room = Room::new();
        let state = room.state();
        let later = state.again(&room.dir).unwrap();
        assert_eq!(state.touched(&later), []);
        assert!(state.has_same_root(&later));
        assert_eq!(std::fs::read_dir(room.temp.path()).unwrap().count(), 1, "no file is left");
    }

    #[test]
    fn all_kinds_of_changes_are_found() {
        let room = Room::new();
        let state = room.state();
        let at = |path: &str| room.tree.join(path);
        // The size and the time stay the same.
        let time = std::fs::metadata(at("a/b/file")).unwrap().modified().unwrap();
        std::fs::write(at("a/b/file"), "TEXT").unwrap();
        std::fs::File::options()
            .write(true)
            .open(at("a/b/file"))
            .unwrap()
            .set_modified(time)
            .unwrap();
        std::fs::remove_file(at("a/deleted")).unwrap();
        std::fs::remove_dir_all(at("gone")).unwrap();
        std::fs::remove_file(at("kind")).unwrap();
        std::fs::create_dir(at("kind")).unwrap();
        std::fs::write(at("kind/new"), "").unwrap();
        std::fs::set_permissions(at("same/7"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::rename(at("same/9"), at("same/moved")).unwrap();
        let later = state.again(&room.dir).unwrap();
        assert_eq!(
            told(&state.touched(&later)),
            [
                "a",
                "a/b/file",
                "-a/deleted",
                "-gone",
                "kind",
                "kind/new",
                "same",
                "same/7",
                "-same/9",
                "same/moved",
                "same/moved/file",
            ]
        );
        assert!(!state.has_same_root(&later));
        assert_eq!(later.touched(&later.again(&room.dir).unwrap()), []);
    }

    #[test]
    fn a_directory_is_touched_if_its_attributes_are() {
        let room = Room::new();
        let state = room.state();
        let visit = |path: &str| {
            let path = room.tree.join(path);
            let modified = std::fs::metadata(&path).unwrap().modified().unwrap();
            std::fs::create_dir(path.join("stub")).unwrap();
            std::fs::write(path.join("stub/file"), "").unwrap();
            std::fs::remove_dir_all(path.join("stub")).unwrap();
            let directory = std::fs::File::open(path).unwrap();
            directory.set_modified(modified).unwrap();
            directory
        };
        let _ = [visit(""), visit("a")];
        let later = state.again(&room.dir).unwrap();
        assert_eq!(state.touched(&later), []);
        assert!(state.has_same_root(&later));
        let flags = rustix::fs::XattrFlags::empty();
        for path in ["", "a"] {
            match rustix::fs::fsetxattr(visit(path), "user.test", b"x", flags) {
                Err(Errno::OPNOTSUPP) => return,
                set => set.unwrap(),
            }
        }
        let now = state.again(&room.dir).unwrap();
        assert_eq!(told(&state.touched(&now)), ["a"]);
        assert!(!state.has_same_root(&now));
        rustix::fs::fsetxattr(visit("a"), "user.test", b"y", flags).unwrap();
        assert_eq!(told(&now.touched(&now.again(&room.dir).unwrap())), ["a"]);
    }

    #[test]
    fn changes_right_after_settling_are_found() {
        let room = Room::new();
        let mut state = room.state();
        for round in 0..50 {
            std::fs::write(room.tree.join("a/b/file"), format!("{round:04}")).unwrap();
            let later = state.again(&room.dir).unwrap();
            assert_eq!(told(&state.touched(&later)), ["a/b/file"], "round {round}");
            later.settle(&room.beside).unwrap();
            state = later;
        }
    }
}
