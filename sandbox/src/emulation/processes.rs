//! The numbers of the program's processes.

use rustix::io::Errno;
use rustix::process::getpid;

use crate::descendants::{self, Stat};
use crate::tracee::text_of;

/// Parses a number of a process.
pub(super) fn number(text: &[u8]) -> Option<u32> {
    let text = std::str::from_utf8(text).ok()?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

/// Returns the number of a thread's process.
pub(super) fn leader(thread: u32) -> Result<u32, Errno> {
    let status = text_of(thread, "status").map_err(|_| Errno::SRCH)?;
    let value = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    value.and_then(|value| value.trim().parse().ok()).ok_or(Errno::SRCH)
}

/// Returns the number of the parent of a thread's process.
pub(super) fn parent(thread: u32) -> Result<u32, Errno> {
    let stat = Stat::of(thread.cast_signed()).ok_or(Errno::SRCH)?;
    Ok(stat.parent.cast_unsigned())
}

/// Returns the number of the supervisor.
pub(super) fn supervisor() -> u32 {
    own().cast_unsigned()
}

fn own() -> i32 {
    getpid().as_raw_nonzero().get()
}

/// Returns `true` if a process, or the process of a thread, descends from the supervisor.
pub(super) fn is_ours(process: u32) -> bool {
    descendants::has(own(), process.cast_signed())
}

/// Returns `true` if a process of the program is in this process group.
pub(super) fn is_our_group(group: u32) -> bool {
    descendants::has_group(own(), group.cast_signed())
}

/// Returns the numbers of all processes that descend from the supervisor.
pub(super) fn ours() -> impl Iterator<Item = u32> {
    descendants::all(own()).into_iter().map(|(process, _)| process.cast_unsigned())
}
