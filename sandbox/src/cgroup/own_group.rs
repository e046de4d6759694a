//! The group of one kiln process, which contains those of its programs.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{Access, FlockOperation, flock};
use rustix::io::Errno;

use super::devices;
use super::layout::Hierarchy;

/// The prefix of the names of houses.
const PREFIX: &str = "kiln-";
/// The name of the group for programs without limits of their own.
const FREE: &str = "free";
/// The number of attempts to remove an emptied group, and the pause between them.
const REMOVALS: u32 = 50;
const REMOVAL_PAUSE: Duration = Duration::from_millis(10);
/// The number of attempts to create a house. Another process may remove one before it is locked.
const ATTEMPTS: u32 = 10;

/// A group that is locked as long as this process lives. Dropping the value removes the group.
#[derive(Debug)]
pub(super) struct OwnGroup {
    path: PathBuf,
    _lock: File,
    filters_devices: OnceLock<bool>,
    /// The groups above it that this process created, uppermost first.
    made: Vec<PathBuf>,
}

impl OwnGroup {
    /// Creates a house and removes the unlocked ones beside it.
    pub(super) fn build(place: &Path, hierarchy: &Hierarchy) -> io::Result<Self> {
        let made = make_above(place, hierarchy)?;
        if hierarchy.unified {
            check_entry(place)?;
        }
        sweep(place, hierarchy.unified);
        let (path, lock) = match (0..ATTEMPTS).find_map(|_| begin(place).transpose()) {
            Some(begun) => begun?,
            None => return Err(io::Error::other("another kiln removes what this one makes")),
        };
        let house = Self { path, _lock: lock, filters_devices: OnceLock::new(), made };
        if !hierarchy.unified && hierarchy.has("cpuset") {
            inherit_cpuset(&house.path)?;
        }
        Ok(house)
    }

    /// Returns the directory of the house.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the group for programs without limits of their own. It exists only if the house
    /// filters devices.
    pub(super) fn free(&self) -> PathBuf {
        self.path.join(FREE)
    }

    /// Makes the house filter devices. Returns `true` on success.
    pub(super) fn filter_devices(&self, unified: bool) -> bool {
        *self.filters_devices.get_or_init(|| {
            if unified {
                devices::filter_unified(&self.path, &[]) && std::fs::create_dir(self.free()).is_ok()
            } else {
                devices::filter(&self.path, &[])
            }
        })
    }
}

impl Drop for OwnGroup {
    fn drop(&mut self) {
        // The next kiln removes the groups that can't be removed now.
        let _ = remove(&self.path);
        for path in self.made.iter().rev() {
            // Another process may use the group.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Checks that processes can be moved between the groups below `place`. Creating groups requires
/// less: in a directory that was delegated without its files, no program could enter its group.
fn check_entry(place: &Path) -> io::Result<()> {
    let file = place.join("cgroup.procs");
    match rustix::fs::access(&file, Access::WRITE_OK) {
        // A tree that isn't a cgroup file system, in tests.
        Err(Errno::NOENT) => Ok(()),
        other => other.map_err(|errno| {
            let error = io::Error::from(errno);
            io::Error::new(error.kind(), format!("write {}: {error}", file.display()))
        }),
    }
}

/// Creates the missing groups above a house.
fn make_above(place: &Path, hierarchy: &Hierarchy) -> io::Result<Vec<PathBuf>> {
    let missing: Vec<&Path> = place.ancestors().take_while(|path| !path.exists()).collect();
    let mut made = Vec::new();
    for path in missing.into_iter().rev() {
        match std::fs::create_dir(path) {
            Ok(()) => made.push(path.to_owned()),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => {
                return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display())));
            }
        }
        if !hierarchy.unified && hierarchy.has("cpuset") {
            inherit_cpuset(path)?;
        }
    }
    Ok(made)
}

