//! Recovery after the death of processes and machines.
//!
//! Opening a store runs the recovery if it seems necessary: if a process directory has a free lock,
//! or if the index was last used in another boot.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;

use kiln_oci::Digest;

use crate::builds;
use crate::cache::lost::forget_lost;
use crate::cache::{Uses, file_digests};
use crate::content::images::publication::publish;
use crate::db::{digest_column, text_column};
use crate::error::{Error, Result};
use crate::room::lock::RootLock;
use crate::room::{Room, boot_id, cap, process};

/// Runs the recovery of an open store if necessary.
pub(crate) fn recover(room: &Arc<Room>) -> Result<()> {
    let boot = boot_id();
    if known_boot(room)? == boot && !room.process().some_are_dead(room.root())? {
        return Ok(());
    }
    {
        let _alone = RootLock::exclusive(room.root())?;
        reap(room)?;
        if known_boot(room)? != boot {
            distrust(room, &boot)?;
        }
        sweep(room)?;
    }
    publish(room)
}

/// Removes the directories and leases of dead processes. The caller holds the root lock
/// exclusively.
pub(super) fn reap(room: &Arc<Room>) -> Result<()> {
    for (name, dir) in room.process().take_dead(room.root())? {
        let claim = cap::adopt(room, &name)?;
        room.trash().add(dir, claim.map(Arc::new));
    }
    let living = process::names(room.root())?;
    builds::sweep(room, &living)?;
    room.index().write("end leases", |transaction| {
        for table in ["lease_layers", "lease_blobs"] {
            let sql = format!("SELECT DISTINCT process FROM {table}");
            let names: Vec<String> = transaction
                .prepare_cached(&sql)?
                .query_map([], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for name in names.iter().filter(|name| !living.contains(name)) {
                let sql = format!("DELETE FROM {table} WHERE process = ?1");
                transaction.prepare_cached(&sql)?.execute([name])?;
            }
        }
        Ok(())
    })
}

/// Begins a new epoch, flushes the file system, and records that the old epoch is durable.
pub(crate) fn sync(room: &Room, uses: &Uses) -> Result<()> {
    uses.flush(room.index())?;
    file_digests::forget_unused(room)?;
    room.begin_sync();
    // The files of rows with this epoch or an older one are in place, since files precede their
    // rows.
    let epoch: i64 = room.index().write("begin an epoch", |transaction| {
        let sql = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value - 1";
        transaction.query_row(sql, [], |row| row.get(0))
    })?;
    let root = File::open(room.root()).map_err(Error::io("open", room.root()))?;
    rustix::fs::syncfs(&root).map_err(Error::io("sync", room.root()))?;
    room.index().write("end an epoch", |transaction| {
        let sql = "UPDATE meta SET value = max(value, ?1) WHERE key = 'durable'";
        transaction.execute(sql, [epoch])
    })?;
    room.index().read("checkpoint", |connection| {
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    })
}

fn known_boot(room: &Room) -> Result<String> {
    room.index().read("read the boot", |connection| {
        connection
            .prepare_cached("SELECT value FROM meta WHERE key = 'boot'")?
            .query_row([], |row| row.get(0))
    })
}

/// Removes the rows that were not durable when the machine went down.
fn distrust(room: &Room, boot: &str) -> Result<()> {
    room.index().write("distrust the last boot", |transaction| {
        let durable = "(SELECT value FROM meta WHERE key = 'durable')";
        transaction.execute_batch(&format!(
            "UPDATE layers SET has_tree = 0 WHERE has_tree AND tree_epoch > {durable};
             DELETE FROM blobs WHERE epoch > {durable};
             DELETE FROM file_pages WHERE epoch > {durable};"
        ))?;
        transaction.execute("UPDATE meta SET value = ?1 WHERE key = 'boot'", [boot])?;
        forget_lost(transaction)
    })
}

/// Removes rows without files and files without rows. The caller holds the root lock exclusively.
pub(super) fn sweep(room: &Room) -> Result<()> {
    let trees = names_in(room.trees())?;
    let blobs = names_in(room.blobs())?;
    let (trees_named, blobs_named) = room.index().write("sweep", |transaction| {
        let mut lost = false;
        for id in text_column(transaction, "SELECT id FROM layers WHERE has_tree")? {
            if !trees.contains(&id) {
                lost = true;
                transaction
                    .prepare_cached("UPDATE layers SET has_tree = 0 WHERE id = ?1")?
                    .execute([&id])?;
            }
        }
        for digest in digest_column(transaction, "SELECT digest FROM blobs")? {
            if !blobs.contains(&digest.hex()) {
                lost = true;
                transaction
                    .prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
                    .execute([digest.as_bytes()])?;
            }
        }
        if lost {
            forget_lost(transaction)?;
        }
        let trees = text_column(transaction, "SELECT id FROM layers WHERE has_tree")?;
        let blobs = digest_column(transaction, "SELECT digest FROM blobs")?;
        Ok((trees, blobs))
    })?;
    for name in trees.difference(&trees_named.into_iter().collect()) {
        room.discard(&room.trees().join(name))?;
    }
    for name in blobs.difference(&blobs_named.iter().map(Digest::hex).collect()) {
        room.discard(&room.blobs().join(name))?;
    }
    Ok(())
}

fn names_in(dir: &Path) -> Result<HashSet<String>> {
    fs::read_dir(dir)
        .map_err(Error::io("read", dir))?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("read", dir))
}
