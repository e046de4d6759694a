//! The attributes of files: `stat`, `access`, `chmod`, `chown`, `utimensat`, `truncate`.

use std::os::fd::AsFd;

use kiln_tree::Owner;
use kiln_tree::records::set_entry_owner;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps, utimensat};
use rustix::io::Errno;

use super::metadata::{Access, Metadata, SETGID, SETUID};
use super::mounts::{Directory, Shown, parent_of};
use super::open::follows;
use super::resolve::{Found, link_target};
use super::state::State;
use super::{Emulation, HERE, Reply, Request};
use crate::descriptors::own_path;

type Done = Result<Reply, Errno>;

/// The type of file systems in memory.
const TMPFS: u64 = 0x0102_1994;

/// The ID that means "unchanged".
const UNCHANGED: u32 = u32::MAX;

impl Emulation {
    /// Returns the attributes of a file.
    pub(super) fn metadata(&self, found: &Found) -> Result<Metadata, Errno> {
        let shown = found.mount.and_then(|mount| self.mounts.get(mount).shown);
        let mut metadata = Metadata::of(found.fd.as_fd(), shown)?;
        let process = found.mount.and_then(|mount| self.tables().process_at(mount, &found.path));
        if let Some(state) = process {
            metadata.belong_to(&state);
        }
        if let Some((directory, name)) = self.entry(found) {
            metadata.apply_entry(directory.fd.as_fd(), &name)?;
        }
        Ok(metadata)
    }

    /// Returns the directory that records the owner of a link or fifo, and its name there.
    fn entry(&self, found: &Found) -> Option<(Directory, Vec<u8>)> {
        let mount = found.mount.map(|mount| self.mounts.get(mount))?;
        let has_entry = matches!(found.kind, FileType::Symlink | FileType::Fifo);
        if !has_entry || mount.is_proc || mount.target == found.path {
            return None;
        }
        let directory = self.mounts.open_directory(parent_of(&found.path)).ok()?;
        let name = found.path.rsplit(|byte| *byte == b'/').next()?;
        Some((directory, name.to_vec()))
    }

    /// Returns `true` if a file can't be changed. In `/proc`, only processes can.
    pub(super) fn is_readonly(&self, found: &Found) -> bool {
        let Some(mount) = found.mount.map(|mount| self.mounts.get(mount)) else { return false };
        let place = found.path.strip_prefix(b"/proc/").unwrap_or_default();
        let is_process = place.first().is_some_and(u8::is_ascii_digit);
        mount.is_readonly || (mount.is_proc && !is_process)
    }

    /// Returns `true` for a file that doesn't belong to the program's trees: a device of the machine
    /// or a file in memory. The program doesn't change its attributes.
    pub(super) fn is_outside(&self, found: &Found) -> bool {
        let is_device = matches!(found.kind, FileType::CharacterDevice | FileType::BlockDevice);
        let shown = found.mount.is_some_and(|mount| self.mounts.get(mount).shown.is_some());
        is_device || shown
    }

    /// Makes a file of a single-file mount show other attributes. Others keep theirs.
    fn show_as(&mut self, found: &Found, shown: Shown) {
        if let Some(mount) = self.mounts.at(&found.path) {
            self.mounts.show_as(mount, shown);
        }
    }

    pub(super) fn writable(&self, found: &Found) -> Result<Metadata, Errno> {
        if self.is_readonly(found) {
            return Err(Errno::ROFS);
        }
        self.metadata(found)
    }

    /// Finds the file of a call with the flags of `*at` calls.
    pub(super) fn found(
        &self,
        request: &Request<'_>,
        directory: u64,
        path: u64,
        flags: u64,
    ) -> Result<Found, Errno> {
        let may_be_empty = flags as u32 & AtFlags::EMPTY_PATH.bits() != 0;
        if may_be_empty && (path == 0 || self.read_path(request, path)?.is_empty()) {
            if directory as i32 == libc::AT_FDCWD {
                let base = &request.caller.state.directory;
                return self.tables().find(&request.caller, base, b".", true);
            }
            return self.file_of(request, directory);
        }
        let (base, path) = self.path_of(request, directory, path)?;
        self.tables().find(&request.caller, &base, &path, follows(flags))
    }

    fn show(&self, request: &Request<'_>, found: &Found, at: u64) -> Done {
        self.write(request, at, &self.metadata(found)?.to_stat())
    }

