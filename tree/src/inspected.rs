//! Opening of files from untrusted sources.
//!
//! Opening a device has effects: a tape rewinds, a watchdog is armed. Opening a fifo blocks until
//! its other end is opened. So a file in a tree from an image, a context or an archive is first
//! opened with `O_PATH`, which reaches no driver. Its type is checked, and it is opened for access
//! through that descriptor, so that no other file can replace it in between. No other code in kiln
//! opens such files, except in a directory without devices
//! ([`Dir::without_devices`](crate::Dir::without_devices)). Directories are safe to open directly,
//! because the kernel refuses other types (`O_DIRECTORY`), and so are files that kiln creates
//! itself (`O_EXCL`).

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::metadata::{FileKind, Metadata};

/// The directory of a process's own descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Opens the file that `find` finds for `access`. Returns `None` if `is_wanted` rejects its type.
/// `find` opens the file with the given flags, to which it may add `O_NOFOLLOW`.
///
/// # Errors
/// Fails if `find` fails, or if the kernel denies the access.
pub fn open_inspected(
    access: OFlags,
    is_wanted: impl Fn(FileKind) -> bool,
    find: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<Option<OwnedFd>, Errno> {
    open_through(DESCRIPTORS, access, is_wanted, find)
}

/// Opens a file that a walk has found for reading, in a tree where no device can have replaced it.
/// If another type has replaced it, opening doesn't block.
///
/// # Errors
/// Fails if `find` fails.
pub(crate) fn open_found(
    find: impl FnOnce(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    find(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC)
}

/// Does the same as [`open_inspected`], with the directory of descriptors as a parameter.
fn open_through(
    descriptors: &str,
    access: OFlags,
    is_wanted: impl Fn(FileKind) -> bool,
    find: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<Option<OwnedFd>, Errno> {
    let found = find(OFlags::PATH | OFlags::CLOEXEC)?;
    let metadata = Metadata::of_fd(found.as_fd())?;
    if !is_wanted(metadata.kind) {
        return Ok(None);
    }
    let access = access | OFlags::CLOEXEC;
    let path = format!("{descriptors}/{}", found.as_raw_fd());
    match rustix::fs::open(path, access, Mode::empty()) {
        // `/proc` is not mounted.
        Err(Errno::NOENT | Errno::ACCESS) => {
            let again = find(access | OFlags::NONBLOCK | OFlags::NOCTTY)?;
            let is_same = Metadata::of_fd(again.as_fd())?.is_same_file(&metadata);
            if is_same { Ok(Some(again)) } else { Err(Errno::STALE) }
        }
        opened => opened.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use rustix::fs::{CWD, FileType, openat};

    use super::*;

    #[test]
    fn files_are_opened_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // Opening a device without a driver fails. Creating one requires root.
        let device = (FileType::CharacterDevice, rustix::fs::makedev(300, 1));
        let made = rustix::fs::mknodat(CWD, at("device"), device.0, Mode::RUSR, device.1);
        for descriptors in [DESCRIPTORS, "/no/descriptors"] {
            let open = |name: &str| {
                let find = |flags| openat(CWD, at(name), flags | OFlags::NOFOLLOW, Mode::empty());
                let is_file = |kind| matches!(kind, FileKind::File);
                open_through(descriptors, OFlags::RDONLY, is_file, find)
            };
            let mut text = String::new();
            File::from(open("file").unwrap().unwrap()).read_to_string(&mut text).unwrap();
            assert_eq!(text, "text");
            for name in ["link", "fifo", "."].into_iter().chain(made.is_ok().then_some("device")) {
                assert!(open(name).unwrap().is_none(), "{name}");
            }
            assert_eq!(open("none").unwrap_err(), Errno::NOENT);
        }
    }

    #[test]
    fn what_takes_the_place_of_a_file_is_not_opened() {
        let temp = tempfile::tempdir().unwrap();
        for name in ["file", "other"] {
            std::fs::write(temp.path().join(name), name).unwrap();
        }
        let swapped = |descriptors: &str| {
            let calls = std::cell::Cell::new(0);
            let find = |flags| {
                calls.set(calls.get() + 1);
                let name = if calls.get() == 1 { "file" } else { "other" };
                openat(CWD, temp.path().join(name), flags, Mode::empty())
            };
            open_through(descriptors, OFlags::RDONLY, |_| true, find)
        };
        let mut text = String::new();
        File::from(swapped(DESCRIPTORS).unwrap().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "file");
        assert_eq!(swapped("/no/descriptors").unwrap_err(), Errno::STALE);
    }
}
