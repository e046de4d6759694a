//! `kiln sync`: the other side of [`crate::flush`]. Users don't run this command.

#![expect(clippy::disallowed_methods, reason = "the files are kiln's own")]

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Result;

use crate::settings::Settings;

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
