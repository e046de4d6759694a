//! Changes of directories: `mkdir`, `unlink`, `rename`, `link`, `symlink`, `mknod`.

use std::os::fd::AsFd;

use kiln_tree::Owner;
use kiln_tree::records::set_entry_owner;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, linkat, mkdirat, mknodat, openat,
    renameat_with, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;

use super::metadata::{Metadata, SETGID};
use super::mounts::Directory;
use super::open::dress;
use super::resolve::Place;
use super::state::State;
use super::{Emulation, Reply, Request};
use crate::descriptors::own_path;

const NEW: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Emulation {
    /// Returns the attributes of a directory whose entries a process may change.
    pub(super) fn may_change(
        &self,
        directory: &Directory,
        state: &State,
    ) -> Result<Metadata, Errno> {
        use super::metadata::Access;
        let mount = self.mounts.get(directory.mount);
        let metadata = Metadata::of(directory.fd.as_fd(), mount.shown)?;
        if !metadata.allows(state, Access::CHANGE) {
            return Err(Errno::ACCESS);
        }
        if mount.is_readonly || mount.is_proc {
            return Err(Errno::ROFS);
        }
        Ok(metadata)
    }

    /// Checks that a process may remove an entry.
    fn may_remove(&self, place: &Place, state: &State) -> Result<Metadata, Errno> {
        if self.mounts.is_busy(&place.path()) {
            return Err(Errno::BUSY);
        }
        let fd = openat(&place.directory.fd, &place.name[..], NEW, Mode::empty())?;
        let mut entry = Metadata::of(fd.as_fd(), None)?;
        if entry.has_entry_record() {
            entry.apply_entry(place.directory.fd.as_fd(), &place.name)?;
        }
        let above = self.may_change(&place.directory, state)?;
        if above.protects(&entry, state) {
            return Err(Errno::PERM);
        }
        if place.is_directory && !entry.is_directory() {
            return Err(Errno::NOTDIR);
        }
        Ok(entry)
    }

    /// Finds the place of a new entry.
    fn new_place(
        &self,
        request: &Request<'_>,
        directory: u64,
        path: u64,
    ) -> Result<(Place, Metadata), Errno> {
        let (base, path) = self.path_of(request, directory, path)?;
        let place = self.tables().place(&request.caller, &base, &path)?;
        let exists = statat(&place.directory.fd, &place.name[..], AtFlags::SYMLINK_NOFOLLOW);
        if matches!(&place.name[..], b"." | b"..")
            || self.mounts.at(&place.path()).is_some()
            || exists.is_ok()
        {
            return Err(Errno::EXIST);
        }
        let above = self.may_change(&place.directory, &request.caller.state)?;
        Ok((place, above))
    }

    fn make_directory(
        &self,
        request: &Request<'_>,
        directory: u64,
        path: u64,
        mode: u64,
    ) -> Result<Reply, Errno> {
        let (place, above) = self.new_place(request, directory, path)?;
        let state = &request.caller.state;
        mkdirat(&place.directory.fd, &place.name[..], Mode::from_raw_mode(0o700))?;
        let fd = openat(&place.directory.fd, &place.name[..], NEW, Mode::empty())?;
        dress(fd.as_fd(), state, &above, mode as u32 & 0o1777 & !state.umask)?;
        Ok(Reply::Value(0))
    }

    fn make_node(
        &self,
        request: &Request<'_>,
        directory: u64,
        path: u64,
        mode: u64,
        device: u64,
    ) -> Result<Reply, Errno> {
        let (place, above) = self.new_place(request, directory, path)?;
        let (state, bits) = (&request.caller.state, mode as u32);
        let kind = match bits & 0o170_000 {
            0 => FileType::RegularFile,
            kind => FileType::from_raw_mode(kind),
        };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && !state.is_root() {
            return Err(Errno::PERM);
        }
        let on_disk = if is_device { FileType::RegularFile } else { kind };
        let (directory, name) = (&place.directory.fd, &place.name[..]);
        mknodat(directory, name, on_disk, Mode::from_raw_mode(0o600), 0)?;
        let fd = openat(directory, name, NEW, Mode::empty())?;
        if is_device {
            Metadata::record_device(fd.as_fd(), kind == FileType::BlockDevice, device)?;
        }
        dress(fd.as_fd(), state, &above, bits & 0o7777 & !state.umask)?;
        if kind == FileType::Fifo {
            record_entry(&place, state, &above)?;
        }
        Ok(Reply::Value(0))
    }

    fn make_link(
        &self,
        request: &Request<'_>,
        target: u64,
        directory: u64,
        path: u64,
    ) -> Result<Reply, Errno> {
        let target = self.read_path(request, target)?;
        if target.is_empty() {
            return Err(Errno::NOENT);
        }
        let (place, above) = self.new_place(request, directory, path)?;
        if place.is_directory {
            return Err(Errno::NOENT);
        }
        symlinkat(&target[..], &place.directory.fd, &place.name[..])?;
        record_entry(&place, &request.caller.state, &above)?;
        Ok(Reply::Value(0))
    }

    fn remove(
        &self,
        request: &Request<'_>,
        directory: u64,
        path: u64,
        flags: u64,
    ) -> Result<Reply, Errno> {
        let (base, path) = self.path_of(request, directory, path)?;
        let flags = AtFlags::from_bits_retain(flags as u32);
        let removes_directory = flags.contains(AtFlags::REMOVEDIR);
        let ends_with = |name: &[u8]| path == name || path.ends_with(&[b"/", name].concat());
        if removes_directory && ends_with(b".") {
            return Err(Errno::INVAL);
        }
        let place = match self.tables().place(&request.caller, &base, &path) {
            Err(Errno::EXIST) => return Err(Errno::BUSY),
            other => other?,
        };
        if place.name == b".." {
            return Err(if removes_directory { Errno::NOTEMPTY } else { Errno::ISDIR });
        }
        self.may_remove(&place, &request.caller.state)?;
        unlinkat(&place.directory.fd, &place.name[..], flags)?;
        Ok(Reply::Value(0))
    }

    fn rename(
        &mut self,
        request: &Request<'_>,
        from: [u64; 2],
        to: [u64; 2],
        flags: u64,
    ) -> Result<Reply, Errno> {
        let place = |[directory, path]: [u64; 2]| {
            let (base, path) = self.path_of(request, directory, path)?;
            match self.tables().place(&request.caller, &base, &path) {
                Err(Errno::EXIST) => Err(Errno::BUSY),
                other => other,
            }
        };
        let (from, to) = (place(from)?, place(to)?);
        if [&from, &to].iter().any(|place| matches!(&place.name[..], b"." | b"..")) {
            return Err(Errno::BUSY);
        }
        let state = &request.caller.state;
        let entry = self.may_remove(&from, state)?;
        match self.may_remove(&to, state) {
            Err(Errno::NOENT) => {
                self.may_change(&to.directory, state)?;
            }
            // A directory may be renamed to a name with a slash.
            Err(Errno::NOTDIR) if to.is_directory => return Err(Errno::NOTDIR),
            other => {
                other?;
            }
        }
        if from.directory.mount != to.directory.mount {
            return Err(Errno::XDEV);
        }
        let flags = RenameFlags::from_bits_retain(flags as u32);
        if flags.contains(RenameFlags::WHITEOUT) {
            return Err(Errno::INVAL);
        }
        let (old, new) = (&from.directory.fd, &to.directory.fd);
        renameat_with(old, &from.name[..], new, &to.name[..], flags)?;
        if entry.has_entry_record() {
            let owner = Owner { uid: entry.uid, gid: entry.gid };
            set_entry_owner(to.directory.fd.as_fd(), &to.name, owner)?;
        }
        let moved = statat(new, &to.name[..], AtFlags::SYMLINK_NOFOLLOW);
        let is_directory = |mode| FileType::from_raw_mode(mode) == FileType::Directory;
        if moved.is_ok_and(|stat| is_directory(stat.st_mode)) {
            self.states.rename(&from.path(), &to.path());
        }
        Ok(Reply::Value(0))
    }

    fn link(
        &self,
        request: &Request<'_>,
        from: [u64; 2],
        to: [u64; 2],
        flags: u64,
    ) -> Result<Reply, Errno> {
        let flags = AtFlags::from_bits_retain(flags as u32);
        let [directory, path] = from;
        let found =
            if flags.contains(AtFlags::EMPTY_PATH) && self.read_path(request, path)?.is_empty() {
                self.file_of(request, directory)?
            } else {
                let (base, path) = self.path_of(request, directory, path)?;
                let follows = flags.contains(AtFlags::SYMLINK_FOLLOW);
                self.tables().find(&request.caller, &base, &path, follows)?
            };
        if found.kind == FileType::Directory {
            return Err(Errno::PERM);
        }
        let (place, _) = self.new_place(request, to[0], to[1])?;
        if place.is_directory {
            return Err(Errno::NOENT);
        }
        if found.mount.is_some_and(|mount| mount != place.directory.mount) {
            return Err(Errno::XDEV);
        }
        let source = own_path(found.fd.as_fd());
        let follow = AtFlags::SYMLINK_FOLLOW;
        linkat(CWD, source, &place.directory.fd, &place.name[..], follow)?;
        Ok(Reply::Value(0))
    }
}

