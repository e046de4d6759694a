//! Directories in the tree that show the names of the kernel's directories.
//!
//! A program that lists a directory of `/proc` gets a descriptor of such a directory: it has entries
//! of the same names and kinds, without content. Paths that begin at the descriptor lead the
//! supervisor to the kernel's files, because a skeleton's path ends with that of the directory that
//! it shows: `/proc/.kiln/7/1234/fd` stands for `/proc/1234/fd`.
//!
//! The program can change skeletons as any other directory. This affects only what it sees.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use kiln_tree::remove_all;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

/// The directory below `/proc` and `/sys` of the tree that contains the skeletons.
pub(super) const SKELETONS: &[u8] = b".kiln";

/// The maximum number of skeletons that exist at the same time.
const KEPT: usize = 64;

/// The skeletons of a file system.
#[derive(Debug)]
pub(super) struct Skeletons {
    /// The directory in place of the file system, in the tree.
    top: OwnedFd,
    /// The directory of the skeletons.
    all: Option<OwnedFd>,
    next: u64,
    kept: VecDeque<u64>,
}

/// An entry of a skeleton.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: FileType,
    /// The target of a link.
    pub(super) target: Vec<u8>,
}

impl Skeletons {
    pub(super) fn new(top: OwnedFd) -> Self {
        Self { top, all: None, next: 0, kept: VecDeque::new() }
    }

    /// Makes a directory with these entries, whose path ends with `names`, and opens it.
    pub(super) fn make(
        &mut self,
        names: &[Vec<u8>],
        entries: &[Entry],
    ) -> rustix::io::Result<OwnedFd> {
        let number = self.next;
        self.next += 1;
        let all = match self.all.take() {
            Some(all) => all,
            None => directory(&self.top, SKELETONS, 0o711)?,
        };
        let all = self.all.insert(all);
        let mut place = directory(&*all, number.to_string().as_bytes(), 0o755)?;
        for name in names {
            place = directory(&place, name, 0o755)?;
        }
        for entry in entries {
            create(&place, entry)?;
        }
        rustix::fs::fchmod(&place, Mode::from_raw_mode(0o555))?;
        self.kept.push_back(number);
        if self.kept.len() > KEPT
            && let Some(oldest) = self.kept.pop_front()
        {
            // The program may have removed it.
            let _ = remove_all(all.as_fd(), oldest.to_string().as_bytes());
        }
        Ok(place)
    }
}

/// Makes a directory and opens it for reading.
fn directory(parent: impl AsFd, name: &[u8], mode: u32) -> rustix::io::Result<OwnedFd> {
    match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(mode)) {
        Err(Errno::EXIST) => {}
        other => other?,
    }
    open(parent, name)
}

fn open(parent: impl AsFd, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat2(parent, name, flags, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

fn create(parent: &OwnedFd, entry: &Entry) -> rustix::io::Result<()> {
    let name = entry.name.as_slice();
    let made = match entry.kind {
        FileType::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o555)),
        FileType::Symlink => rustix::fs::symlinkat(entry.target.as_slice(), parent, name),
        _ => {
            let mode = Mode::from_raw_mode(0o444);
            rustix::fs::mknodat(parent, name, FileType::RegularFile, mode, 0)
        }
    };
    match made {
        Err(Errno::EXIST) => Ok(()),
        other => other,
    }
}