/// Creates a directory with a unique name and locks it. Returns `None` if another process has
/// removed it in between.
fn begin(place: &Path) -> io::Result<Option<(PathBuf, File)>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let path = place.join(format!("{PREFIX}{}-{:016x}", std::process::id(), now.as_nanos()));
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
        other => other?,
    }
    let Ok(lock) = File::open(&path) else { return Ok(None) };
    let is_ours = flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
    // Another process may have removed the directory before it was locked.
    let is_there = || {
        let same = |now: std::fs::Metadata| lock.metadata().is_ok_and(|was| was.ino() == now.ino());
        std::fs::metadata(&path).is_ok_and(same)
    };
    if is_ours && is_there() { Ok(Some((path, lock))) } else { Ok(None) }
}

/// Removes the unlocked houses in a place.
pub(super) fn sweep(place: &Path, unified: bool) {
    let Ok(entries) = std::fs::read_dir(place) else { return };
    for entry in entries.flatten() {
        if !entry.file_name().to_str().is_some_and(is_house) {
            continue;
        }
        let path = entry.path();
        let Ok(house) = File::open(&path) else { continue };
        if flock(&house, FlockOperation::NonBlockingLockExclusive).is_err() {
            continue;
        }
        if unified {
            // Programs die with their kiln. A program that survived is killed here.
            let kill = File::options().write(true).open(path.join("cgroup.kill"));
            let _ = kill.and_then(|mut kill| kill.write_all(b"1"));
        }
        let _ = remove_once(&path);
    }
}

/// Returns `true` if a name is exactly in the format of houses.
fn is_house(name: &str) -> bool {
    let parts = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-'));
    parts.is_some_and(|(process, moment)| {
        process.parse::<u32>().is_ok()
            && moment.len() == 16
            && moment.bytes().all(|digit| digit.is_ascii_hexdigit())
    })
}

/// Removes a group and those below it. Retries while the kernel still counts ended processes.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    for _ in 0..REMOVALS {
        match remove_once(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                std::thread::sleep(REMOVAL_PAUSE);
            }
            other => return other,
        }
    }
    remove_once(path)
}

fn remove_once(path: &Path) -> io::Result<()> {
    match std::fs::remove_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(()) => return Ok(()),
        Err(_) => {}
    }
    for entry in std::fs::read_dir(path)?.flatten() {
        if entry.file_type()?.is_dir() {
            remove_once(&entry.path())?;
        }
    }
    std::fs::remove_dir(path)
}

/// Copies the processors and memory nodes of the parent group to a new group of version 1. Without
/// them, no process can run in it.
pub(super) fn inherit_cpuset(path: &Path) -> io::Result<()> {
    let Some(above) = path.parent() else { return Ok(()) };
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let own = std::fs::read_to_string(path.join(file))?;
        if own.trim().is_empty() {
            let inherited = std::fs::read_to_string(above.join(file))?;
            super::write(&path.join(file), inherited.trim())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hierarchy(mount: &Path) -> Hierarchy {
        let (own, controllers) = (mount.join("own"), Vec::new());
        Hierarchy { mount: mount.to_owned(), own, unified: true, controllers }
    }

    #[test]
    fn what_a_dead_kiln_left_is_swept_and_what_a_living_one_has_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("made/by/us");
        let first = OwnGroup::build(&place, &hierarchy(directory.path())).unwrap();
        std::fs::create_dir_all(place.join("kiln-1-00000000deadbeef/3")).unwrap();
        std::fs::create_dir(place.join("kiln-others")).unwrap();
        let second = OwnGroup::build(&place, &hierarchy(directory.path())).unwrap();
        assert!(first.path().is_dir() && second.path().is_dir());
        assert!(
            !place.join("kiln-1-00000000deadbeef").exists() && place.join("kiln-others").is_dir()
        );
        std::fs::remove_dir(place.join("kiln-others")).unwrap();
        std::fs::create_dir(second.path().join("1")).unwrap();
        drop(second);
        assert!(place.exists(), "a house is left");
        drop(first);
        assert!(!directory.path().join("made").exists(), "nothing is left");
    }
}
