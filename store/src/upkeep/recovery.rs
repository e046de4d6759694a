//! Recovery after the death of processes and machines.
//!
//! Opening a store runs the recovery if it seems necessary: if a process directory has a free lock,
//! or if the index was last used in another boot.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_oci::Digest;
use rusqlite::Connection;

use crate::error::{Error, Result};
use crate::lock::RootLock;
use crate::store::Inner;
use crate::{builds, file_digests, layout, process, recipes, room};

/// Runs the recovery of an open store if necessary.
pub(crate) fn recover(inner: &Arc<Inner>) -> Result<()> {
    let boot = boot_id();
    if known_boot(inner)? == boot && !inner.process.some_are_dead(&inner.root)? {
        return Ok(());
    }
    {
        let _alone = RootLock::exclusive(&inner.root)?;
        reap(inner)?;
        if known_boot(inner)? != boot {
            distrust(inner, &boot)?;
        }
        sweep(inner)?;
    }
    layout::publish(inner)
}

/// Removes the directories and leases of dead processes. The caller holds the root lock
/// exclusively.
pub(crate) fn reap(inner: &Arc<Inner>) -> Result<()> {
    for (name, dir) in inner.process.take_dead(&inner.root)? {
        let claim = room::adopt(inner, &name)?;
        inner.trash.add(dir, claim.map(Arc::new));
    }
    let living = process::names(&inner.root)?;
    builds::sweep(inner, &living)?;
    inner.index.write("end leases", |transaction| {
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
pub(crate) fn sync(inner: &Inner) -> Result<()> {
    inner.flush_used()?;
    file_digests::forget_unused(inner)?;
    inner.unsynced.store(false, Ordering::Relaxed);
    // The files of rows with this epoch or an older one are in place, since files precede their
    // rows.
    let epoch: i64 = inner.index.write("begin an epoch", |transaction| {
        let sql = "UPDATE meta SET value = value + 1 WHERE key = 'epoch' RETURNING value - 1";
        transaction.query_row(sql, [], |row| row.get(0))
    })?;
    let root = File::open(&inner.root).map_err(Error::io("open", &inner.root))?;
    rustix::fs::syncfs(&root).map_err(Error::io("sync", &inner.root))?;
    inner.index.write("end an epoch", |transaction| {
        let sql = "UPDATE meta SET value = max(value, ?1) WHERE key = 'durable'";
        transaction.execute(sql, [epoch])
    })?;
    inner.index.read("checkpoint", |connection| {
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))
    })
}

pub(crate) fn boot_id() -> String {
    // Without an ID, boots can't be distinguished, and all rows are trusted.
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

fn known_boot(inner: &Inner) -> Result<String> {
    inner.index.read("read the boot", |connection| {
        connection
            .prepare_cached("SELECT value FROM meta WHERE key = 'boot'")?
            .query_row([], |row| row.get(0))
    })
}

/// Removes the rows that were not durable when the machine went down.
fn distrust(inner: &Inner, boot: &str) -> Result<()> {
    inner.index.write("distrust the last boot", |transaction| {
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
pub(crate) fn sweep(inner: &Inner) -> Result<()> {
    let trees = names_in(&inner.trees)?;
    let blobs = names_in(&inner.blobs)?;
    let (trees_named, blobs_named) = inner.index.write("sweep", |transaction| {
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
        inner.discard(&inner.trees.join(name))?;
    }
    for name in blobs.difference(&blobs_named.iter().map(Digest::hex).collect()) {
        inner.discard(&inner.blobs.join(name))?;
    }
    Ok(())
}

/// Deletes the rows of layers without any form, and of layers that have a diff ID but no packed
/// form (a tree that came from another layer doesn't pack to that diff ID). Also deletes the layers
/// above them, and the images and cache records that need them.
pub(crate) fn forget_lost(transaction: &Connection) -> rusqlite::Result<()> {
    transaction.execute_batch(
        "WITH RECURSIVE lost(id) AS (
             SELECT id FROM layers WHERE NOT has_tree AND NOT EXISTS (
                 SELECT 1 FROM layer_blobs WHERE layer = layers.id AND (
                     origin IS NOT NULL OR digest IN (SELECT digest FROM blobs)))
                OR parent NOT IN (SELECT id FROM layers)
                OR diff_id IS NOT NULL AND id NOT IN (SELECT layer FROM layer_blobs)
             UNION
             SELECT layers.id FROM layers JOIN lost ON layers.parent = lost.id
         )
         DELETE FROM layers WHERE id IN (SELECT id FROM lost);
         DELETE FROM layer_blobs WHERE layer NOT IN (SELECT id FROM layers);
         DELETE FROM images WHERE digest NOT IN (SELECT digest FROM blobs);",
    )?;
    let lost = "DELETE FROM cache_records WHERE key IN (
            SELECT key FROM cache_outputs
            WHERE layer IS NOT NULL AND layer NOT IN (SELECT id FROM layers))
        RETURNING key";
    for key in digest_column(transaction, lost)? {
        recipes::note_lost(transaction, &key)?;
    }
    let orphans = "DELETE FROM cache_outputs WHERE key NOT IN (SELECT key FROM cache_records)";
    transaction.execute(orphans, []).map(|_| ())
}

fn names_in(dir: &Path) -> Result<HashSet<String>> {
    fs::read_dir(dir)
        .map_err(Error::io("read", dir))?
        .map(|entry| entry.map(|entry| entry.file_name().to_string_lossy().into_owned()))
        .collect::<std::io::Result<_>>()
        .map_err(Error::io("read", dir))
}

pub(crate) fn text_column(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare_cached(sql)?.query_map([], |row| row.get(0))?.collect()
}

pub(crate) fn digest_column(connection: &Connection, sql: &str) -> rusqlite::Result<Vec<Digest>> {
    connection
        .prepare_cached(sql)?
        .query_map([], |row| Ok(Digest::from_bytes(row.get(0)?)))?
        .collect()
}
