//! The entries of a transferred directory: their names, their order, and their modes, which are
//! those of Go.

use std::cmp::Ordering;

use kiln_tree::{Attributes, FileKind, Metadata, Owner, Timestamp};

use super::error::{Error, Result};
use super::messages::Stat;

const DIRECTORY: u32 = 1 << 31;
const SYMLINK: u32 = 1 << 27;
const DEVICE: u32 = 1 << 26;
const FIFO: u32 = 1 << 25;
const SOCKET: u32 = 1 << 24;
const SETUID: u32 = 1 << 23;
const SETGID: u32 = 1 << 22;
const CHAR_DEVICE: u32 = 1 << 21;
const STICKY: u32 = 1 << 20;
const IRREGULAR: u32 = 1 << 19;

/// The bits of Go's modes and the corresponding bits of the kernel's.
const BITS: [(u32, u32); 3] = [(SETUID, 0o4000), (SETGID, 0o2000), (STICKY, 0o1000)];

/// The maximal length of a path in bytes.
const LONGEST: usize = 4096;

/// Returns Go's mode of a file.
pub(crate) fn to_go(kind: FileKind, mode: u32) -> u32 {
    let kind = match kind {
        FileKind::File => 0,
        FileKind::Socket => SOCKET,
        FileKind::Directory => DIRECTORY,
        FileKind::Symlink => SYMLINK,
        FileKind::Fifo => FIFO,
        FileKind::CharDevice { .. } => DEVICE | CHAR_DEVICE,
        FileKind::BlockDevice { .. } => DEVICE,
    };
    let special = BITS.iter().filter(|(_, bit)| mode & bit != 0).map(|(go, _)| go);
    special.fold(kind | (mode & 0o777), |mode, bit| mode | bit)
}

/// Returns the numbers of a device; 0 for other types.
pub(crate) fn device(kind: FileKind) -> (i64, i64) {
    match kind {
        FileKind::CharDevice { major, minor } | FileKind::BlockDevice { major, minor } => {
            (major.into(), minor.into())
        }
        _ => (0, 0),
    }
}

/// Returns a time in nanoseconds since 1970.
pub(crate) fn nanoseconds(time: Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(time.nanoseconds.into())
}

/// Returns the kernel's permission bits of a mode of Go.
fn mode_of(mode: u32) -> u32 {
    let special = BITS.iter().filter(|(go, _)| mode & go != 0).map(|(_, bit)| bit);
    special.fold(mode & 0o777, |mode, bit| mode | bit)
}

/// Returns the type of an entry, or `None` for a type that can't be transferred.
fn kind_of(stat: &Stat) -> Option<FileKind> {
    let number = |value: i64| u32::try_from(value).ok();
    let kinds = DIRECTORY | SYMLINK | DEVICE | FIFO | SOCKET | CHAR_DEVICE | IRREGULAR;
    Some(match stat.mode & kinds {
        0 => FileKind::File,
        DIRECTORY => FileKind::Directory,
        SYMLINK => FileKind::Symlink,
        FIFO => FileKind::Fifo,
        DEVICE => {
            FileKind::BlockDevice { major: number(stat.devmajor)?, minor: number(stat.devminor)? }
        }
        bits if bits == DEVICE | CHAR_DEVICE => {
            FileKind::CharDevice { major: number(stat.devmajor)?, minor: number(stat.devminor)? }
        }
        _ => return None,
    })
}

/// An entry that the client has announced, with a valid path and type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Incoming {
    /// The path below the directory, without a leading slash.
    pub(super) path: Vec<u8>,
    pub(super) kind: FileKind,
    pub(super) mode: u32,
    pub(super) owner: Owner,
    pub(super) size: u64,
    pub(super) mtime: Timestamp,
    /// The target of a symbolic link, or the earlier path of the same file.
    pub(super) link: Vec<u8>,
}

