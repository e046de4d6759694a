//! Opening files that somebody else has made.
//!
//! To open a device is to use it: a tape rewinds, a watchdog is armed. To open a fifo is to wait for
//! its other end. So a file of a tree that an image, a context or an archive has filled is found first
//! (`O_PATH`, which reaches no driver), looked at, and opened through its descriptor then: nothing can
//! take its place in between. Nothing else in kiln opens such files, but for those of a directory in
//! which none can be a device ([`Dir::without_devices`](crate::Dir::without_devices)); directories, which the kernel
//! refuses to take for anything else (`O_DIRECTORY`), and files that kiln makes itself (`O_EXCL`) are
//! safe without it.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::metadata::{FileKind, Metadata};

/// Where a process finds its own descriptors.
const DESCRIPTORS: &str = "/proc/self/fd";

/// Opens for `access` what `find` finds, or returns `None` where it is of another kind than wanted.
/// `find` opens it with the flags that it is given, to which it may add `O_NOFOLLOW`.
///
/// # Errors
/// Fails where `find` does, and where the kernel refuses the access.
pub fn open_inspected(
    access: OFlags,
    is_wanted: impl Fn(FileKind) -> bool,
    find: impl Fn(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<Option<OwnedFd>, Errno> {
    open_through(DESCRIPTORS, access, is_wanted, find)
}

/// Opens for reading what a walk has found to be a file, where no device can have taken its place. Something
/// else that has is opened without waiting.
///
/// # Errors
/// Fails where `find` does.
pub(crate) fn open_found(
    find: impl FnOnce(OFlags) -> Result<OwnedFd, Errno>,
) -> Result<OwnedFd, Errno> {
    find(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC)
}

/// Does what [`open_inspected`] does, with descriptors in a directory of that name.
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
        // Nothing is mounted at `/proc`.
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
    use std::path::{Path, PathBuf};

    use rustix::fs::{CWD, FileType, openat};

    use super::*;

    #[test]
    fn files_are_opened_and_nothing_else() {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        std::fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        // Whoever opens a device that there isn't is told so. To make one takes root.
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

    /// Where something is opened that no image, context or archive has made: the sandbox's own
    /// devices, and kiln's own program.
    const TRUSTED: [&str; 5] = [
        "sandbox/src/devices.rs",
        "sandbox/src/helper.rs",
        "sandbox/src/oci.rs",
        "sandbox/src/program.rs",
        "sandbox/src/sources.rs",
    ];

    fn add_sources(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                add_sources(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }

    #[test]
    fn all_files_of_trees_are_inspected() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut files = Vec::new();
        for member in ["tree", "sandbox", "worker", "exporter"] {
            add_sources(&repository.join(member).join("src"), &mut files);
        }
        let mut seen = 0;
        for file in files {
            let name = file.strip_prefix(repository).unwrap().to_str().unwrap();
            let text = std::fs::read_to_string(&file).unwrap();
            // Tests open what they have made.
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            let has = |statement: &str, flags: &[&str]| {
                flags.iter().any(|flag| statement.contains(&format!("OFlags::{flag}")))
            };
            for statement in code.split(';') {
                if !has(statement, &["RDONLY", "WRONLY", "RDWR"]) {
                    continue;
                }
                seen += 1;
                let is_safe = name == "tree/src/inspected.rs"
                    || statement.contains("open_inspected")
                    || has(statement, &["DIRECTORY", "EXCL"])
                    || TRUSTED.contains(&name);
                assert!(is_safe, "{name}: {statement}");
            }
        }
        assert!(seen > 15, "{seen}");
    }
}
