//! The memory of a thread whose system call waits for the supervisor's answer.
//!
//! Pointers among the arguments of a call lead to the caller's memory, which the supervisor reads
//! through `/proc/PID/mem`. The kernel allows that if both have the same user, or the reader has
//! `CAP_SYS_PTRACE`. A supervisor that is root without this capability opens the file with the
//! caller's user and group. A program that has changed its user, and hasn't executed another program
//! since, can't be read at all.
//!
//! The descriptors are kept, because opening one takes longer than reading from it. A descriptor
//! leads to the memory that the thread had when it was opened. When the thread executes another
//! program, it gets new memory, and [`Tracees::forget_all`] must be called before.
//!
//! Another thread of the caller may change the memory at any time. What was read is the caller's only
//! if the caller still waits after it: `Call::is_waiting`.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};

/// The longest path that the kernel accepts, with the zero at its end.
const MAX_PATH: usize = 4096;

/// The number of bytes that are read at first: most paths are shorter.
const SHORT: usize = 128;

/// The size in bytes of the smallest page. Memory that follows a page may be missing.
const PAGE: u64 = 4096;

/// The maximum size of a small file of `/proc` in bytes.
const TEXT: usize = 4096;

/// The maximum number of descriptors that are kept.
const KEPT: usize = 64;

/// The time for which a descriptor is kept. Later, the thread may be another one with the same
/// number, whose predecessor's memory still exists.
const FRESH: Duration = Duration::from_millis(200);

/// The memory of a thread.
#[derive(Debug)]
pub(super) struct Tracee {
    memory: File,
    opened: Instant,
}

impl Tracee {
    /// Opens the memory of a thread.
    pub(super) fn open(thread: u32) -> io::Result<Self> {
        let open = || File::options().read(true).write(true).open(format!("/proc/{thread}/mem"));
        let memory = match open() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Identity::of(thread)?.while_assumed(open)?
            }
            other => other?,
        };
        Ok(Self { memory, opened: Instant::now() })
    }

    /// Reads memory until `buffer` is full.
    pub(super) fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self.memory.read_exact_at(buffer, address) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(bad_address()),
            other => other,
        }
    }

    /// Writes to memory, even if the caller itself couldn't write to it.
    pub(super) fn write(&self, address: u64, bytes: &[u8]) -> io::Result<()> {
        match self.memory.write_all_at(bytes, address) {
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Err(bad_address()),
            other => other,
        }
    }

    /// Reads a path without the zero that ends it.
    ///
    /// # Errors
    /// Fails with `ENAMETOOLONG` if the kernel wouldn't accept the path either.
    pub(super) fn read_path(&self, address: u64) -> io::Result<Vec<u8>> {
        let mut path = Vec::new();
        while path.len() < MAX_PATH {
            let at = address.checked_add(path.len() as u64).ok_or_else(bad_address)?;
            let page = usize::try_from(PAGE - at % PAGE).unwrap_or(SHORT);
            let most = if path.is_empty() { SHORT } else { MAX_PATH - path.len() };
            let begun = path.len();
            path.resize(begun + page.min(most), 0);
            self.read(at, &mut path[begun..])?;
            if let Some(end) = path[begun..].iter().position(|byte| *byte == 0) {
                path.truncate(begun + end);
                return Ok(path);
            }
        }
        Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG))
    }
}

fn bad_address() -> io::Error {
    io::Error::from_raw_os_error(libc::EFAULT)
}

/// The memories of the threads that have made calls.
#[derive(Debug, Default)]
pub(super) struct Tracees(HashMap<u32, Tracee>);

