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

/// Flushes the store to the disk, and then takes the seals of new trees, without haste. A store that
/// has been removed meanwhile isn't made again. Who isn't root sees other owners here than builds do,
/// and leaves the seals to `kiln system check`.
pub(crate) fn run(settings: &Settings) -> Result<ExitCode> {
    if settings.root.join("kiln.db").exists() {
        let store = settings.store()?;
        store.sync()?;
        if rustix::process::geteuid().is_root() && rustix::process::nice(19).is_ok() {
            store.seal_trees()?;
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