impl Incoming {
    /// Checks an entry.
    ///
    /// # Errors
    /// Fails if the entry's path, type or size is invalid.
    pub(super) fn new(stat: Stat) -> Result<Self> {
        check_path(&stat.path)?;
        let refused = |problem: &str| {
            let path = String::from_utf8_lossy(&stat.path);
            Error::Protocol(format!("{path:?} {problem}"))
        };
        let kind = kind_of(&stat).ok_or_else(|| refused("has an unknown type"))?;
        let size = u64::try_from(stat.size).map_err(|_| refused("has a negative size"))?;
        if kind == FileKind::Symlink {
            if stat.link_is_invalid() {
                return Err(refused("has an invalid target"));
            }
        } else if kind == FileKind::File && !stat.linkname.is_empty() {
            check_path(&stat.linkname)?;
        }
        Ok(Self {
            kind,
            mode: mode_of(stat.mode),
            owner: Owner { uid: stat.uid, gid: stat.gid },
            size,
            mtime: Timestamp::from_nanoseconds(stat.mod_time),
            link: stat.linkname,
            path: stat.path,
        })
    }

    /// Returns `true` for a file that is another name of an earlier one.
    pub(super) fn is_hard_link(&self) -> bool {
        self.kind == FileKind::File && !self.link.is_empty()
    }

    /// Returns the attributes of the entry. A link has no mode, and a directory gets its time when
    /// its contents are there.
    pub(super) fn attributes(&self) -> Attributes {
        Attributes {
            mode: (self.kind != FileKind::Symlink).then_some(self.mode),
            owner: Some(self.owner),
            mtime: (self.kind != FileKind::Directory).then_some(self.mtime),
        }
    }

    /// Returns `true` for a file whose time is in whole seconds.
    pub(super) fn has_coarse_time(&self) -> bool {
        self.kind == FileKind::File && self.mtime.nanoseconds == 0
    }

    /// Returns `true` if an entry on the disk needs no transfer: by BuildKit's comparison, which
    /// ignores extended attributes, and for directories also size and time. `target` is the target
    /// of a link on the disk.
    pub(super) fn is_same(&self, found: &Metadata, target: &[u8]) -> bool {
        if self.kind != found.kind || self.owner != found.owner {
            return false;
        }
        let is_alike = match self.kind {
            FileKind::Directory => return self.mode == found.mode,
            FileKind::Symlink => self.link == target,
            FileKind::File => self.mode == found.mode && self.size == found.size,
            _ => self.mode == found.mode,
        };
        is_alike && self.mtime == found.mtime
    }
}

impl Stat {
    fn link_is_invalid(&self) -> bool {
        self.linkname.is_empty() || self.linkname.len() > LONGEST || self.linkname.contains(&0)
    }
}

/// Checks that a path is relative and clean.
fn check_path(path: &[u8]) -> Result<()> {
    let is_name = |name: &[u8]| !name.is_empty() && name != b"." && name != b"..";
    if path.len() > LONGEST {
        let start = String::from_utf8_lossy(&path[..80]);
        return Err(Error::Protocol(format!("the path {start:?}… is too long")));
    }
    if path.contains(&0) || !path.split(|byte| *byte == b'/').all(is_name) {
        let path = String::from_utf8_lossy(path);
        return Err(Error::Protocol(format!("{path:?} is no clean relative path")));
    }
    Ok(())
}

/// Compares paths in the order of a transfer: parents before their children, and the names in a
/// directory bytewise.
pub(super) fn compare(one: &[u8], two: &[u8]) -> Ordering {
    let key = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    one.iter().map(key).cmp(two.iter().map(key))
}

/// Returns the path of the directory that contains an entry; empty for the root.
pub(super) fn parent(path: &[u8]) -> &[u8] {
    path.iter().rposition(|byte| *byte == b'/').map_or(b"", |slash| &path[..slash])
}

/// Returns `true` if `path` is below the directory `above`.
pub(super) fn is_below(path: &[u8], above: &[u8]) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(b"/"))
}

/// The check of the order of a transfer.
#[derive(Debug, Default)]
pub(super) struct Order {
    last: Vec<u8>,
    /// The directories on the way to the last entry, with their numbers.
    open: Vec<(Vec<u8>, usize)>,
}

impl Order {
    /// Accepts the next entry. Returns the number of its directory, or `None` for the root.
    ///
    /// # Errors
    /// Fails if the entry isn't behind the last one, or if its directory wasn't sent before.
    pub(super) fn accept(&mut self, path: &[u8]) -> Result<Option<usize>> {
        let above = parent(path);
        let is_behind = self.last.is_empty() || compare(&self.last, path) == Ordering::Less;
        while self.open.last().is_some_and(|(open, _)| open != above && !is_below(above, open)) {
            self.open.pop();
        }
        let (directory, number) = match self.open.last() {
            Some((directory, number)) => (directory.as_slice(), Some(*number)),
            None => (&b""[..], None),
        };
        if !is_behind || directory != above {
            let (path, last) = (String::from_utf8_lossy(path), String::from_utf8_lossy(&self.last));
            return Err(Error::Protocol(format!("changes out of order: {path:?} {last:?}")));
        }
        path.clone_into(&mut self.last);
        Ok(number)
    }

