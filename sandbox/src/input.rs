//! Standard input through a pipe.
//!
//! A program can reopen its descriptors through `/proc/self/fd`, even for writing. A file of the
//! host, a terminal or a named pipe as its input would be a way out of the sandbox. The program
//! therefore gets a pipe, and a thread of kiln copies the input into it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::pipe::{PipeFlags, pipe_with};

const CHUNK: usize = 64 << 10;

/// Returns a pipe with everything that is read from `source`. The thread that copies ends with the
/// source or with the pipe's readers.
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
        // poll always reports an error of the pipe, which means that all readers are gone.
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