    fn change_mode(&mut self, request: &Request<'_>, found: &Found, mode: u64) -> Done {
        let metadata = self.writable(found)?;
        let state = &request.caller.state;
        if metadata.is_link() {
            return Err(Errno::OPNOTSUPP);
        }
        if !metadata.is_owned_by(state) {
            return Err(Errno::PERM);
        }
        let keeps_group = state.overrides_modes() || state.is_member(metadata.gid);
        let lost = if keeps_group || metadata.is_directory() { 0 } else { SETGID };
        if self.is_outside(found) {
            let (uid, gid) = (metadata.uid, metadata.gid);
            self.show_as(found, Shown { mode: mode as u32 & 0o7777, uid, gid });
            return Ok(Reply::Value(0));
        }
        metadata.set_mode(found.fd.as_fd(), mode as u32 & 0o7777 & !lost)?;
        Ok(Reply::Value(0))
    }

    fn change_owner(&mut self, request: &Request<'_>, found: &Found, ids: [u64; 2]) -> Done {
        let metadata = self.writable(found)?;
        let state = &request.caller.state;
        let [uid, gid] = ids.map(|id| id as u32);
        if !may_give(state, &metadata, uid, gid) {
            return Err(Errno::PERM);
        }
        let new = |id, old| if id == UNCHANGED { old } else { id };
        let (fd, mode) = (found.fd.as_fd(), metadata.mode & 0o7777);
        let (uid, gid) = (new(uid, metadata.uid), new(gid, metadata.gid));
        if self.is_outside(found) {
            self.show_as(found, Shown { mode: mode & 0o7777, uid, gid });
            return Ok(Reply::Value(0));
        }
        match self.entry(found) {
            Some((directory, name)) => {
                set_entry_owner(directory.fd.as_fd(), &name, Owner { uid, gid })?;
                mark_changed(found)?;
            }
            None => metadata.set_owner(fd, uid, gid)?,
        }
        // A program must not get the rights of another owner by its mode.
        let group = if mode & 0o010 == 0 { 0 } else { SETGID };
        let lost = if metadata.is_regular() { mode & (SETUID | group) } else { 0 };
        if lost != 0 {
            metadata.set_mode(fd, mode & !lost)?;
        }
        Ok(Reply::Value(0))
    }

    fn change_times(
        &self,
        request: &Request<'_>,
        found: &Found,
        times: Option<Timestamps>,
    ) -> Done {
        let metadata = self.writable(found)?;
        let state = &request.caller.state;
        let may_touch = times.is_none() && metadata.allows(state, Access::WRITE);
        if !metadata.is_owned_by(state) && !may_touch {
            return Err(if times.is_none() { Errno::ACCESS } else { Errno::PERM });
        }
        if self.is_outside(found) {
            return Ok(Reply::Value(0));
        }
        let now = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        let times = times.unwrap_or(Timestamps { last_access: now, last_modification: now });
        if metadata.is_link() {
            utimensat(&found.fd, "", &times, AtFlags::EMPTY_PATH)?;
        } else {
            utimensat(CWD, own_path(found.fd.as_fd()), &times, AtFlags::empty())?;
        }
        Ok(Reply::Value(0))
    }

    fn read_times(&self, request: &Request<'_>, at: u64) -> Result<Option<Timestamps>, Errno> {
        if at == 0 {
            return Ok(None);
        }
        let bytes: [u8; 32] = self.read_array(request, at)?;
        let number = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            i64::from_ne_bytes(word)
        };
        let time = |at| Timespec { tv_sec: number(at), tv_nsec: number(at + 8) };
        Ok(Some(Timestamps { last_access: time(0), last_modification: time(16) }))
    }

    fn check_access(&self, request: &Request<'_>, place: [u64; 2], bits: u64, flags: u64) -> Done {
        let found = self.found(request, place[0], place[1], flags)?;
        let mut state = State::clone(&request.caller.state);
        if flags as u32 & AtFlags::EACCESS.bits() == 0 {
            state.user.files = state.user.real;
            state.group.files = state.group.real;
            state.has_capabilities = false;
        }
        let metadata = self.metadata(&found)?;
        if !metadata.allows(&state, Access::of_bits(bits as u32)) {
            return Err(Errno::ACCESS);
        }
        let is_special = !metadata.is_regular() && !metadata.is_directory();
        if bits & 2 != 0 && !is_special && self.is_readonly(&found) {
            return Err(Errno::ROFS);
        }
        Ok(Reply::Value(0))
    }

    fn read_link(&self, request: &Request<'_>, place: [u64; 2], at: u64, size: u64) -> Done {
        let nofollow = u64::from(AtFlags::SYMLINK_NOFOLLOW.bits() | AtFlags::EMPTY_PATH.bits());
        let found = self.found(request, place[0], place[1], nofollow)?;
        if !self.metadata(&found)?.is_link() {
            return Err(Errno::INVAL);
        }
        let mut target = link_target(&found, self.tables(), request.caller.thread)?;
        target.truncate(usize::try_from(size).unwrap_or(usize::MAX));
        self.write(request, at, &target)?;
        Ok(Reply::Value(target.len() as i64))
    }
}

