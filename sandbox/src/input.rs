//! Standard input, without what it comes from.
//!
//! A program can open its descriptors once more, through `/proc/self/fd`, and for writing too: a
//! file of the host that it was merely to read would be a way out, and so would be a terminal or a
//! named pipe. So it never gets what its input comes from, but the end of a pipe of its own, and a
//! thread copies.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

const CHUNK: usize = 64 << 10;

/// Returns a pipe that everything from `source` comes through. The thread behind it ends with the
/// source or with the pipe's readers, whichever goes first.
pub(super) fn isolate(source: OwnedFd) -> io::Result<OwnedFd> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    std::thread::Builder::new().name("sandbox input".to_owned()).spawn(move || {
        // The program sees the end of its input, whatever the reason.
        let _ = copy(&source, &write);
    })?;
    Ok(read)
}

fn copy(source: &OwnedFd, pipe: &OwnedFd) -> rustix::io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        // An error of the pipe is reported without being asked for: nobody reads any more.
        let mut watched =
            [PollFd::new(source, PollFlags::IN), PollFd::new(pipe, PollFlags::empty())];
        rustix::io::retry_on_intr(|| poll(&mut watched, None))?;
        if !watched[1].revents().is_empty() {
            return Ok(());
        }
        let length = match rustix::io::read(source, &mut buffer[..]) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        };
        let mut rest = &buffer[..length];
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(pipe, rest))?;
            rest = &rest[written..];
        }
    }
}