impl Tracees {
    /// Returns the memory of a thread.
    ///
    /// # Errors
    /// Fails if the kernel doesn't allow access to it.
    pub(super) fn of(&mut self, thread: u32) -> io::Result<&Tracee> {
        use std::collections::hash_map::Entry;
        self.0.retain(|_, tracee| tracee.opened.elapsed() < FRESH);
        if self.0.len() >= KEPT && !self.0.contains_key(&thread) {
            self.0.clear();
        }
        Ok(match self.0.entry(thread) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(place) => place.insert(Tracee::open(thread)?),
        })
    }

    /// Reads a path: see [`Tracee::read_path`].
    pub(super) fn read_path(&mut self, thread: u32, address: u64) -> io::Result<Vec<u8>> {
        self.retry(thread, |tracee| tracee.read_path(address))
    }

    /// Reads memory: see [`Tracee::read`].
    pub(super) fn read(&mut self, thread: u32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.retry(thread, |tracee| tracee.read(address, buffer))
    }

    /// Writes to memory: see [`Tracee::write`].
    pub(super) fn write(&mut self, thread: u32, address: u64, bytes: &[u8]) -> io::Result<()> {
        self.retry(thread, |tracee| tracee.write(address, bytes))
    }

    /// Repeats a failed access once with a new descriptor. The thread may be another one with the
    /// same number.
    fn retry<T>(
        &mut self,
        thread: u32,
        mut access: impl FnMut(&Tracee) -> io::Result<T>,
    ) -> io::Result<T> {
        let was_known = self.0.contains_key(&thread);
        let result = access(self.of(thread)?);
        if result.is_ok() || !was_known {
            return result;
        }
        self.0.remove(&thread);
        access(self.of(thread)?)
    }

    /// Closes all descriptors. Call it when a thread is about to execute another program.
    pub(super) fn forget_all(&mut self) {
        self.0.clear();
    }
}

/// Reads a small file of a thread in `/proc` at once.
pub(super) fn text_of(thread: u32, name: &str) -> io::Result<String> {
    let mut bytes = vec![0; TEXT];
    let length = File::open(format!("/proc/{thread}/{name}"))?.read_at(&mut bytes, 0)?;
    bytes.truncate(length);
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The user and group that a process accesses files as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The user ID for file accesses.
    pub(super) uid: u32,
    /// The group ID for file accesses.
    pub(super) gid: u32,
}

impl Identity {
    /// Reads the identity of a thread.
    pub(super) fn of(thread: u32) -> io::Result<Self> {
        Self::parse(&text_of(thread, "status")?)
    }

    /// Reads the identity from the text of a thread's `status`.
    pub(super) fn parse(status: &str) -> io::Result<Self> {
        // The real, effective, saved and file access IDs.
        let last = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().nth(3)?.parse().ok()
        };
        match (last("Uid:"), last("Gid:")) {
            (Some(uid), Some(gid)) => Ok(Self { uid, gid }),
            _ => Err(io::Error::other("the kernel names no user of the process")),
        }
    }

    /// Runs `work` with this identity for file accesses.
    ///
    /// The kernel takes the occasion to forget that this process is to die with its parent.
    pub(super) fn while_assumed<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let gid = setfsgid(Gid::from_raw(self.gid));
        let uid = setfsuid(Uid::from_raw(self.uid));
        let result = work();
        setfsuid(uid);
        setfsgid(gid);
        super::child::die_with_parent().map_err(|failure| io::Error::other(failure.message))?;
        result
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;

    use super::*;

    #[test]
    fn paths_are_read_up_to_their_ends() {
        let own = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let mut tracees = Tracees::default();
        for length in [0, 1, 127, 128, 129, 4000, 4095] {
            let text = CString::new(vec![b'x'; length]).unwrap();
            let path = tracees.read_path(own, text.as_ptr() as u64).unwrap();
            assert_eq!(path, text.as_bytes());
        }
        let long = CString::new(vec![b'x'; 4096]).unwrap();
        let error = tracees.read_path(own, long.as_ptr() as u64).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
        let error = tracees.read_path(own, 1).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn memory_is_written() {
        let own = std::process::id();
        let bytes = vec![0_u8; 8];
        Tracees::default().write(own, bytes.as_ptr() as u64, b"changed!").unwrap();
        assert_eq!(std::hint::black_box(bytes), b"changed!");
    }
}
