//! The program's processes, and the calls that name a process.

#![expect(clippy::disallowed_methods, reason = "the files are the kernel's")]

use rustix::io::Errno;
use rustix::process::getpid;

/// The most ancestors that are looked at.
const MOST_ANCESTORS: usize = 4096;

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
    field(thread, "Tgid:").ok_or(Errno::SRCH)
}

/// Returns the number of the parent of a thread's process.
pub(super) fn parent(thread: u32) -> Result<u32, Errno> {
    field(thread, "PPid:").ok_or(Errno::SRCH)
}

/// Returns `true` if a process, or the process of a thread, descends from the supervisor.
pub(super) fn is_ours(process: u32) -> bool {
    let own = getpid().as_raw_nonzero().get().cast_unsigned();
    let mut current = process;
    for _ in 0..MOST_ANCESTORS {
        match field(current, "PPid:") {
            Some(parent) if parent == own => return true,
            None | Some(0 | 1) => return false,
            Some(parent) => current = parent,
        }
    }
    false
}

/// Reads a number from a process's status.
fn field(process: u32, name: &str) -> Option<u32> {
    let status = std::fs::read(format!("/proc/{process}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().parse().ok()
}

/// Returns the numbers of all processes.
pub(super) fn all() -> Vec<u32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let names = entries.flatten().map(|entry| entry.file_name());
    names.filter_map(|name| number(name.as_encoded_bytes())).collect()
}
