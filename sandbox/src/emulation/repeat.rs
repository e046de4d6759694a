//! Calls that the program repeats with other arguments.
//!
//! An answer to a notification can't change the arguments of a call. For the few calls that the
//! kernel has to execute in the program itself, the supervisor stops the calling thread by
//! `ptrace(2)`, changes its registers, and lets it call again.
//!
//! Arguments in memory need a place. It is a mapping at a fixed address that no other code knows.
//! Threads of one memory that call at the same time have different places.

use rustix::io::Errno;

use super::{Emulation, Pending, Repeated, Reply, Request, errno};
use crate::sys::{self, Answer, Stopped};

/// The address of the first place.
const FIRST: u64 = 0x3e00_0000_0000;
/// The distance between places in bytes, which is the size of the largest argument list.
const DISTANCE: u64 = 8 << 20;
/// The number of places.
const PLACES: u64 = 256;
/// The smallest unit of a mapping in bytes.
const PAGE: u64 = 64 << 10;

/// The kernel's number for "repeat this call".
const RESTART: i32 = 512;

/// A call with other arguments.
#[derive(Clone, Debug)]
pub(super) struct Repetition {
    /// The arguments of the call.
    pub(super) arguments: [u64; 6],
    /// The bytes for the thread's place in memory. The arguments may point to them.
    pub(super) memory: Vec<u8>,
}

/// Returns the address of a thread's place in memory.
pub(super) fn place_of(thread: u32) -> u64 {
    FIRST + u64::from(thread) % PLACES * DISTANCE
}

impl Emulation {
    /// Lets the calling thread repeat its call with other arguments. `then` handles the repeated
    /// call.
    pub(super) fn repeat(
        &mut self,
        request: &Request<'_>,
        repetition: &Repetition,
        then: Pending,
    ) -> Result<Reply, Errno> {
        let thread = request.caller.thread;
        sys::request_stop(thread).map_err(|error| errno(&error))?;
        // The request may have interrupted the call already.
        let _ = request.call.send(Answer::Error(RESTART));
        let number = request.call.notification.call.into();
        let mut stopped = Stopped::wait(thread).map_err(|error| errno(&error))?;
        let is_filled = match &repetition.memory[..] {
            [] => Ok(()),
            bytes => self.fill_place(thread, &mut stopped, bytes),
        };
        let (arguments, then) = match is_filled {
            Ok(()) => (repetition.arguments, then),
            Err(errno) => (request.arguments, Pending::Fail(errno)),
        };
        stopped.repeat(number, arguments).map_err(|error| errno(&error))?;
        let call = request.call.notification.call;
        self.pending.insert(thread, Repeated { call, arguments, then });
        Ok(Reply::Answered)
    }

    fn fill_place(&self, thread: u32, stopped: &mut Stopped, bytes: &[u8]) -> Result<(), Errno> {
        let at = place_of(thread);
        let length = (bytes.len() as u64).next_multiple_of(PAGE);
        if length > DISTANCE {
            return Err(Errno::TOOBIG);
        }
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let arguments = [
            at,
            length,
            u64::from(protection.cast_unsigned()),
            u64::from(flags.cast_unsigned()),
            u64::MAX,
            0,
        ];
        let mapped = stopped.call(libc::SYS_mmap, arguments);
        if mapped.is_ok_and(|address| address.cast_unsigned() == at) {
            let written = self.memory.borrow_mut().write(thread, at, bytes);
            return written.map_err(|error| errno(&error));
        }
        Err(Errno::NOMEM)
    }
}
