//! The limits of the host's git.
//!
//! The kernel limits the memory of each process (`RLIMIT_DATA`, which doesn't count mapped files)
//! from git's first instruction on. A command that lists references gets a quarter of the limit,
//! because git keeps the list in memory and a server can send an endless one. kiln checks the size
//! on disk and the progress while git runs. Progress means that the repository's files grow or
//! increase in number. A listing creates no files, so it must end within the time limit for
//! progress.

#![expect(clippy::disallowed_methods, reason = "git's directory is kiln's own")]

use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Resource;

use crate::error::{Error, Result};
use kiln_images::blocking;

/// The minimum pause between two checks of git's files.
const TICK: Duration = Duration::from_millis(500);
/// The minimum ratio of a pause to the duration of the check before it.
const SHARE: u32 = 20;
/// The maximum time for which an HTTP server may send less than one byte per second.
const STALLED: Duration = Duration::from_mins(1);

/// The limits of the host's git.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GitLimits {
    /// The maximum memory of each process in bytes. `None` for no limit.
    pub memory: Option<u64>,
    /// The maximum time without progress. `None` for no limit.
    pub patience: Option<Duration>,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self { memory: Some(2 << 30), patience: Some(Duration::from_mins(5)) }
    }
}

/// The limits of one git command.
#[derive(Clone, Copy, Debug)]
pub(super) struct CommandLimits {
    memory: Option<u64>,
    patience: Option<Duration>,
    /// The maximum size on disk in bytes.
    disk: Option<u64>,
}

impl CommandLimits {
    /// Returns the limits of a command by its first word. `disk` is the maximum size of its files
    /// in bytes.
    pub(super) fn of(limits: GitLimits, disk: Option<u64>, verb: &str) -> Self {
        let share = if verb == "ls-remote" { 4 } else { 1 };
        let memory = limits.memory.map(|bytes| bytes / share);
        Self { memory, patience: limits.patience, disk }
    }

    /// Returns the limits that the kernel enforces.
    pub(super) fn resources(&self) -> [(Resource, u64); 2] {
        // The kernel's value for no limit.
        let most = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
        [(Resource::Data, most(self.memory)), (Resource::Fsize, most(self.disk))]
    }

    /// Adds the limit that caused an error message of git's to the message.
    pub(super) fn explain(&self, complaint: String) -> String {
        let lower = complaint.to_ascii_lowercase();
        let is_memory = ["out of memory", "cannot allocate", "malloc", "realloc"];
        match (self.memory, self.disk) {
            (Some(bytes), _) if is_memory.iter().any(|part| lower.contains(part)) => {
                format!("git needs more than {bytes} bytes of memory (--git-memory): {complaint}")
            }
            (_, Some(bytes))
                if lower.contains("file too large") || lower.contains("signal: 25") =>
            {
                format!("the repository has more than {bytes} bytes (--input-limit): {complaint}")
            }
            _ if lower.contains("operation too slow") => {
                format!("the server sends next to nothing: {complaint}")
            }
            _ => complaint,
        }
    }

    /// Waits until git exceeds the size limit or makes no progress. Returns a description of the
    /// problem.
    pub(super) async fn exceeded(&self, directory: &Path) -> Result<String> {
        let (mut last, mut since) = (Usage::default(), Instant::now());
        let mut pause = TICK;
        loop {
            tokio::time::sleep(pause).await;
            let (begun, path) = (Instant::now(), directory.to_owned());
            let now = blocking(move || Ok::<_, Error>(Usage::of(&path))).await?;
            pause = TICK.max(begun.elapsed() * SHARE);
            if let Some(most) = self.disk.filter(|most| now.bytes > *most) {
                return Ok(format!("the repository has more than {most} bytes (--input-limit)"));
            }
            if now != last {
                (last, since) = (now, Instant::now());
            }
            if let Some(most) = self.patience.filter(|most| since.elapsed() >= *most) {
                let seconds = most.as_secs_f32();
                return Ok(format!("no progress in {seconds} seconds (--git-timeout)"));
            }
        }
    }
}

/// Returns `true` if git has reached a limit. Another attempt would reach it, too.
pub(super) fn is_limit(error: &Error) -> bool {
    let text = error.to_string();
    ["(--git-memory)", "(--git-timeout)", "(--input-limit)"].iter().any(|flag| text.contains(flag))
}

/// Returns the configuration that makes git abort transfers that are too slow.
pub(super) fn configuration(limits: GitLimits) -> Vec<(String, String)> {
    let Some(patience) = limits.patience else { return Vec::new() };
    let seconds = patience.min(STALLED).as_secs().max(1);
    vec![
        ("http.lowSpeedLimit".to_owned(), "1".to_owned()),
        ("http.lowSpeedTime".to_owned(), seconds.to_string()),
    ]
}

/// The size of a directory on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    entries: u64,
}

impl Usage {
    /// Computes the size of a directory that may change meanwhile. Entries that disappear are
    /// skipped.
    fn of(directory: &Path) -> Self {
        let mut usage = Self::default();
        let mut pending = vec![directory.to_owned()];
        while let Some(directory) = pending.pop() {
            let Ok(entries) = std::fs::read_dir(&directory) else { continue };
            for entry in entries.flatten() {
                let Ok(metadata) = entry.metadata() else { continue };
                usage.entries += 1;
                usage.bytes += metadata.len();
                if metadata.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        usage
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(disk: Option<u64>, patience: Duration) -> CommandLimits {
        let limits = GitLimits { memory: Some(4 << 20), patience: Some(patience) };
        CommandLimits::of(limits, disk, "ls-remote")
    }

    #[tokio::test]
    async fn size_and_idleness_are_noticed() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/f"), vec![0; 1 << 20]).unwrap();
        let long = Duration::from_mins(1);
        let text = limits(Some(1 << 20), long).exceeded(dir.path()).await.unwrap();
        assert!(text.contains("--input-limit"), "{text}");
        let text = limits(None, Duration::from_millis(10)).exceeded(dir.path()).await.unwrap();
        assert!(text.contains("--git-timeout"), "{text}");
    }

    #[test]
    fn complaints_name_the_limit() {
        let limits = limits(Some(7), Duration::from_secs(1));
        assert_eq!(limits.resources()[0].1, 1 << 20, "a listing gets a quarter");
        for (complaint, part) in [
            ("fatal: Out of memory, realloc failed", "--git-memory"),
            ("error: write: File too large", "--input-limit"),
        ] {
            assert!(limits.explain(complaint.to_owned()).contains(part), "{complaint}");
        }
        assert_eq!(limits.explain("fatal: x".to_owned()), "fatal: x");
    }
}
