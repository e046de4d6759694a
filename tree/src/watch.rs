//! Watches on the directories of a tree.
//!
//! Checking every file of a tree after each step takes some milliseconds for ten thousand files.
//! The kernel (`inotify`) reports the directories with changes, and only those need a check. A
//! watch is only an optimization: if it is unavailable or has missed events, or if directories were
//! created or removed, everything is checked.
//!
//! Programs without mounts have a `/dev`, a `/proc` and a `/sys` in the tree itself while they run, and
//! can neither link files into these nor out of them. So directories that appear there and vanish
//! again are ignored.
//!
//! If a program writes to a file through a mapping, the kernel reports it when the file is closed,
//! which is at the program's end at the latest. If a program writes to a file through another name,
//! the kernel reports the directory of that name. [`crate::TreeState::again_in`] detects that the
//! file has several names.

use std::collections::{BTreeSet, HashMap};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::OFlags;
use rustix::fs::inotify::{CreateFlags, ReadFlags, Reader, WatchFlags, add_watch, init};
use rustix::io::Errno;

use crate::dir::Dir;
use crate::state::TreeState;
use crate::walk::open_without_links;

/// The maximal number of watched directories. The kernel allows every user this many.
const MOST: usize = 8192;

/// The directories that a sandbox fills while a program runs.
const OWN: [&[u8]; 3] = [b"dev", b"proc", b"sys"];

/// The size in bytes of the buffer for events.
const BUFFER: usize = 16 << 10;

/// A watch on every directory of a tree.
#[derive(Debug)]
pub struct Watch {
    inotify: OwnedFd,
    /// The directories' paths, as in a state, by watch descriptor.
    paths: HashMap<i32, Vec<u8>>,
}

impl Watch {
    /// Watches the directories of a tree in this state. Returns `None` if that is impossible.
    pub fn on(root: &Dir, state: &TreeState) -> Option<Self> {
        let directories = state.directories();
        if directories.len() > MOST {
            return None;
        }
        let inotify = init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
        let mut paths = HashMap::with_capacity(directories.len());
        let flags = WatchFlags::ONLYDIR
            | WatchFlags::ATTRIB
            | WatchFlags::MODIFY
            | WatchFlags::CLOSE_WRITE
            | WatchFlags::CREATE
            | WatchFlags::DELETE
            | WatchFlags::DELETE_SELF
            | WatchFlags::MOVE
            | WatchFlags::MOVE_SELF;
        for path in directories {
            let open = OFlags::PATH | OFlags::DIRECTORY;
            let fd = open_without_links(root.as_fd(), path, open).ok()?;
            let watch = add_watch(&inotify, format!("/proc/self/fd/{}", fd.as_raw_fd()), flags);
            paths.insert(watch.ok()?, path.clone());
        }
        Some(Self { inotify, paths })
    }

