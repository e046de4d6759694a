//! The processes that descend from a supervisor.
//!
//! The supervisor is the subreaper of its program's processes. So all of them descend from it, and no
//! others do.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use std::collections::BTreeMap;

use crate::tracee::text_of;

/// The relevant fields of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stat {
    /// The number of the parent.
    pub(super) parent: i32,
    /// The process group.
    pub(super) group: i32,
    /// The number of threads.
    pub(super) threads: u32,
}

impl Stat {
    /// Reads the fields of a process, or of the process of a thread. Returns `None` if it has been
    /// reaped.
    pub(super) fn of(number: i32) -> Option<Self> {
        let text = text_of(number.cast_unsigned(), "stat").ok()?;
        // The program's name may contain any characters.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            group: fields.get(2)?.parse().ok()?,
            threads: fields.get(17)?.parse().ok()?,
        })
    }
}

/// Returns `true` if a process, or the process of a thread, descends from `supervisor`.
pub(super) fn has(supervisor: i32, number: i32) -> bool {
    let first = number;
    let mut number = number;
    // A process whose parent ends meanwhile moves to the supervisor.
    let mut retries = 3;
    while number > 1 && number != supervisor {
        match Stat::of(number) {
            Some(stat) if stat.parent == supervisor => return true,
            Some(stat) => number = stat.parent,
            None if retries > 0 && number != first => {
                retries -= 1;
                number = first;
            }
            None => return false,
        }
    }
    false
}

/// Returns all processes that descend from `supervisor`, with their process groups.
pub(super) fn all(supervisor: i32) -> Vec<(i32, i32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let known: BTreeMap<i32, Stat> =
        numbers.filter_map(|number| Some((number, Stat::of(number)?))).collect();
    let descends = |number: &i32| {
        let mut at = *number;
        while let Some(stat) = known.get(&at) {
            if stat.parent == supervisor {
                return true;
            }
            at = stat.parent;
        }
        false
    };
    known.iter().filter(|(number, _)| descends(number)).map(|(n, s)| (*n, s.group)).collect()
}

/// Returns `true` if a process that descends from `supervisor` is in this process group.
pub(super) fn has_group(supervisor: i32, group: i32) -> bool {
    all(supervisor).iter().any(|(_, its)| *its == group)
}
