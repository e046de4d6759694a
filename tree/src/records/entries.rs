//! Records of links and fifos, which can't have attributes of users.
//!
//! The attribute `user.kiln.entries` of their directory lists them: for each owner, `UID:GID=`, the
//! entries, separated by commas, and a semicolon. An entry is named by its inode and the time of its
//! birth, both in hexadecimal. So an entry keeps its owner if it is renamed in its directory, and a
//! new entry with the same name or inode doesn't inherit one.
//!
//! Some file systems limit the size of attributes. ext4 keeps about 200 entries in a directory. The
//! others belong to root.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{AtFlags, StatxFlags, XattrFlags, getxattr, removexattr, setxattr, statx};
use rustix::io::Errno;

use super::{ENTRIES, owner as text_of, parse_owner};
use crate::metadata::Owner;
use crate::names;

/// The maximal size in bytes of an extended attribute on Linux.
const LARGEST: usize = 64 * 1024;

/// The owners of entries by inode and time of birth.
type Entries = BTreeMap<(u64, u64), Owner>;

/// Returns the recorded owner of a directory's entry, if there is one. The entry itself must not be
/// a file or directory.
///
/// # Errors
/// Fails if the entry or the record can't be read.
pub fn entry_owner(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Owner>, Errno> {
    let entries = read(dir)?;
    if entries.is_empty() {
        return Ok(None);
    }
    Ok(entries.get(&identity(dir, name)?).copied())
}

/// Records the owner of a directory's entry that isn't a file or directory. Root's ownership needs no
/// record.
///
/// # Errors
/// Fails if the entry can't be read, or if the record can't be changed. Leaves the owner out if the
/// directory has too many records already.
pub fn set_entry_owner(dir: BorrowedFd<'_>, name: &[u8], owner: Owner) -> Result<(), Errno> {
    // Several threads may work in one directory.
    static CHANGING: Mutex<()> = Mutex::new(());

    let _alone = CHANGING.lock().unwrap_or_else(PoisonError::into_inner);
    let mut entries = read(dir)?;
    if owner == Owner::default() && entries.is_empty() {
        return Ok(());
    }
    let identity = identity(dir, name)?;
    let changed = if owner == Owner::default() {
        entries.remove(&identity).is_some()
    } else {
        entries.insert(identity, owner) != Some(owner)
    };
    if !changed {
        return Ok(());
    }
    match write(dir, &entries) {
        Err(Errno::NOSPC | Errno::TOOBIG | Errno::RANGE) => {
            let name = String::from_utf8_lossy(name);
            tracing::debug!(%name, "the owner isn't recorded, the directory has too many records");
            Ok(())
        }
        written => written,
    }
}

fn read(dir: BorrowedFd<'_>) -> Result<Entries, Errno> {
    let (path, key) = (path(dir), names::path(ENTRIES));
    let mut small = [0; 1024];
    let value = match getxattr(path.as_str(), key, &mut small) {
        Ok(size) => small[..size].to_vec(),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(Entries::new()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGEST];
            let size = getxattr(path.as_str(), key, large.as_mut_slice())?;
            large.truncate(size);
            large
        }
        Err(errno) => return Err(errno),
    };
    Ok(parse(&value))
}

fn write(dir: BorrowedFd<'_>, entries: &Entries) -> Result<(), Errno> {
    let (path, key) = (path(dir), names::path(ENTRIES));
    if entries.is_empty() {
        return removexattr(path.as_str(), key);
    }
    setxattr(path.as_str(), key, encode(entries).as_bytes(), XattrFlags::empty())
}

/// Returns a path that leads to an open directory, even if it was opened with `O_PATH`.
fn path(dir: BorrowedFd<'_>) -> String {
    format!("/proc/self/fd/{}", dir.as_raw_fd())
}

/// Returns the inode of an entry and the time of its birth, which is 0 if the file system doesn't
/// know it.
fn identity(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(u64, u64), Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
    let stat = statx(dir, name, flags, StatxFlags::INO | StatxFlags::BTIME)?;
    let seconds = stat.stx_btime.tv_sec.cast_unsigned();
    let birth = seconds.wrapping_mul(1_000_000_000) + u64::from(stat.stx_btime.tv_nsec);
    let is_known = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
    Ok((stat.stx_ino, if is_known { birth } else { 0 }))
}

fn encode(entries: &Entries) -> String {
    let mut groups: BTreeMap<String, String> = BTreeMap::new();
    for ((inode, birth), owner) in entries {
        let group = groups.entry(text_of(*owner)).or_default();
        let comma = if group.is_empty() { "" } else { "," };
        // Writing to a string can't fail.
        let _ = write!(group, "{comma}{inode:x}.{birth:x}");
    }
    let groups: Vec<String> =
        groups.iter().map(|(owner, entries)| format!("{owner}={entries};")).collect();
    groups.concat()
}

/// Parses the record. Ignores malformed parts.
fn parse(value: &[u8]) -> Entries {
    let text = String::from_utf8_lossy(value);
    let mut entries = Entries::new();
    for group in text.split(';') {
        let Some((owner, list)) = group.split_once('=') else { continue };
        let Some(owner) = parse_owner(owner.as_bytes()) else { continue };
        for entry in list.split(',') {
            let number = |text| u64::from_str_radix(text, 16).ok();
            let parts = entry.split_once('.');
            if let Some((Some(inode), Some(birth))) =
                parts.map(|(inode, birth)| (number(inode), number(birth)))
            {
                entries.insert((inode, birth), owner);
            }
        }
    }
    entries
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn records_are_read_as_they_are_written() {
        let owner = |uid| Owner { uid, gid: 7 };
        let entries: Entries =
            [((1, 0), owner(5)), ((255, 16), owner(5)), ((2, 3), owner(6))].into();
        assert_eq!(encode(&entries), "5:7=1.0,ff.10;6:7=2.3;");
        assert_eq!(parse(encode(&entries).as_bytes()), entries);
        assert_eq!(parse(b"x=1.0;5:7=y,1.0,2;=;"), [((1, 0), owner(5))].into());
    }

    #[test]
    fn entries_keep_their_owners_while_they_are_the_same() {
        let temp = tempfile::tempdir().unwrap();
        let dir = crate::Dir::open(temp.path()).unwrap();
        let (fd, at) = (dir.as_fd(), |name: &str| temp.path().join(name));
        for name in ["a", "b"] {
            symlink("target", at(name)).unwrap();
        }
        let owner = Owner { uid: 1, gid: 2 };
        set_entry_owner(fd, b"a", owner).unwrap();
        assert_eq!(entry_owner(fd, b"a").unwrap(), Some(owner));
        assert_eq!(entry_owner(fd, b"b").unwrap(), None);
        std::fs::rename(at("a"), at("c")).unwrap();
        assert_eq!(entry_owner(fd, b"c").unwrap(), Some(owner));
        set_entry_owner(fd, b"c", Owner::default()).unwrap();
        assert_eq!(entry_owner(fd, b"c").unwrap(), None);
        assert!(dir.xattrs("/".as_ref()).unwrap().is_empty());
    }

    #[test]
    fn too_many_entries_are_no_error() {
        let temp = tempfile::tempdir().unwrap();
        let dir = crate::Dir::open(temp.path()).unwrap();
        for number in 0..400 {
            let name = number.to_string();
            symlink("target", temp.path().join(&name)).unwrap();
            set_entry_owner(dir.as_fd(), name.as_bytes(), Owner { uid: 1, gid: 1 }).unwrap();
        }
        assert_eq!(entry_owner(dir.as_fd(), b"0").unwrap(), Some(Owner { uid: 1, gid: 1 }));
    }
}