    /// Opens the directory that was accepted last.
    pub(super) fn enter(&mut self, number: usize) {
        self.open.push((self.last.clone(), number));
    }

    /// Returns the number of the directory that contains `path`, an entry before the next one;
    /// `None` for the root.
    pub(super) fn directory_of(&self, path: &[u8]) -> Option<usize> {
        let above = parent(path);
        self.open.iter().rev().find(|(open, _)| open == above).map(|(_, number)| *number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_survive_a_round_trip() {
        let device = FileKind::CharDevice { major: 1, minor: 3 };
        let disk = FileKind::BlockDevice { major: 8, minor: 0 };
        let kinds = [FileKind::File, FileKind::Directory, FileKind::Symlink, FileKind::Fifo];
        for kind in kinds.into_iter().chain([device, disk]) {
            for mode in [0, 0o644, 0o7777, 0o4755, 0o2755, 0o1777] {
                let (devmajor, devminor) = super::device(kind);
                let mode_in_go = to_go(kind, mode);
                let stat = Stat { mode: mode_in_go, devmajor, devminor, ..Stat::default() };
                assert_eq!((kind_of(&stat), mode_of(mode_in_go)), (Some(kind), mode));
            }
        }
        assert_eq!(to_go(FileKind::Directory, 0o1777), 0x8010_01ff);
        for mode in [SOCKET, IRREGULAR, CHAR_DEVICE, DIRECTORY | SYMLINK, DIRECTORY | DEVICE] {
            assert_eq!(kind_of(&Stat { mode, ..Stat::default() }), None, "{mode:x}");
        }
        let mode = DEVICE;
        assert_eq!(kind_of(&Stat { mode, devmajor: -1, ..Stat::default() }), None);
    }

    #[test]
    fn unclean_entries_are_refused() {
        let file = |path: &[u8]| Stat { path: path.to_vec(), mode: 0o644, ..Stat::default() };
        let refused = |stat: Stat| Incoming::new(stat).is_err();
        for path in ["", "/", "/a", "a/", "a//b", ".", "./a", "a/.", "..", "../a", "a/../b", "a\0"]
        {
            assert!(refused(file(path.as_bytes())), "{path:?}");
            let link = Stat { linkname: path.into(), ..file(b"l") };
            assert!(path.is_empty() || refused(link), "{path:?}");
        }
        assert!(refused(file(&[b'a'; 4097])));
        assert!(refused(Stat { size: -1, ..file(b"a") }));
        for target in ["", "a\0b"] {
            let link = Stat { mode: SYMLINK | 0o777, linkname: target.into(), ..file(b"l") };
            assert!(refused(link), "{target:?}");
        }
        let link = Stat { mode: SYMLINK | 0o777, linkname: b"/../x".to_vec(), ..file(b"l") };
        assert!(!refused(link) && !refused(file(b"..a/b..")) && !refused(file(b"\xff")));
    }

    #[test]
    fn only_the_order_of_a_walk_is_accepted() {
        let send = |paths: &[&str]| {
            let mut order = Order::default();
            for (number, path) in paths.iter().enumerate() {
                let (name, is_dir) = path.strip_suffix('/').map_or((*path, false), |n| (n, true));
                order.accept(name.as_bytes())?;
                if is_dir {
                    order.enter(number);
                }
            }
            Ok::<_, Error>(order)
        };
        let order = send(&["a/", "a/b/", "a/b/c", "a/d", "a-b", "b/"]).unwrap();
        assert_eq!((order.directory_of(b"b/x"), order.directory_of(b"x")), (Some(5), None));
        for paths in [
            &["a", "a"][..],
            &["b", "a"],
            &["a", "a/b"],
            &["a/b"],
            &["a/", "b", "a/c"],
            &["a-b", "a/"],
            &["a/", "a/c", "a/b"],
            &["a/", "a/b", "a"],
        ] {
            assert!(send(paths).is_err(), "{paths:?}");
        }
    }
}
