//! The attributes of files, including those that are recorded beside them.
//!
//! The supervisor's user owns every file of a step. Owners, modes, devices and attributes that it
//! can't set are records: attributes of the file with the prefix `user.kiln.`, in the format of
//! `kiln_tree`.

use std::os::fd::BorrowedFd;

use kiln_tree::records::{self, DEVICE, MODE, OWNER, PREFIX};
use kiln_tree::{FileKind, Owner};
use rustix::fs::{Mode, XattrFlags, chmod, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;
use rustix::process::{getgid, getuid};

use super::mounts::Shown;
use super::state::State;
use crate::descriptors::own_path;
use crate::sys::{self, STATX_SIZE};

const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const CHARACTER: u32 = 0o020_000;
const BLOCK: u32 = 0o060_000;
/// The setuid bit of a mode.
pub(super) const SETUID: u32 = 0o4000;
/// The setgid bit of a mode.
pub(super) const SETGID: u32 = 0o2000;
/// The sticky bit of a mode.
const STICKY: u32 = 0o1000;

/// The kinds of access that a mode allows, as bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Access(u32);

impl Access {
    /// The execution of a program, or the search of a directory.
    pub(super) const EXECUTE: Self = Self(1);
    /// Changes of a file or of a directory's entries.
    pub(super) const WRITE: Self = Self(2);
    /// Creating and removing the entries of a directory.
    pub(super) const CHANGE: Self = Self(3);

    /// Returns the access of the three bits of access(2).
    pub(super) fn of_bits(bits: u32) -> Self {
        Self(bits & 7)
    }
}

/// The attributes of a file as the program sees them.
#[derive(Clone, Debug)]
pub(super) struct Metadata {
    /// The kernel's `struct statx`.
    statx: [u8; STATX_SIZE],
    /// The type and the permission bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    device: (u32, u32),
}

impl Metadata {
    /// Reads the attributes of an open file.
    pub(super) fn of(fd: BorrowedFd<'_>, shown: Option<Shown>) -> Result<Self, Errno> {
        let statx = sys::statx(fd, c"", libc::AT_EMPTY_PATH | libc::AT_NO_AUTOMOUNT)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        let mode = u32::from(u16::from_ne_bytes([statx[28], statx[29]]));
        let word = |at: usize| word(&statx, at);
        let (uid, gid, device) = (word(20), word(24), (word(128), word(132)));
        let mut metadata = Self { statx, mode, uid, gid, device };
        if let Some(shown) = shown {
            metadata.mode = (mode & TYPE) | shown.mode;
            (metadata.uid, metadata.gid) = (shown.uid, shown.gid);
            return Ok(metadata);
        }
        let is_own = uid == getuid().as_raw();
        if is_own {
            metadata.uid = 0;
        }
        if gid == getgid().as_raw() {
            metadata.gid = 0;
        }
        if is_own && matches!(mode & TYPE, REGULAR | DIRECTORY) {
            metadata.apply_records(&own_path(fd))?;
        }
        Ok(metadata)
    }

    fn apply_records(&mut self, path: &str) -> Result<(), Errno> {
        if !names(path)?.windows(PREFIX.len()).any(|part| part == PREFIX) {
            return Ok(());
        }
        if let Some(owner) = read(path, OWNER)?.and_then(|value| records::parse_owner(&value)) {
            (self.uid, self.gid) = (owner.uid, owner.gid);
        }
        let (bits, is_directory) = (self.mode & 0o7777, self.is_directory());
        let mode = read(path, MODE)?.and_then(|value| records::parse_mode(&value));
        if let Some(mode) = mode.filter(|mode| records::counts(*mode, bits, is_directory)) {
            self.mode = (self.mode & TYPE) | mode;
        }
        let device = read(path, DEVICE)?.and_then(|value| records::parse_device(&value));
        match device {
            Some(FileKind::CharDevice { major, minor }) => {
                self.device = (major, minor);
                self.mode = CHARACTER | (self.mode & 0o7777);
            }
            Some(FileKind::BlockDevice { major, minor }) => {
                self.device = (major, minor);
                self.mode = BLOCK | (self.mode & 0o7777);
            }
            _ => {}
        }
        Ok(())
    }

    /// Makes the file one of a process.
    pub(super) fn belong_to(&mut self, state: &State) {
        (self.uid, self.gid) = (state.user.effective, state.group.effective);
    }

    /// Applies the owner that a directory records for a link or fifo of this name.
    pub(super) fn apply_entry(
        &mut self,
        directory: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Errno> {
        if let Some(owner) = records::entry_owner(directory, name)? {
            (self.uid, self.gid) = (owner.uid, owner.gid);
        }
        Ok(())
    }

    /// Returns `true` for a file whose owner its directory records.
    pub(super) fn has_entry_record(&self) -> bool {
        self.is_link() || self.mode & TYPE == 0o010_000
    }

    pub(super) fn is_directory(&self) -> bool {
        self.mode & TYPE == DIRECTORY
    }

    pub(super) fn is_regular(&self) -> bool {
        self.mode & TYPE == REGULAR
    }

    pub(super) fn is_link(&self) -> bool {
        self.mode & TYPE == 0o120_000
    }

    /// Returns the numbers of a recorded device, with `true` for a block device.
    pub(super) fn recorded_device(&self) -> Option<(bool, u32, u32)> {
        let kind = u32::from(u16::from_ne_bytes([self.statx[28], self.statx[29]])) & TYPE;
        let is_device = matches!(self.mode & TYPE, CHARACTER | BLOCK);
        let (major, minor) = self.device;
        (is_device && kind == REGULAR).then_some((self.mode & TYPE == BLOCK, major, minor))
    }

    /// Returns `true` if the modes allow a process the access.
    pub(super) fn allows(&self, state: &State, access: Access) -> bool {
        if state.overrides_modes() {
            let executes = access.0 & Access::EXECUTE.0 != 0;
            return !executes || self.is_directory() || self.mode & 0o111 != 0;
        }
        let shift = if state.user.files == self.uid {
            6
        } else if state.is_member(self.gid) {
            3
        } else {
            0
        };
        access.0 & !(self.mode >> shift) == 0
    }

    /// Returns `true` if the process may change the attributes of the file.
    pub(super) fn is_owned_by(&self, state: &State) -> bool {
        state.overrides_modes() || state.user.files == self.uid
    }

    /// Returns `true` if the sticky bit of this directory protects the entry from the process.
    pub(super) fn protects(&self, entry: &Self, state: &State) -> bool {
        self.mode & STICKY != 0 && !self.is_owned_by(state) && !entry.is_owned_by(state)
    }

    /// Records other owners. The IDs are those that the file gets.
    pub(super) fn set_owner(&self, fd: BorrowedFd<'_>, uid: u32, gid: u32) -> Result<(), Errno> {
        if !self.has_records() {
            return Ok(());
        }
        let path = own_path(fd);
        if (uid, gid) == (0, 0) {
            return remove(&path, OWNER);
        }
        let record = records::owner(Owner { uid, gid });
        setxattr(path, OWNER, record.as_bytes(), XattrFlags::empty())
    }

    /// Sets the permission bits, and records those that the file can't have on the disk.
    pub(super) fn set_mode(&self, fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
        let path = own_path(fd);
        let on_disk = records::mode_on_disk(mode, self.is_directory());
        chmod(&path, Mode::from_raw_mode(on_disk))?;
        if !self.has_records() {
            return Ok(());
        }
        if on_disk == mode {
            return remove(&path, MODE);
        }
        setxattr(path, MODE, records::mode(mode).as_bytes(), XattrFlags::empty())
    }

    /// Makes an empty file stand for a device.
    pub(super) fn record_device(
        fd: BorrowedFd<'_>,
        is_block: bool,
        device: u64,
    ) -> Result<(), Errno> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        let kind = if is_block {
            FileKind::BlockDevice { major, minor }
        } else {
            FileKind::CharDevice { major, minor }
        };
        let value = records::device(kind).ok_or(Errno::INVAL)?;
        setxattr(own_path(fd), DEVICE, value.as_bytes(), XattrFlags::empty())
    }

    /// Returns `true` if the file can have records.
    pub(super) fn has_records(&self) -> bool {
        let kind = u32::from(u16::from_ne_bytes([self.statx[28], self.statx[29]])) & TYPE;
        matches!(kind, REGULAR | DIRECTORY)
    }

    /// Returns the kernel's `struct statx` with these attributes.
    pub(super) fn to_statx(&self) -> [u8; STATX_SIZE] {
        let mut statx = self.statx;
        let mode = u16::try_from(self.mode).unwrap_or_default();
        statx[28..30].copy_from_slice(&mode.to_ne_bytes());
        for (at, value) in
            [(20, self.uid), (24, self.gid), (128, self.device.0), (132, self.device.1)]
        {
            statx[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        statx
    }

    /// Returns the kernel's `struct stat` with these attributes.
    pub(super) fn to_stat(&self) -> Vec<u8> {
        let word = |at: usize| word(&self.statx, at);
        let long = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&self.statx[at..at + 8]);
            u64::from_ne_bytes(bytes)
        };
        let device = rustix::fs::makedev(word(136), word(140));
        let special = rustix::fs::makedev(self.device.0, self.device.1);
        let times = [64, 112, 96].map(|at| (long(at), u64::from(word(at + 8))));
        let links = word(16);
        let mut stat = Vec::with_capacity(144);
        let mut push = |value: u64| stat.extend_from_slice(&value.to_ne_bytes());
        let two = |low: u32, high: u32| u64::from(low) | (u64::from(high) << 32);
        push(device);
        push(long(32));
        if cfg!(target_arch = "x86_64") {
            push(u64::from(links));
            push(two(self.mode, self.uid));
            push(two(self.gid, 0));
            push(special);
            push(long(40));
            push(u64::from(word(4)));
            push(long(48));
        } else {
            push(two(self.mode, links));
            push(two(self.uid, self.gid));
            push(special);
            push(0);
            push(long(40));
            push(two(word(4), 0));
            push(long(48));
        }
        for (seconds, nanoseconds) in times {
            push(seconds);
            push(nanoseconds);
        }
        push(0);
        if cfg!(target_arch = "x86_64") {
            push(0);
            push(0);
        }
        stat
    }
}

fn word(statx: &[u8; STATX_SIZE], at: usize) -> u32 {
    let mut bytes = [0; 4];
    bytes.copy_from_slice(&statx[at..at + 4]);
    u32::from_ne_bytes(bytes)
}

/// Returns the names of a file's attributes, each with a zero at its end.
pub(super) fn names(path: &str) -> Result<Vec<u8>, Errno> {
    let mut names = vec![0; 1024];
    loop {
        match listxattr(path, &mut names[..]) {
            Ok(length) => {
                names.truncate(length);
                return Ok(names);
            }
            Err(Errno::RANGE) if names.len() < 64 << 10 => names.resize(64 << 10, 0),
            Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads an attribute of at most a few bytes.
fn read(path: &str, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = [0; 64];
    match getxattr(path, name, &mut value[..]) {
        Ok(length) => Ok(Some(value[..length].to_vec())),
        Err(Errno::NODATA | Errno::OPNOTSUPP | Errno::RANGE) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn remove(path: &str, name: &[u8]) -> Result<(), Errno> {
    match removexattr(path, name) {
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_kernels_structures_are_written() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(12345).unwrap();
        let seen = file.metadata().unwrap();
        let shown = Shown { mode: 0o4751, uid: 7, gid: 8 };
        let metadata = Metadata::of(file.as_fd(), Some(shown)).unwrap();
        let stat = metadata.to_stat();
        let long = |at: usize| u64::from_ne_bytes(stat[at..at + 8].try_into().unwrap());
        assert_eq!((long(0), long(8), long(48)), (seen.dev(), seen.ino(), 12345));
        let words: Vec<u32> =
            stat.chunks_exact(4).map(|word| u32::from_ne_bytes(word.try_into().unwrap())).collect();
        let expected = [0o104_751, 7, 8];
        let at = if cfg!(target_arch = "x86_64") { 6 } else { 4 };
        let owner = if cfg!(target_arch = "x86_64") { 7 } else { 6 };
        assert_eq!([words[at], words[owner], words[owner + 1]], expected);
        let length = if cfg!(target_arch = "x86_64") { 144 } else { 128 };
        assert_eq!(stat.len(), length);
        assert_eq!(long(88), seen.mtime().cast_unsigned());
        let statx = metadata.to_statx();
        assert_eq!(u16::from_ne_bytes([statx[28], statx[29]]), 0o104_751);
    }

    #[test]
    fn modes_are_checked_as_the_kernel_does() {
        let file = tempfile::tempfile().unwrap();
        let metadata =
            |mode| Metadata::of(file.as_fd(), Some(Shown { mode, uid: 7, gid: 8 })).unwrap();
        let state = |uid, gid, groups: &[u32]| {
            let mut state = State::of_root();
            state.user = super::super::state::Roles::all(uid);
            state.group = super::super::state::Roles::all(gid);
            state.groups = groups.to_vec();
            state
        };
        let (read, write) = (Access::of_bits(4), Access::WRITE);
        let may = |mode, state: &State, access| metadata(mode).allows(state, access);
        assert!(may(0o400, &state(7, 1, &[]), read) && !may(0o400, &state(7, 1, &[]), write));
        assert!(may(0o020, &state(9, 1, &[8]), write) && !may(0o020, &state(9, 1, &[]), write));
        // The owner's bits apply to the owner, even if others have more.
        assert!(!may(0o077, &state(7, 8, &[]), read));
        assert!(may(0, &state(0, 0, &[]), read) && !may(0o600, &state(0, 0, &[]), Access::EXECUTE));
        assert!(may(0o001, &state(0, 0, &[]), Access::EXECUTE));
    }
}