/// Records the owner of a new link or fifo.
fn record_entry(place: &Place, state: &State, above: &Metadata) -> Result<(), Errno> {
    let gid = if above.mode & SETGID == 0 { state.group.files } else { above.gid };
    let owner = Owner { uid: state.user.files, gid };
    set_entry_owner(place.directory.fd.as_fd(), &place.name, owner)
}

type Done = Result<Reply, Errno>;

pub(super) fn mkdirat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, mode, ..] = request.arguments;
    emulation.make_directory(request, directory, path, mode)
}

pub(super) fn mknodat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, mode, device, ..] = request.arguments;
    emulation.make_node(request, directory, path, mode, device)
}

pub(super) fn symlinkat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [target, directory, path, ..] = request.arguments;
    emulation.make_link(request, target, directory, path)
}

pub(super) fn unlinkat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [directory, path, flags, ..] = request.arguments;
    emulation.remove(request, directory, path, flags)
}

pub(super) fn renameat2(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [a, b, c, d, flags, _] = request.arguments;
    emulation.rename(request, [a, b], [c, d], flags)
}

pub(super) fn renameat(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [a, b, c, d, ..] = request.arguments;
    emulation.rename(request, [a, b], [c, d], 0)
}

pub(super) fn linkat_call(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [a, b, c, d, flags, _] = request.arguments;
    emulation.link(request, [a, b], [c, d], flags)
}

