//! The detection of exhausted memory limits.
//!
//! The kernel counts kills in the group of the killed process. An OCI runtime runs its programs in
//! groups below the limited one and removes them together with their counts. Version 2 also counts
//! in all groups above. Version 1 notifies an event descriptor instead.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;

use rustix::event::{EventfdFlags, eventfd};

/// A group with a memory limit.
#[derive(Debug)]
pub(super) struct Memory {
    directory: PathBuf,
    limit: u64,
    /// The event descriptor that counts how often the limit was reached, in version 1.
    events: Option<OwnedFd>,
}

/// A report that a program has reached its memory limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The number of processes that the kernel has killed.
    pub kills: u64,
    /// The limit in bytes.
    pub limit: u64,
}

impl std::fmt::Display for OutOfMemory {
    /// Writes a message such as `out of memory (limit 64 MiB)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let units = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        let whole = units.iter().find(|(_, scale)| self.limit.is_multiple_of(*scale));
        let (unit, scale) = whole.copied().unwrap_or(("bytes", 1));
        write!(f, "out of memory (limit {} {unit})", self.limit / scale)
    }
}

impl Memory {
    /// Watches a group with a memory limit.
    pub(super) fn watch(directory: PathBuf, limit: u64) -> Self {
        let mut memory = Self { directory, limit, events: None };
        // Version 2 doesn't have these files or need them.
        memory.events = memory.subscribe().ok();
        memory
    }

    fn subscribe(&self) -> io::Result<OwnedFd> {
        let control = File::options().write(true).open(self.directory.join("cgroup.event_control"));
        let mut control = control?;
        let watched = File::open(self.directory.join("memory.oom_control"))?;
        let events = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let subscription = format!("{} {}", events.as_raw_fd(), watched.as_raw_fd());
        io::Write::write_all(&mut control, subscription.as_bytes())?;
        Ok(events)
    }

    /// Returns the kills up to now, or `None`.
    pub(super) fn out(&self) -> Option<OutOfMemory> {
        let count = |file: &str| {
            let text = std::fs::read_to_string(self.directory.join(file)).ok()?;
            text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
        };
        let counted = count("memory.events").or_else(|| count("memory.oom_control"));
        let mut told = [0; 8];
        let is_told = self.events.as_ref().is_some_and(|events| {
            rustix::io::read(events, &mut told).is_ok_and(|length| length == 8)
        });
        let told = if is_told { u64::from_ne_bytes(told) } else { 0 };
        let kills = counted.unwrap_or(0).max(told.min(1));
        (kills > 0).then_some(OutOfMemory { kills, limit: self.limit })
    }
}
