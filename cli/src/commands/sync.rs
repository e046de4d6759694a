//! `kiln sync`: makes what is stored survive a power loss.
//!
//! Nobody types it. A build that has stored something starts it as its last act, detached: flushing
//! may take as long as the disk does, and nobody should wait for that.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};
use kiln_store::Store;

use crate::settings::Settings;

/// The command's name.
pub(crate) const NAME: &str = "sync";

/// Flushes the store to the disk. One that has been removed meanwhile isn't made again.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode> {
    if settings.root.join("kiln.db").exists() {
        settings.store()?.sync()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the flushing of a store in a process of its own, where there is something to flush.
///
/// # Errors
/// Fails where the process can't be started; then a power loss costs what was stored.
pub(crate) fn start(store: &Store) -> Result<()> {
    if !store.has_unsynced() {
        return Ok(());
    }
    Command::new("/proc/self/exe")
        .arg0("kiln")
        .arg("--root")
        .arg(store.root())
        .arg(NAME)
        .env_clear()
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("start flushing the store")?;
    Ok(())
}