/// Updates the time of a file's last status change, by which changes are found.
fn mark_changed(found: &Found) -> Result<(), Errno> {
    let stat = rustix::fs::fstat(&found.fd)?;
    let time = |tv_sec, nanoseconds| Timespec { tv_sec, tv_nsec: nanoseconds as _ };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    utimensat(&found.fd, "", &times, AtFlags::EMPTY_PATH)
}

/// Returns `true` if a process may give a file to an owner.
fn may_give(state: &State, metadata: &Metadata, uid: u32, gid: u32) -> bool {
    let keeps_user = uid == UNCHANGED || uid == metadata.uid;
    let keeps_group = gid == UNCHANGED || gid == metadata.gid || state.is_member(gid);
    state.overrides_modes() || (metadata.is_owned_by(state) && keeps_user && keeps_group)
}

pub(super) fn newfstatat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, at, flags, ..] = request.arguments;
    let found = emulation.found(request, directory, path, flags)?;
    emulation.show(request, &found, at)
}

pub(super) fn fstat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [fd, at, ..] = request.arguments;
    let found = emulation.file_of(request, fd)?;
    emulation.show(request, &found, at)
}

pub(super) fn statx(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, flags, _, at, _] = request.arguments;
    let found = emulation.found(request, directory, path, flags)?;
    let statx = emulation.metadata(&found)?.to_statx();
    emulation.write(request, at, &statx)
}

pub(super) fn faccessat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, bits, ..] = request.arguments;
    emulation.check_access(request, [directory, path], bits, 0)
}

pub(super) fn faccessat2(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, bits, flags, ..] = request.arguments;
    emulation.check_access(request, [directory, path], bits, flags)
}

pub(super) fn readlinkat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, at, size, ..] = request.arguments;
    emulation.read_link(request, [directory, path], at, size)
}

pub(super) fn fchmodat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, mode, ..] = request.arguments;
    let found = emulation.found(request, directory, path, 0)?;
    emulation.change_mode(request, &found, mode)
}

pub(super) fn fchmodat2(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, mode, flags, ..] = request.arguments;
    let found = emulation.found(request, directory, path, flags)?;
    emulation.change_mode(request, &found, mode)
}

pub(super) fn fchmod(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [fd, mode, ..] = request.arguments;
    let found = emulation.file_of(request, fd)?;
    emulation.change_mode(request, &found, mode)
}

pub(super) fn fchownat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, uid, gid, flags, _] = request.arguments;
    let found = emulation.found(request, directory, path, flags)?;
    emulation.change_owner(request, &found, [uid, gid])
}

pub(super) fn fchown(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [fd, uid, gid, ..] = request.arguments;
    let found = emulation.file_of(request, fd)?;
    emulation.change_owner(request, &found, [uid, gid])
}

pub(super) fn utimensat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, times, flags, ..] = request.arguments;
    let times = emulation.read_times(request, times)?;
    // Without a path, the descriptor is the file.
    let empty = if path == 0 { u64::from(AtFlags::EMPTY_PATH.bits()) } else { 0 };
    let found = emulation.found(request, directory, path, flags | empty)?;
    emulation.change_times(request, &found, times)
}