/// The calls without a directory, which only older architectures have.
#[cfg(target_arch = "x86_64")]
pub(super) mod plain {
    use super::super::HERE;
    use super::{AtFlags, Done, Emulation, Request};

    pub(in super::super) fn mkdir(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, mode, ..] = request.arguments;
        emulation.make_directory(request, HERE, path, mode)
    }

    pub(in super::super) fn mknod(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [path, mode, device, ..] = request.arguments;
        emulation.make_node(request, HERE, path, mode, device)
    }

    pub(in super::super) fn symlink(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [target, path, ..] = request.arguments;
        emulation.make_link(request, target, HERE, path)
    }

    pub(in super::super) fn unlink(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        emulation.remove(request, HERE, request.arguments[0], 0)
    }

    pub(in super::super) fn rmdir(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let flags = AtFlags::REMOVEDIR.bits();
        emulation.remove(request, HERE, request.arguments[0], flags.into())
    }

    pub(in super::super) fn rename(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [from, to, ..] = request.arguments;
        emulation.rename(request, [HERE, from], [HERE, to], 0)
    }

    pub(in super::super) fn link(emulation: &mut Emulation, request: &Request<'_>) -> Done {
        let [from, to, ..] = request.arguments;
        emulation.link(request, [HERE, from], [HERE, to], 0)
    }
}
