//! Sockets with names in the file system: `bind`, `connect`, `sendto`, `sendmsg`.
//!
//! The kernel has to execute these calls in the program, so the address becomes that of a link in
//! the program's real working directory ([`super::repeat`]). A new socket is created there and then
//! moved.
//!
//! A program reaches the sockets that its own step has created, and those that are mounted for it.
//! Others could lead its descriptors out of the step. Abstract names belong to the network, which a
//! step shares with the machine, so the same rule applies to them.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::fs::{AtFlags, FileType, statat};
use rustix::io::Errno;

use super::metadata::Access;
use super::repeat::{Repetition, place_of};
use super::resolve::{Found, Place};
use super::{Emulation, HERE, Pending, Reply, Request};
use crate::descriptors::path_of;

type Done = Result<Reply, Errno>;

/// The family of sockets with names in the file system.
const UNIX: u16 = 1;

/// The kernel's limit on addresses in bytes.
const MAX_ADDRESS: u64 = 128;

/// The longest name of a socket in bytes.
const MAX_NAME: usize = 108;

/// The pauses while the kernel creates a socket.
const PAUSES: [u64; 10] = [10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000];

/// The sockets that a step has created.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    /// The device and inode numbers of sockets in the file system.
    files: HashSet<(u64, u64)>,
    /// The names of abstract sockets.
    names: HashSet<Vec<u8>>,
}

/// A name in the address of a socket.
enum Name {
    /// An address of another kind, or none.
    Other,
    Abstract(Vec<u8>),
    Path(Vec<u8>),
}

/// A socket that the kernel is about to create.
#[derive(Debug)]
pub(super) struct Binding {
    /// The name in the directory of links.
    name: String,
    place: Place,
    mode: u32,
}