pub(super) fn truncate(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [path, length, ..] = request.arguments;
    let found = emulation.found(request, HERE, path, 0)?;
    let metadata = emulation.writable(&found)?;
    if metadata.is_directory() {
        return Err(Errno::ISDIR);
    }
    if !metadata.allows(&request.caller.state, Access::WRITE) {
        return Err(Errno::ACCESS);
    }
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::open(own_path(found.fd.as_fd()), flags, Mode::empty())?;
    rustix::fs::ftruncate(file, length)?;
    Ok(Reply::Value(0))
}

pub(super) fn statfs(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [path, at, ..] = request.arguments;
    let found = emulation.found(request, HERE, path, 0)?;
    let path = std::ffi::CString::new(own_path(found.fd.as_fd())).map_err(|_| Errno::INVAL)?;
    let mut statfs = crate::sys::statfs(&path).map_err(|error| super::errno(&error))?;
    if found.mount.is_some_and(|mount| emulation.mounts.get(mount).is_memory) {
        statfs[..8].copy_from_slice(&TMPFS.to_ne_bytes());
    }
    emulation.write(request, at, &statfs)
}

/// The calls without a directory, which only older architectures have.
#[cfg(target_arch = "x86_64")]
pub(super) mod plain {
    use rustix::fs::{AtFlags, Timespec, Timestamps};

    use super::{Done, Emulation, Errno, HERE, Request};

    const NOFOLLOW: u64 = AtFlags::SYMLINK_NOFOLLOW.bits() as u64;

    pub(in super::super) fn stat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, at, ..] = request.arguments;
        let found = emulation.found(request, HERE, path, 0)?;
        emulation.show(request, &found, at)
    }

    pub(in super::super) fn lstat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, at, ..] = request.arguments;
        let found = emulation.found(request, HERE, path, NOFOLLOW)?;
        emulation.show(request, &found, at)
    }

    pub(in super::super) fn access(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, bits, ..] = request.arguments;
        emulation.check_access(request, [HERE, path], bits, 0)
    }

    pub(in super::super) fn readlink(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, at, size, ..] = request.arguments;
        emulation.read_link(request, [HERE, path], at, size)
    }

    pub(in super::super) fn chmod(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, mode, ..] = request.arguments;
        let found = emulation.found(request, HERE, path, 0)?;
        emulation.change_mode(request, &found, mode)
    }

    pub(in super::super) fn chown(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, uid, gid, ..] = request.arguments;
        let found = emulation.found(request, HERE, path, 0)?;
        emulation.change_owner(request, &found, [uid, gid])
    }

    pub(in super::super) fn lchown(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, uid, gid, ..] = request.arguments;
        let found = emulation.found(request, HERE, path, NOFOLLOW)?;
        emulation.change_owner(request, &found, [uid, gid])
    }

    pub(in super::super) fn utime(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, times, ..] = request.arguments;
        let found = emulation.found(request, HERE, path, 0)?;
        let times = if times == 0 {
            None
        } else {
            let [accessed, modified] = numbers(emulation.read_array(request, times)?);
            let time = |tv_sec| Timespec { tv_sec, tv_nsec: 0 };
            Some(Timestamps { last_access: time(accessed), last_modification: time(modified) })
        };
        emulation.change_times(request, &found, times)
    }

    pub(in super::super) fn utimes(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, times, ..] = request.arguments;
        touch(emulation, request, [HERE, path], times)
    }

    pub(in super::super) fn futimesat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [directory, path, times, ..] = request.arguments;
        touch(emulation, request, [directory, path], times)
    }

    /// Sets times with microseconds.
    fn touch(emulation: &Emulation, request: &Request<'_>, place: [u64; 2], times: u64) -> Done {
        let empty = if place[1] == 0 { u64::from(AtFlags::EMPTY_PATH.bits()) } else { 0 };
        let found = emulation.found(request, place[0], place[1], empty)?;
        let mut times = emulation.read_times(request, times)?;
        if let Some(Timestamps { last_access, last_modification }) = &mut times {
            for time in [last_access, last_modification] {
                if !(0..1_000_000).contains(&time.tv_nsec) {
                    return Err(Errno::INVAL);
                }
                time.tv_nsec *= 1000;
            }
        }
        emulation.change_times(request, &found, times)
    }

    fn numbers(bytes: [u8; 16]) -> [i64; 2] {
        let (first, second) = bytes.split_at(8);
        [first, second].map(|bytes| bytes.try_into().map_or(0, i64::from_ne_bytes))
    }
}
