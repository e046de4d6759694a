//! Measurement of the disk space of a directory.
//!
//! It is used for data that changes without the index: cache mounts, volumes and unfinished data.
//! The directory may change during the measurement, and a running program may move directories. So
//! every directory is opened by its name in its parent, links and mounts are not followed, and each
//! step up is checked to reach the directory from which the way down came. One descriptor is open
//! at a time, so the depth doesn't matter.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, Mode, OFlags, Stat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// A directory on the way down.
struct Level {
    identity: (u64, u64),
    /// The subdirectories that remain to be visited.
    waiting: Vec<CString>,
}

/// Returns the disk space in bytes of `path` and everything below it. Each file counts once. A path
/// that doesn't exist has the size zero.
///
/// # Errors
/// Fails if a directory can't be read.
pub(crate) fn measure(path: &Path) -> Result<u64> {
    measured(path).map_err(Error::io("measure", path))
}

/// Returns the disk space in bytes of a single file or directory.
pub(crate) fn blocks_of(path: &Path) -> Result<u64> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(metadata.blocks() * 512),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Error::io("stat", path)(error)),
    }
}

fn measured(path: &Path) -> io::Result<u64> {
    let mut fd = match open(rustix::fs::CWD, path) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::NOTDIR | Errno::LOOP) => return Ok(fs::symlink_metadata(path)?.blocks() * 512),
        Err(error) => return Err(error.into()),
    };
    let stat = rustix::fs::fstat(&fd)?;
    let (device, mut linked) = (stat.st_dev, HashSet::new());
    let mut bytes = blocks(&stat);
    let mut levels = vec![Level { identity: identity(&stat), waiting: Vec::new() }];
    bytes += list(&fd, &mut levels, &mut linked)?;
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.waiting.pop() else {
            levels.pop();
            let Some(above) = levels.last() else { break };
            let Ok(parent) = open(&fd, c"..") else { break };
            if identity(&rustix::fs::fstat(&parent)?) != above.identity {
                // The directory was moved. The next measurement includes its siblings.
                break;
            }
            fd = parent;
            continue;
        };
        let Ok(child) = open(&fd, name.as_c_str()) else { continue };
        let stat = rustix::fs::fstat(&child)?;
        if stat.st_dev != device {
            continue;
        }
        bytes += blocks(&stat);
        fd = child;
        levels.push(Level { identity: identity(&stat), waiting: Vec::new() });
        bytes += list(&fd, &mut levels, &mut linked)?;
    }
    Ok(bytes)
}

/// Adds up the files of a directory, and collects its subdirectories.
fn list(fd: &OwnedFd, levels: &mut [Level], linked: &mut HashSet<(u64, u64)>) -> io::Result<u64> {
    let mut bytes = 0;
    let Some(level) = levels.last_mut() else { return Ok(0) };
    for entry in Dir::read_from(fd)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type().is_dir() {
            level.waiting.push(name.to_owned());
            continue;
        }
        let stat = match rustix::fs::statat(fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => continue,
            Err(error) => return Err(error.into()),
        };
        if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir() {
            level.waiting.push(name.to_owned());
        } else if stat.st_nlink < 2 || linked.insert(identity(&stat)) {
            bytes += blocks(&stat);
        }
    }
    Ok(bytes)
}

fn open<P: rustix::path::Arg>(
    parent: impl std::os::fd::AsFd,
    name: P,
) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

fn blocks(stat: &Stat) -> u64 {
    stat.st_blocks.cast_unsigned() * 512
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::Command;

    use super::*;

    fn du(path: &Path) -> u64 {
        let output = Command::new("du").args(["-s", "--block-size=1"]).arg(path).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.split('\t').next().unwrap().parse().unwrap()
    }

    #[test]
    fn what_is_measured_is_what_du_says() {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().join("top");
        let mut deep = top.join("a/b");
        fs::create_dir_all(&deep).unwrap();
        fs::write(top.join("a/large"), vec![7; 1 << 20]).unwrap();
        fs::hard_link(top.join("a/large"), top.join("a/b/again")).unwrap();
        symlink("/usr", top.join("a/link")).unwrap();
        for number in 0..200 {
            fs::write(top.join(format!("a/b/{number}")), vec![1; number * 50]).unwrap();
        }
        for _ in 0..300 {
            deep.push("d");
            fs::create_dir(&deep).unwrap();
        }
        fs::write(deep.join("bottom"), "x").unwrap();
        assert_eq!(measure(&top).unwrap(), du(&top));
        assert_eq!(measure(&top.join("a/large")).unwrap(), du(&top.join("a/large")));
        assert_eq!(measure(&top.join("none")).unwrap(), 0);
    }
}