fn name_of(
    emulation: &Emulation,
    request: &Request<'_>,
    address: u64,
    length: u64,
) -> Result<Name, Errno> {
    if address == 0 || !(2..=MAX_ADDRESS).contains(&length) {
        return Ok(Name::Other);
    }
    let length = usize::try_from(length).map_err(|_| Errno::INVAL)?;
    let bytes = emulation.read(request, address, length)?;
    let [a, b, name @ ..] = &bytes[..] else { return Ok(Name::Other) };
    if u16::from_ne_bytes([*a, *b]) != UNIX || name.is_empty() {
        return Ok(Name::Other);
    }
    if name[0] == 0 {
        return Ok(Name::Abstract(name.to_vec()));
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Ok(Name::Path(name[..end.min(MAX_NAME)].to_vec()))
}

/// Returns the bytes of an address.
fn address_of(path: &str) -> Vec<u8> {
    let mut bytes = UNIX.to_ne_bytes().to_vec();
    bytes.extend_from_slice(path.as_bytes());
    bytes.push(0);
    bytes
}

impl Emulation {
    /// Finds the socket that a program may use.
    fn reachable(&self, request: &Request<'_>, path: &[u8]) -> Result<Found, Errno> {
        let base = &request.caller.state.directory;
        let found = self.tables().find(&request.caller, base, path, true)?;
        if found.kind != FileType::Socket {
            return Err(Errno::CONNREFUSED);
        }
        if !self.metadata(&found)?.allows(&request.caller.state, Access::WRITE) {
            return Err(Errno::ACCESS);
        }
        let stat = rustix::fs::fstat(&found.fd)?;
        let is_mounted =
            found.mount.is_some_and(|mount| self.mounts.get(mount).target == found.path);
        if is_mounted || self.sockets.files.contains(&(stat.st_dev, stat.st_ino)) {
            return Ok(found);
        }
        Err(Errno::CONNREFUSED)
    }

    /// Returns the new address for a socket that a program may use; `None` to keep it.
    fn readdress(
        &self,
        request: &Request<'_>,
        address: u64,
        length: u64,
    ) -> Result<Option<Vec<u8>>, Errno> {
        match name_of(self, request, address, length)? {
            Name::Other => Ok(None),
            Name::Abstract(name) if self.sockets.names.contains(&name) => Ok(None),
            Name::Abstract(_) => Err(Errno::CONNREFUSED),
            Name::Path(path) => {
                let found = self.reachable(request, &path)?;
                let target = path_of(found.fd.as_fd())?;
                Ok(Some(address_of(&self.scratch.link(&target)?)))
            }
        }
    }
}

pub(super) fn connect(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [socket, address, length, ..] = request.arguments;
    let Some(memory) = emulation.readdress(request, address, length)? else {
        return Ok(Reply::Continue);
    };
    let place = place_of(request.caller.thread);
    let arguments = [socket, place, memory.len() as u64, 0, 0, 0];
    emulation.repeat(request, &Repetition { arguments, memory }, Pending::Continue)
}

pub(super) fn sendto(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [socket, bytes, size, flags, address, length] = request.arguments;
    let Some(memory) = emulation.readdress(request, address, length)? else {
        return Ok(Reply::Continue);
    };
    let place = place_of(request.caller.thread);
    let arguments = [socket, bytes, size, flags, place, memory.len() as u64];
    emulation.repeat(request, &Repetition { arguments, memory }, Pending::Continue)
}

/// The address of a message is in `struct msghdr`, so that is replaced, too.
pub(super) fn sendmsg(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    /// The size of `struct msghdr` on 64-bit machines.
    const HEADER: usize = 56;
    let [socket, message, flags, ..] = request.arguments;
    let mut header: [u8; HEADER] = emulation.read_array(request, message)?;
    let long = |at: usize| {
        let mut word = [0; 8];
        word.copy_from_slice(&header[at..at + 8]);
        u64::from_ne_bytes(word)
    };
    let (address, length) = (long(0), long(8) & 0xffff_ffff);
    let Some(name) = emulation.readdress(request, address, length)? else {
        return Ok(Reply::Continue);
    };
    let place = place_of(request.caller.thread);
    header[..8].copy_from_slice(&(place + HEADER as u64).to_ne_bytes());
    let length = u32::try_from(name.len()).map_err(|_| Errno::INVAL)?;
    header[8..12].copy_from_slice(&length.to_ne_bytes());
    let memory = [&header[..], &name].concat();
    let arguments = [socket, place, flags, 0, 0, 0];
    emulation.repeat(request, &Repetition { arguments, memory }, Pending::Continue)
}

pub(super) fn bind(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    let [socket, address, length, ..] = request.arguments;
    let path = match name_of(emulation, request, address, length)? {
        Name::Other => return Ok(Reply::Continue),
        Name::Abstract(name) => {
            emulation.sockets.names.insert(name);
            return Ok(Reply::Continue);
        }
        Name::Path(path) => path,
    };
    let base = &request.caller.state.directory;
    if emulation.tables().find(&request.caller, base, &path, false).is_ok() {
        return Err(Errno::ADDRINUSE);
    }
    let place = emulation.tables().place(&request.caller, base, &path)?;
    let state = &request.caller.state;
    emulation.may_change(&place.directory, state)?;
    let (path, name) = emulation.scratch.entry();
    let memory = address_of(&path);
    let binding = Binding { name, place, mode: 0o777 & !state.umask };
    let arguments = [socket, place_of(request.caller.thread), memory.len() as u64, 0, 0, 0];
    emulation.repeat(request, &Repetition { arguments, memory }, Pending::Bind(Box::new(binding)))
}

/// Lets the kernel create the socket, and moves it to its place.
pub(super) fn finish(emulation: &mut Emulation, request: &Request<'_>, binding: &Binding) -> Done {
    request.call.send(crate::sys::Answer::Continue).map_err(|_| Errno::INTR)?;
    let links = emulation.scratch.links();
    for pause in PAUSES {
        std::thread::sleep(Duration::from_micros(pause));
        let Ok(stat) = statat(links, &binding.name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        emulation.sockets.files.insert((stat.st_dev, stat.st_ino));
        let (directory, name) = (&binding.place.directory.fd, &binding.place.name[..]);
        let mode = rustix::fs::Mode::from_raw_mode(binding.mode);
        let _ = rustix::fs::chmodat(links, &binding.name, mode, AtFlags::empty());
        let _ = rustix::fs::renameat(links, &binding.name, directory, name);
        break;
    }
    Ok(Reply::Answered)
}

/// `inotify_add_watch`, whose path is that of a link, too.
pub(super) fn inotify_add_watch(emulation: &mut Emulation, request: &Request<'_>) -> Done {
    /// `IN_DONT_FOLLOW`.
    const NOFOLLOW: u64 = 0x0200_0000;
    let [inotify, path, mask, ..] = request.arguments;
    let (base, path) = emulation.path_of(request, HERE, path)?;
    let follows = mask & NOFOLLOW == 0;
    let found = emulation.tables().find(&request.caller, &base, &path, follows)?;
    let mut memory = emulation.scratch.link(&path_of(found.fd.as_fd())?)?.into_bytes();
    memory.push(0);
    let arguments = [inotify, place_of(request.caller.thread), mask & !NOFOLLOW, 0, 0, 0];
    emulation.repeat(request, &Repetition { arguments, memory }, Pending::Continue)
}
