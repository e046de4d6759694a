//! A user namespace of the program's own, inside of kiln's.
//!
//! The program has one where it sees the processes of others in `/proc`: a user namespace in which
//! parts of `/proc` are hidden can't have a `/proc` of its own processes. The kernel shows the
//! command lines of all processes to everyone. For everything else in `/proc/PID`, such as the
//! environment, the memory and the root directory, it compares users, capabilities and namespaces.
//! kiln, its helper and the programs of other steps have the program's user, and its capabilities or
//! more. But they aren't in its namespace, so it gets nothing of theirs. The kernel lets the user of
//! a process write to some of its files without that comparison (`oom_score_adj`), so `/proc` is
//! read-only.
//!
//! All IDs are mapped to themselves. A child process outside of the namespace writes the maps.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags};

use super::wire::Failure;
use crate::sys::{self, Fork};

/// A user namespace that doesn't exist yet.
pub(super) struct InnerNamespace {
    /// The directory of this process in the outer `/proc`, which is writable.
    place: OwnedFd,
}

impl InnerNamespace {
    /// Prepares the namespace. The root directory must be the outer one.
    pub(super) fn prepare() -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let place = rustix::fs::open("/proc/self", flags, Mode::empty())
            .map_err(Failure::doing("open /proc/self"))?;
        Ok(Self { place })
    }

    /// Moves this process, which has a single thread, into the namespace, in which it has all
    /// capabilities. With `has_mounts`, it has the privileges over its mounts, too.
    pub(super) fn enter(self, has_mounts: bool) -> Result<(), Failure> {
        let doing = Failure::doing("enter a user namespace of the program's own");
        try_enter(&self.place, has_mounts).map_err(doing)
    }
}

/// Opens a file in the directory of a process.
fn open(place: &OwnedFd, name: &str, access: OFlags) -> io::Result<File> {
    Ok(rustix::fs::openat(place, name, access | OFlags::CLOEXEC, Mode::empty())?.into())
}

fn try_enter(place: &OwnedFd, has_mounts: bool) -> io::Result<()> {
    let map = |name| identity(&io::read_to_string(open(place, name, OFlags::RDONLY)?)?);
    let maps = [("uid_map", map("uid_map")?), ("gid_map", map("gid_map")?)];
    let (mut reader, mut writer) = io::pipe()?;
    let mapper = match sys::fork()? {
        Fork::Child => {
            drop(writer);
            // The pipe ends without a byte if the parent has failed.
            let is_ready = matches!(reader.read(&mut [0]), Ok(1));
            let write = |(name, map): &(&str, String)| {
                open(place, name, OFlags::WRONLY)?.write_all(map.as_bytes())
            };
            finish(is_ready && maps.iter().all(|map| write(map).is_ok()))
        }
        Fork::Parent(child) => Pid::from_raw(child),
    };
    drop(reader);
    let mounts = if has_mounts { CloneFlags::CLONE_NEWNS } else { CloneFlags::empty() };
    let entered = unshare(CloneFlags::CLONE_NEWUSER | mounts);
    if entered.is_ok() {
        writer.write_all(b"!")?;
    }
    drop(writer);
    let mapped = waitpid(mapper, None)?;
    entered?;
    match mapped {
        WaitStatus::Exited(_, 0) => Ok(()),
        _ => Err(io::Error::other("the user and group IDs can't be mapped")),
    }
}

/// Ends the child process.
#[expect(clippy::exit, reason = "the process has no caller to return to")]
fn finish(is_mapped: bool) -> ! {
    std::process::exit(i32::from(!is_mapped))
}

/// Returns a map of the IDs of `map` to themselves.
fn identity(map: &str) -> io::Result<String> {
    let line = |line: &str| {
        let mut numbers = line.split_whitespace();
        let (first, _, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        Some(format!("{first} {first} {count}\n"))
    };
    let lines: Option<String> = map.lines().map(line).collect();
    lines.ok_or_else(|| io::Error::other("the map of IDs has an unknown form"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_mapped_to_themselves() {
        let map = "         0       1000          1\n         1     100000      65536\n";
        assert_eq!(identity(map).unwrap(), "0 0 1\n1 1 65536\n");
        assert!(identity("x").is_err());
    }
}
