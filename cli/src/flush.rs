//! The flush that makes stored data survive a power loss.
//!
//! A build that has stored data starts `kiln sync` as its last act, as a detached process:
//! flushing takes as long as the disk needs, and the user shouldn't wait for it.
//!
//! The user must not notice the process either. A script may remove the store as soon as its
//! command has ended, and `rm -rf` fails if a file appears in a directory that it has just emptied.
//! So the flushing process creates all of its files (its directory in `tmp/`, the index's log)
//! before it reports that it is ready, and none afterwards. The command that started it ends only
//! after this report ([`settle`]).

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use kiln_store::Store;

use crate::arguments::SYNC;

/// The standard outputs of the flushing processes that this process started. Each reports there
/// that it is ready.
static STARTED: Mutex<Vec<ChildStdout>> = Mutex::new(Vec::new());

/// Starts a process that flushes a store if the store has unflushed data or the index's log has
/// become long.
///
/// # Errors
/// Fails if the process can't be started. Then a power loss destroys what was stored.
pub(crate) fn start(store: &Store) -> Result<()> {
    if !store.has_unsynced() && !store.has_long_log() {
        return Ok(());
    }
    let mut child = Command::new("/proc/self/exe")
        .arg0("kiln")
        .arg("--root")
        .arg(store.root())
        .arg(SYNC)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("start flushing the store")?;
    started().extend(child.stdout.take());
    Ok(())
}

/// Waits until the flushing processes create no more files. Call it at the end of a command.
pub(crate) fn settle() {
    for mut said in started().drain(..) {
        // A process that has died creates no more files either.
        let _ = said.read(&mut [0]);
    }
}

fn started() -> std::sync::MutexGuard<'static, Vec<ChildStdout>> {
    // A panic can't leave the vector in an invalid state.
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}