    /// Returns the directories with changes since the last call, or `None` if any directory may
    /// have changed.
    pub fn touched(&mut self) -> Option<BTreeSet<Vec<u8>>> {
        let mut buffer = [MaybeUninit::uninit(); BUFFER];
        let mut events = Reader::new(&self.inotify, &mut buffer);
        let mut touched = BTreeSet::new();
        let mut is_whole = true;
        loop {
            let event = match events.next() {
                Ok(event) => event,
                Err(Errno::AGAIN) => return is_whole.then_some(touched),
                Err(Errno::INTR) => continue,
                Err(_) => return None,
            };
            let flags = event.events();
            let has_moved =
                ReadFlags::CREATE | ReadFlags::DELETE | ReadFlags::MOVED_FROM | ReadFlags::MOVED_TO;
            let comes_or_goes = ReadFlags::CREATE | ReadFlags::DELETE;
            let path = self.paths.get(&event.wd());
            let is_own = path.is_some_and(|path| OWN.contains(&path.as_slice()))
                && !flags.intersects(has_moved - comes_or_goes);
            let is_directory =
                flags.contains(ReadFlags::ISDIR) && flags.intersects(has_moved) && !is_own;
            let is_over = ReadFlags::QUEUE_OVERFLOW
                | ReadFlags::IGNORED
                | ReadFlags::UNMOUNT
                | ReadFlags::DELETE_SELF
                | ReadFlags::MOVE_SELF;
            // The remaining events are read too, since the next call is about later ones.
            match path {
                Some(path) if !is_directory && !flags.intersects(is_over) => {
                    touched.insert(path.clone());
                }
                _ => is_whole = false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;

    use super::*;

    struct Room {
        temp: tempfile::TempDir,
        state: TreeState,
        dir: Dir,
    }

    impl Room {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            for n in 0..10 {
                fs::create_dir_all(temp.path().join(format!("tree/d{n}/e"))).unwrap();
                fs::write(temp.path().join(format!("tree/d{n}/e/f")), "text").unwrap();
            }
            fs::create_dir(temp.path().join("tree/dev")).unwrap();
            let dir = Dir::open(&temp.path().join("tree")).unwrap();
            let state = TreeState::of(&dir).unwrap();
            state.settle(&Dir::open(temp.path()).unwrap()).unwrap();
            Self { temp, state, dir }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.temp.path().join("tree").join(name)
        }

        /// Makes a change, and compares the state found with the watch to a complete one.
        fn check(&self, watched: bool, change: impl FnOnce()) {
            let Some(mut watch) = Watch::on(&self.dir, &self.state) else { return };
            assert_eq!(watch.touched(), Some(BTreeSet::new()));
            change();
            let whole = self.state.again(&self.dir).unwrap();
            let expected = self.state.touched(&whole);
            let seen = watch.touched().and_then(|touched| {
                let now = self.state.again_in(&self.dir, &touched).unwrap()?;
                Some(self.state.touched(&now))
            });
            assert_eq!(seen.is_some(), watched);
            if let Some(seen) = seen {
                assert_eq!(seen, expected);
            }
            assert!(!expected.is_empty() && (!watched || watch.touched() == Some(BTreeSet::new())));
        }
    }

    #[test]
    fn a_watch_finds_what_a_look_at_everything_finds() {
        let append = |path: PathBuf| {
            fs::File::options().append(true).open(path).unwrap().write_all(b"x").unwrap();
        };
        let room = Room::new();
        room.check(true, || append(room.path("d1/e/f")));
        let room = Room::new();
        room.check(true, || fs::write(room.path("d1/e/new"), "x").unwrap());
        let room = Room::new();
        room.check(true, || fs::remove_file(room.path("d2/e/f")).unwrap());
        let room = Room::new();
        room.check(true, || {
            fs::rename(room.path("d3/e/f"), room.path("d4/moved")).unwrap();
        });
        let room = Room::new();
        room.check(true, || {
            fs::set_permissions(room.path("d5/e"), PermissionsExt::from_mode(0o700)).unwrap();
            fs::set_permissions(room.path("d6/e/f"), PermissionsExt::from_mode(0o700)).unwrap();
        });
    }

    #[test]
    fn directories_of_a_sandbox_come_and_go() {
        let room = Room::new();
        room.check(true, || {
            fs::create_dir(room.path("dev/shm")).unwrap();
            fs::write(room.path("dev/shm/file"), "x").unwrap();
            fs::rename(room.path("d1/e/f"), room.path("dev/shm/f")).unwrap();
            fs::write(room.path("dev/shm/f"), "changed").unwrap();
            fs::rename(room.path("dev/shm/f"), room.path("d1/e/f")).unwrap();
            fs::remove_dir_all(room.path("dev/shm")).unwrap();
        });
        let room = Room::new();
        room.check(false, || fs::create_dir(room.path("dev/left")).unwrap());
        let room = Room::new();
        room.check(false, || fs::rename(room.path("d1/e"), room.path("dev/moved")).unwrap());
    }

    #[test]
    fn where_a_watch_does_not_do_everything_is_looked_at() {
        let room = Room::new();
        room.check(false, || fs::create_dir(room.path("d1/new")).unwrap());
        let room = Room::new();
        room.check(false, || fs::rename(room.path("d1/e"), room.path("d2/moved")).unwrap());
        let room = Room::new();
        room.check(false, || {
            fs::hard_link(room.path("d1/e/f"), room.path("d2/link")).unwrap();
            fs::write(room.path("d2/link"), "through the other name").unwrap();
        });
        let room = Room::new();
        room.check(false, || fs::remove_dir_all(room.path("d7")).unwrap());
    }
}
