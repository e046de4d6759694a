//! The directory of a program outside of its root: the real working directory of its processes.
//!
//! It holds the links that the kernel follows in place of the program's paths, the file systems in
//! memory that nothing can be mounted for, and `/dev`. It is locked while its supervisor lives. The
//! next supervisor removes those that no process locks.

#![expect(clippy::disallowed_methods, reason = "the files are kiln's own")]

use std::cell::Cell;
use std::fs::{DirEntry, File};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock, mkdirat, openat, symlinkat};
use rustix::io::Errno;

/// The start of the names of locked directories.
const PREFIX: &str = "program-";

/// The start of the names of directories that aren't locked yet.
const NEW: &str = "new-";

/// The time after which a directory that isn't locked yet is one of a supervisor that was killed.
const STARTING: Duration = Duration::from_mins(1);

/// The subdirectory of links to files and sockets. No program has this name.
const LINKS: &str = ".kiln\u{1}links";

/// A directory that is removed when the value is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    fd: OwnedFd,
    links: OwnedFd,
    /// The number of the next link.
    next: Cell<u64>,
}

impl Scratch {
    /// Creates a directory below `parent`, and removes those of programs that have ended.
    pub(super) fn new(parent: &Path) -> io::Result<Self> {
        clean(parent);
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let time = time.map_err(io::Error::other)?.as_nanos();
        let name = format!("{}-{time}", std::process::id());
        let (new, path) =
            (parent.join(format!("{NEW}{name}")), parent.join(format!("{PREFIX}{name}")));
        std::fs::create_dir(&new)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(&new, flags, Mode::empty())?;
        flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        // Other supervisors remove directories with this name that aren't locked.
        std::fs::rename(&new, &path)?;
        let links = make_directory(&fd, LINKS)?;
        Ok(Self { path, fd, links, next: Cell::new(0) })
    }

    pub(super) fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Creates a directory in this one.
    pub(super) fn directory(&self, name: &str) -> io::Result<OwnedFd> {
        Ok(make_directory(&self.fd, name)?)
    }

    /// Returns a new file without a name.
    pub(super) fn nameless(&self) -> io::Result<File> {
        let mode = Mode::from_raw_mode(0o700);
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        match openat(&self.fd, ".", flags | OFlags::TMPFILE, mode) {
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT) => {
                let name = format!("copy{}", self.number());
                let file = openat(&self.links, &name, flags | OFlags::CREATE | OFlags::EXCL, mode)?;
                rustix::fs::unlinkat(&self.links, &name, rustix::fs::AtFlags::empty())?;
                Ok(file.into())
            }
            other => Ok(other?.into()),
        }
    }

    /// Creates the link that the execution of a program of this name follows.
    pub(super) fn link_program(&self, name: &[u8], target: &str) -> Result<(), Errno> {
        match symlinkat(target, &self.fd, name) {
            Err(Errno::EXIST) => Ok(()),
            other => other,
        }
    }

    /// Creates a link to a file of the host. Returns its path from the working directory.
    pub(super) fn link(&self, target: &[u8]) -> Result<String, Errno> {
        let name = self.number().to_string();
        symlinkat(target, &self.links, &name)?;
        Ok(format!("{LINKS}/{name}"))
    }

    /// Returns the path of a new entry from the working directory, and its name in [`Self::links`].
    pub(super) fn entry(&self) -> (String, String) {
        let name = self.number().to_string();
        (format!("{LINKS}/{name}"), name)
    }

    /// Returns the directory of the links.
    pub(super) fn links(&self) -> &OwnedFd {
        &self.links
    }

    fn number(&self) -> u64 {
        self.next.replace(self.next.get() + 1)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.path);
    }
}

fn make_directory(parent: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    mkdirat(parent, name, Mode::from_raw_mode(0o755))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(parent, name, flags, Mode::empty())
}

/// Removes directories whose supervisors have ended.
fn clean(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let has = |prefix: &str| name.as_encoded_bytes().starts_with(prefix.as_bytes());
        let is_old = |entry: &DirEntry| {
            let made = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            made.and_then(|made| made.elapsed().ok()).is_some_and(|age| age > STARTING)
        };
        if !(has(PREFIX) || (has(NEW) && is_old(&entry))) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let is_free = rustix::fs::open(&path, flags, Mode::empty())
            .is_ok_and(|fd| flock(fd.as_fd(), FlockOperation::NonBlockingLockExclusive).is_ok());
        if is_free {
            let _ = std::fs::remove_dir_all(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_supervisor_removes_the_directory_of_another() {
        let parent = tempfile::tempdir().unwrap();
        let start = || {
            for _ in 0..100 {
                let scratch = Scratch::new(parent.path()).unwrap();
                scratch.directory("dev").unwrap();
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(start);
            }
        });
        let left = parent.path().join(format!("{PREFIX}left"));
        std::fs::create_dir(&left).unwrap();
        drop(Scratch::new(parent.path()).unwrap());
        assert_eq!(std::fs::read_dir(parent.path()).unwrap().count(), 0);
    }
}
