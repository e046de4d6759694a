//! Changes of modes, including modes that must be recorded; see [`crate::records`].

use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

use rustix::fs::{
    Mode, OFlags, XattrFlags, chmod, fchmod, fremovexattr, fsetxattr, openat, removexattr, setxattr,
};
use rustix::io::Errno;

use crate::ids::Ids;
use crate::metadata::{FileKind, Metadata};
use crate::owners::tolerate;
use crate::{names, records};

/// Returns the permission bits with which a new file or directory of the mode `mode` is created.
pub(crate) fn initial(mode: u32, is_dir: bool) -> Mode {
    let is_unprivileged = Ids::current().is_unprivileged();
    let mode = if is_unprivileged { records::mode_on_disk(mode, is_dir) } else { mode };
    Mode::from_raw_mode(mode & 0o777)
}

/// Changes the mode of an open file or directory.
pub(crate) fn set(fd: BorrowedFd<'_>, mode: u32) -> Result<(), Errno> {
    let mode = mode & 0o7777;
    if !Ids::current().is_unprivileged() {
        return fchmod(fd, Mode::from_raw_mode(mode));
    }
    let is_dir = Metadata::of_fd(fd)?.is_dir();
    fchmod(fd, Mode::from_raw_mode(records::mode_on_disk(mode, is_dir)))?;
    let name = names::path(records::MODE);
    // The kernel may have cleared a bit.
    if Metadata::of_fd(fd)?.mode == mode {
        return tolerate(fremovexattr(fd, name));
    }
    fsetxattr(fd, name, records::mode(mode).as_bytes(), XattrFlags::empty())
}

/// Changes the mode of a directory's entry, which is no link.
pub(crate) fn set_entry(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: FileKind,
    mode: u32,
) -> Result<(), Errno> {
    let mode = mode & 0o7777;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(dir, names::path(name), flags, Mode::empty())?;
    // `O_PATH` descriptors have no `fchmod`. The link in `/proc` always leads to this file.
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    let path = path.as_str();
    if !(Ids::current().is_unprivileged() && kind.has_xattrs()) {
        return chmod(path, Mode::from_raw_mode(mode));
    }
    let is_dir = kind == FileKind::Directory;
    chmod(path, Mode::from_raw_mode(records::mode_on_disk(mode, is_dir)))?;
    let name = names::path(records::MODE);
    if Metadata::of_fd(fd.as_fd())?.mode == mode {
        return tolerate(removexattr(path, name));
    }
    setxattr(path, name, records::mode(mode).as_bytes(), XattrFlags::empty())
}
