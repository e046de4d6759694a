//! Opening files: `open`, `openat`, `creat`.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, readlinkat};
use rustix::io::Errno;

use super::metadata::{Access, Metadata, SETGID};
use super::resolve::{Found, Place};
use super::state::State;
use super::{Emulation, Reply, Request};
use crate::descriptors::own_path;
use crate::devices::DEVICES;
use crate::root::MAX_LINKS;
use crate::supervisor::Call;
use crate::sys::{self, Answer, Fork};

/// The flags that only concern the way to the file.
const PATH_FLAGS: OFlags = OFlags::CREATE.union(OFlags::EXCL).union(OFlags::NOFOLLOW);

/// The options of a call that opens a file.
#[derive(Clone, Copy, Debug)]
struct Opening {
    flags: OFlags,
    /// The permission bits of a new file.
    mode: u32,
}

impl Opening {
    fn access(self) -> Access {
        let mode = self.flags & OFlags::ACCMODE;
        let reads = mode != OFlags::WRONLY;
        let writes = mode != OFlags::RDONLY || self.flags.contains(OFlags::TRUNC);
        Access::of_bits(u32::from(reads) * 4 + u32::from(writes) * 2)
    }

    fn writes(self) -> bool {
        let writes = OFlags::TRUNC | OFlags::WRONLY | OFlags::RDWR;
        self.flags.intersects(writes)
    }

    fn is_temporary(self) -> bool {
        self.flags.contains(OFlags::TMPFILE)
    }
}

pub(super) fn openat_call(
    emulation: &mut Emulation,
    request: &Request<'_>,
) -> Result<Reply, Errno> {
    let [directory, path, flags, mode, ..] = request.arguments;
    open(emulation, request, directory, path, opening(flags, mode))
}

#[cfg(target_arch = "x86_64")]
pub(super) fn open_call(emulation: &mut Emulation, request: &Request<'_>) -> Result<Reply, Errno> {
    let [path, flags, mode, ..] = request.arguments;
    open(emulation, request, super::HERE, path, opening(flags, mode))
}

#[cfg(target_arch = "x86_64")]
pub(super) fn creat(emulation: &mut Emulation, request: &Request<'_>) -> Result<Reply, Errno> {
    let [path, mode, ..] = request.arguments;
    let flags = (OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC).bits();
    open(emulation, request, super::HERE, path, opening(flags.into(), mode))
}

fn opening(flags: u64, mode: u64) -> Opening {
    let flags = OFlags::from_bits_retain(flags as u32);
    Opening { flags, mode: mode as u32 & 0o7777 }
}

fn open(
    emulation: &mut Emulation,
    request: &Request<'_>,
    directory: u64,
    path: u64,
    opening: Opening,
) -> Result<Reply, Errno> {
    let (mut base, mut path) = emulation.path_of(request, directory, path)?;
    let flags = opening.flags;
    let is_exclusive = flags.contains(OFlags::CREATE | OFlags::EXCL);
    let follows = !flags.contains(OFlags::NOFOLLOW) && !is_exclusive;
    for _ in 0..MAX_LINKS {
        match emulation.tables().find(&request.caller, &base, &path, follows) {
            Ok(_) if is_exclusive => return Err(Errno::EXIST),
            Ok(found) => return open_found(emulation, request, &found, opening),
            Err(Errno::NOENT) if flags.contains(OFlags::CREATE) && !path.is_empty() => {}
            Err(errno) => return Err(errno),
        }
        let place = emulation.tables().place(&request.caller, &base, &path)?;
        if place.is_directory {
            return Err(Errno::ISDIR);
        }
        // A link whose target is missing: the target is created.
        match readlinkat(&place.directory.fd, &place.name[..], Vec::new()) {
            Ok(target) if follows => {
                (base, path) = (place.directory.path, target.into_bytes());
                continue;
            }
            Ok(_) => return Err(Errno::EXIST),
            Err(_) => {}
        }
        match create(emulation, request, &place, opening) {
            Err(Errno::EXIST) if !is_exclusive => {}
            other => return other,
        }
    }
    Err(Errno::LOOP)
}

fn create(
    emulation: &Emulation,
    request: &Request<'_>,
    place: &Place,
    opening: Opening,
) -> Result<Reply, Errno> {
    let state = &request.caller.state;
    let above = emulation.may_change(&place.directory, state)?;
    let flags = opening.flags | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(&place.directory.fd, &place.name[..], flags, Mode::from_raw_mode(0o600))?;
    dress(fd.as_fd(), state, &above, opening.mode & !state.umask)?;
    Ok(Reply::Descriptor { fd, closes: opening.flags.contains(OFlags::CLOEXEC) })
}

/// Gives a new file its owner and mode. A file in a setgid directory gets the directory's group, and
/// a directory there becomes setgid too.
pub(super) fn dress(
    fd: std::os::fd::BorrowedFd<'_>,
    state: &State,
    above: &Metadata,
    mode: u32,
) -> Result<(), Errno> {
    let metadata = Metadata::of(fd, None)?;
    let inherits = above.mode & SETGID != 0;
    let gid = if inherits { above.gid } else { state.group.files };
    let setgid = if inherits && metadata.is_directory() { SETGID } else { 0 };
    metadata.set_owner(fd, state.user.files, gid)?;
    metadata.set_mode(fd, mode | setgid)
}

