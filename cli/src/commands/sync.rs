//! `kiln sync`: makes what is stored survive a power loss.
//!
//! Nobody types it. A build that has stored something starts it as its last act, detached: flushing
//! may take as long as the disk does, and nobody should wait for that.
//!
//! The user must not notice it either. A script may remove the store as soon as its command has ended,
//! and `rm -rf` fails where a file appears in a directory that it has just emptied. So the flushing
//! process makes all of its files (its directory in `tmp/`, the index's log) before it says that it is
//! ready, and none afterwards; and the command that has started it ends after that ([`settle`]).

use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{ChildStdout, Command, ExitCode, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use kiln_store::Store;

use crate::settings::Settings;

/// The command's name.
pub(crate) const NAME: &str = "sync";

/// What flushing processes say that this process has started.
static STARTED: Mutex<Vec<ChildStdout>> = Mutex::new(Vec::new());

/// Flushes the store to the disk, and then, without haste, removes what the command that has ended
/// meanwhile had no time for, and takes the seals of new trees. A store that has been removed meanwhile
/// isn't made again. Who isn't root sees other owners here than builds do, and leaves the seals to
/// `kiln system check`.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode> {
    if settings.root.join("kiln.db").exists() {
        let store = settings.store()?;
        let sealer = store.sealer()?;
        // Nothing but an end is listened for, and it is no matter whether anybody does.
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

/// Starts the flushing of a store in a process of its own, where there is something to flush, or
/// the index's log has become long.
///
/// # Errors
/// Fails where the process can't be started; then a power loss costs what was stored.
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

/// Waits until the flushing processes make no more files. To be called at the end of a command.
pub(crate) fn settle() {
    for mut said in started().drain(..) {
        // One that has died makes no more files either.
        let _ = said.read(&mut [0]);
    }
}

fn started() -> std::sync::MutexGuard<'static, Vec<ChildStdout>> {
    // Pushing and taking leave nothing half done.
    STARTED.lock().unwrap_or_else(PoisonError::into_inner)
}
