//! What a file is besides its content.

use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, RawMode, Statx, StatxFlags, StatxTimestamp, Timespec, statx};
use rustix::io::Errno;

/// What a file is besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    /// Its type.
    pub kind: FileKind,
    /// Permission bits, with setuid, setgid and sticky (`0o7777`).
    pub mode: u32,
    /// Owner.
    pub owner: Owner,
    /// Size in bytes.
    pub size: u64,
    /// Modification time.
    pub mtime: Timestamp,
    /// Status change time.
    pub ctime: Timestamp,
    /// Number of the device it lies on.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Number of hard links.
    pub links: u64,
    /// Disk blocks in use, of 512 bytes each.
    pub blocks: u64,
}

impl Metadata {
    /// Tells whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory
    }

    /// Tells whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind.is_file()
    }

    /// Tells whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileKind::Symlink
    }

    /// Tells whether it is the metadata of the same file, under whatever name.
    pub(crate) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }

    /// Returns the metadata of `name` in a directory, links not followed.
    pub(crate) fn of_entry(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Self, Errno> {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        statx(dir, name, flags, StatxFlags::BASIC_STATS).map(|stat| Self::from_statx(&stat))
    }

    /// Returns the metadata of something empty that nobody may do anything with.
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

    /// Returns the metadata of an open file.
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
            owner: Owner { uid: stat.stx_uid, gid: stat.stx_gid },
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

/// The types of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
}

impl FileKind {
    /// Tells whether it is a regular file.
    pub fn is_file(self) -> bool {
        self == Self::File
    }

    /// Tells whether it has extended attributes and can be opened without an effect.
    pub(crate) fn has_xattrs(self) -> bool {
        matches!(self, Self::File | Self::Directory)
    }
}

/// Owner and group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// A point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Seconds since 1970.
    pub seconds: i64,
    /// Nanoseconds, below a billion.
    pub nanoseconds: u32,
}

impl Timestamp {
    /// Returns the time so many nanoseconds after (or before) 1970.
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