fn open_found(
    emulation: &Emulation,
    request: &Request<'_>,
    found: &Found,
    opening: Opening,
) -> Result<Reply, Errno> {
    let Opening { flags, .. } = opening;
    let closes = flags.contains(OFlags::CLOEXEC);
    let is_directory = found.kind == FileType::Directory;
    if flags.contains(OFlags::DIRECTORY) && !is_directory {
        return Err(Errno::NOTDIR);
    }
    if flags.contains(OFlags::CREATE) && is_directory {
        return Err(Errno::ISDIR);
    }
    if flags.contains(OFlags::PATH) {
        let fd = rustix::io::fcntl_dupfd_cloexec(&found.fd, 0)?;
        return Ok(Reply::Descriptor { fd, closes });
    }
    if found.kind == FileType::Symlink {
        return Err(Errno::LOOP);
    }
    if opening.is_temporary() {
        return open_temporary(emulation, request, found, opening);
    }
    let state = &request.caller.state;
    let metadata = emulation.metadata(found)?;
    // A pipe without a name was handed to the program.
    if found.mount.is_some() && !metadata.allows(state, opening.access()) {
        return Err(Errno::ACCESS);
    }
    let keeps_content = matches!(found.kind, FileType::RegularFile | FileType::Directory);
    if keeps_content && opening.writes() && emulation.is_readonly(found) {
        return Err(if is_directory { Errno::ISDIR } else { Errno::ROFS });
    }
    if let Some(fd) = emulation.view(found)? {
        return Ok(Reply::Descriptor { fd, closes });
    }
    let flags = (flags - PATH_FLAGS) | OFlags::CLOEXEC | OFlags::NOCTTY;
    if let Some((is_block, major, minor)) = metadata.recorded_device() {
        let known = DEVICES.iter().find(|(_, a, b)| !is_block && (*a, *b) == (major, minor));
        let (name, ..) = known.ok_or(Errno::PERM)?;
        let fd = rustix::fs::open(format!("/dev/{name}"), flags, Mode::empty())?;
        return Ok(Reply::Descriptor { fd, closes });
    }
    if found.path == b"/dev/tty" {
        return Ok(Reply::Descriptor { fd: open_terminal(request, flags)?, closes });
    }
    let may_block = found.kind == FileType::Fifo && !flags.contains(OFlags::NONBLOCK);
    if may_block && flags & OFlags::ACCMODE != OFlags::RDWR {
        return wait_for_peer(request.call, &found.fd, flags, closes);
    }
    let fd = rustix::fs::open(own_path(found.fd.as_fd()), flags, Mode::empty())?;
    Ok(Reply::Descriptor { fd, closes })
}

/// Opens a file without a name.
fn open_temporary(
    emulation: &Emulation,
    request: &Request<'_>,
    found: &Found,
    opening: Opening,
) -> Result<Reply, Errno> {
    let state = &request.caller.state;
    let above = emulation.metadata(found)?;
    if !above.allows(state, Access::CHANGE) {
        return Err(Errno::ACCESS);
    }
    if emulation.is_readonly(found) {
        return Err(Errno::ROFS);
    }
    let flags = opening.flags | OFlags::CLOEXEC;
    let mode = Mode::from_raw_mode(0o600);
    let fd = openat(CWD, own_path(found.fd.as_fd()), flags, mode)?;
    dress(fd.as_fd(), state, &above, opening.mode & !state.umask)?;
    Ok(Reply::Descriptor { fd, closes: opening.flags.contains(OFlags::CLOEXEC) })
}

/// Opens the terminal of the calling process: that of one of its standard streams.
fn open_terminal(request: &Request<'_>, flags: OFlags) -> Result<OwnedFd, Errno> {
    for number in 0..3 {
        let path = format!("/proc/{}/fd/{number}", request.caller.thread);
        let Ok(fd) = rustix::fs::open(path, flags | OFlags::NONBLOCK, Mode::empty()) else {
            continue;
        };
        if rustix::termios::isatty(&fd) {
            rustix::fs::fcntl_setfl(&fd, flags & OFlags::NONBLOCK)?;
            return Ok(fd);
        }
    }
    Err(Errno::NXIO)
}

/// Opens a fifo in a process of its own, because that waits for the other end.
#[expect(clippy::exit, reason = "the process is not part of the supervisor")]
fn wait_for_peer(
    call: &Call<'_>,
    fd: &OwnedFd,
    flags: OFlags,
    closes: bool,
) -> Result<Reply, Errno> {
    let forked =
        sys::fork().map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AGAIN))?;
    if let Fork::Parent(_) = forked {
        return Ok(Reply::Answered);
    }
    let _ = crate::child::die_with_parent();
    let answer = match rustix::fs::open(own_path(fd.as_fd()), flags, Mode::empty()) {
        Ok(fd) => call.add_descriptor(fd, None, closes).map(Answer::Value),
        Err(errno) => Ok(Answer::Error(errno.raw_os_error())),
    };
    let _ = answer.and_then(|answer| call.send(answer));
    std::process::exit(0)
}

/// Returns the flags of `AT_SYMLINK_NOFOLLOW` as a decision.
pub(super) fn follows(flags: u64) -> bool {
    flags as u32 & AtFlags::SYMLINK_NOFOLLOW.bits() == 0
}
