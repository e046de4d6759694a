//! The metadata of files.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, RawMode, Statx, StatxFlags, StatxTimestamp, Timespec, statx};
use rustix::io::Errno;

use crate::ids::Ids;

/// The metadata of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The type of the file.
    pub kind: FileKind,
    /// The permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// The owner, which may be a recorded one.
    pub owner: Owner,
    /// The size in bytes.
    pub size: u64,
    /// The time of the last modification.
    pub mtime: Timestamp,
    /// The time of the last status change.
    pub ctime: Timestamp,
    /// The number of the device that contains the file.
    pub device: u64,
    /// The inode number, unique on the device.
    pub inode: u64,
    /// The number of hard links to the file.
    pub links: u64,
    /// The number of disk blocks in use, of 512 bytes each.
    pub blocks: u64,
}

impl Metadata {
    /// Returns `true` for a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Returns `true` for a regular file.
    pub fn is_file(&self) -> bool {
        self.kind.is_file()
    }

    /// Returns `true` for a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Returns `true` if both are metadata of the same file, under any name.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns the metadata of `name` in a directory, regardless of records. Links are not followed.
    pub(crate) fn of_entry(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(dir, name, flags, StatxFlags::BASIC_STATS).map(|stat| Self::from_statx(&stat))
    }

    /// Returns metadata with size zero and without permissions.
    pub(crate) fn nothing(kind: FileKind) -> Self {
        Self {
            kind,
            mode: 0,
            owner: Owner::default(),
            size: 0,
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
            device: 0,
            inode: 0,
            links: 1,
            blocks: 0,
        }
    }

    /// Returns the metadata of an open file, regardless of records.
    pub(crate) fn of_fd(fd: BorrowedFd<'_>) -> Result<Self, Errno> {
        statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
            .map(|stat| Self::from_statx(&stat))
    }

    fn from_statx(stat: &Statx) -> Self {
        let (major, minor) = (stat.stx_rdev_major, stat.stx_rdev_minor);
        let kind = match FileType::from_raw_mode(RawMode::from(stat.stx_mode)) {
            FileType::Directory => FileKind::Directory,
            FileType::Symlink => FileKind::Symlink,
            FileType::Fifo => FileKind::Fifo,
            FileType::Socket => FileKind::Socket,
            FileType::CharacterDevice => FileKind::CharDevice { major, minor },
            FileType::BlockDevice => FileKind::BlockDevice { major, minor },
            FileType::RegularFile | FileType::Unknown => FileKind::File,
        };
        Self {
            kind,
            mode: u32::from(stat.stx_mode) & 0o7777,
            owner: Ids::current().shown(Owner { uid: stat.stx_uid, gid: stat.stx_gid }),
            size: stat.stx_size,
            mtime: stat.stx_mtime.into(),
            ctime: stat.stx_ctime.into(),
            device: rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor),
            inode: stat.stx_ino,
            links: u64::from(stat.stx_nlink),
            blocks: stat.stx_blocks,
        }
    }
}

/// The type of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file, whose content has a size.
    File,
    /// A directory, which holds entries.
    Directory,
    /// A symbolic link, which holds a target.
    Symlink,
    /// A named pipe (fifo).
    Fifo,
    /// A Unix domain socket.
    Socket,
    /// A character device, with its numbers.
    CharDevice {
        /// The major number of the device.
        major: u32,
        /// The minor number of the device.
        minor: u32,
    },
    /// A block device, with its numbers.
    BlockDevice {
        /// The major number of the device.
        major: u32,
        /// The minor number of the device.
        minor: u32,
    },
}

impl FileKind {
    /// Returns `true` for a regular file.
    pub fn is_file(self) -> bool {
        self == Self::File
    }

    /// Returns a letter for the type, and the numbers of a device.
    pub(crate) fn letter(self) -> (u8, u32, u32) {
        match self {
            Self::File => (b'f', 0, 0),
            Self::Directory => (b'd', 0, 0),
            Self::Symlink => (b'l', 0, 0),
            Self::Fifo => (b'p', 0, 0),
            Self::Socket => (b's', 0, 0),
            Self::CharDevice { major, minor } => (b'c', major, minor),
            Self::BlockDevice { major, minor } => (b'b', major, minor),
        }
    }

    /// Returns the type with this [letter](Self::letter) and these numbers.
    pub(crate) fn of_letter(letter: u8, major: u32, minor: u32) -> Option<Self> {
        Some(match letter {
            b'f' => Self::File,
            b'd' => Self::Directory,
            b'l' => Self::Symlink,
            b'p' => Self::Fifo,
            b's' => Self::Socket,
            b'c' => Self::CharDevice { major, minor },
            b'b' => Self::BlockDevice { major, minor },
            _ => return None,
        })
    }

    /// Returns `true` for types with extended attributes that can be opened without side effects.
    pub(crate) fn has_xattrs(self) -> bool {
        matches!(self, Self::File | Self::Directory)
    }
}

/// The owner and the group of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The numeric user ID.
    pub uid: u32,
    /// The numeric group ID.
    pub gid: u32,
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// The seconds since 1970, negative before.
    pub seconds: i64,
    /// The nanoseconds within the second, below a billion.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Returns the time `nanoseconds` after 1970, or before it if negative.
    pub fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self {
            seconds: nanoseconds.div_euclid(1_000_000_000),
            nanoseconds: nanoseconds.rem_euclid(1_000_000_000) as u32,
        }
    }

    pub(crate) fn to_timespec(self) -> Timespec {
        Timespec { tv_sec: self.seconds, tv_nsec: self.nanoseconds.into() }
    }
}

impl From<StatxTimestamp> for Timestamp {
    fn from(time: StatxTimestamp) -> Self {
        Self { seconds: time.tv_sec, nanoseconds: time.tv_nsec }
    }
}
