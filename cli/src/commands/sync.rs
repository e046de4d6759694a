//! `kiln sync`: makes stored data survive a power loss.
//!
//! Users don't run this command. A build that has stored data starts it as its last act, as a
//! detached process: flushing takes as long as the disk needs, and the user shouldn't wait for it.
//!
//! The user must not notice the process either. A script may remove the store as soon as its
//! command has ended, and `rm -rf` fails if a file appears in a directory that it has just emptied.
//! So the flushing process creates all of its files (its directory in `tmp/`, the index's log)
//! before it reports that it is ready, and none afterwards. The command that started it ends only
//! after this report ([`settle`]).

#![expect(clippy::disallowed_methods, reason = "the files are kiln's own")]

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use kiln_store::Store;

use crate::settings::Settings;

/// The hidden command's name on the command line.
pub(crate) const NAME: &str = "sync";

/// The standard outputs of the flushing processes that this process started. Each reports there
/// that it is ready.
static STARTED: Mutex<Vec<ChildStdout>> = Mutex::new(Vec::new());

/// Flushes the store to the disk. Then removes, at low priority, the leftovers of ended commands,
/// and seals new trees. Doesn't recreate a store that was removed in the meantime. Without root,
/// files have other owners here than in builds, so `kiln system check` seals the trees instead.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode> {
    if settings.root.join("kiln.db").exists() {
        let store = settings.store()?;
        let sealer = store.sealer()?;
        // The command that started this process may have ended.
        let _ = std::io::stdout().write_all(b"\n");
        store.sync()?;
        let is_patient = rustix::process::nice(19).is_ok();
        store.clear_dead()?;
        if let Some(sealer) = sealer
            && rustix::process::geteuid().is_root()
            && is_patient
        {
            sealer.seal_trees()?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

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
        .arg(NAME)
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
