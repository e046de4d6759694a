//! Terminals from the host's `/dev/pts`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::pty::ptsname;

use crate::devices::Terminal;
use crate::stubs::open_below;
use crate::wire::Failure;

/// Makes a terminal the tree's console.
pub(super) fn show(root: &OwnedFd, terminal: &Terminal) -> Result<(), Failure> {
    let link = || -> rustix::io::Result<()> {
        let target = format!("pts/{}", number(&terminal.controller)?);
        let dev = open_below(root, Path::new("dev"))?;
        rustix::fs::symlinkat(target, dev, "console")
    };
    link().map_err(Failure::doing("make the console"))
}

/// Opens the controlling end of a new terminal, and returns it with the terminal's number.
pub(super) fn open_controller() -> rustix::io::Result<(OwnedFd, u32)> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let controller = rustix::fs::open("/dev/ptmx", flags, Mode::empty())?;
    let number = number(&controller)?;
    Ok((controller, number))
}

/// Returns the number of the terminal that a controlling end belongs to.
pub(super) fn number(controller: impl AsFd) -> rustix::io::Result<u32> {
    let name = ptsname(controller, Vec::new())?;
    let number = name.to_bytes().rsplit(|byte| *byte == b'/').next();
    let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
    number.ok_or(rustix::io::Errno::NOTTY)
}
