//! A cap on the disk space of the store, which is enforced before data is written.
//!
//! A process *claims* the bytes that it is about to write. The claims of a process are covered by
//! its *reservation*, a row of the index. The reservation is raised in the same transaction that
//! checks the disk space in use: that of all layers, blobs, cache mounts and volumes, of the
//! store's own files, and the reservations of all processes. So the sum stays below the cap,
//! however many processes write at once. A claim ends when the written data has a row of its own,
//! in the same transaction, or when the data is removed from the disk.
//!
//! If there is no room, the least recently used parts of the cache are removed first
//! ([`Keeper::evict`](super::Keeper::evict)). If nothing can be removed, the process waits while
//! another build is running, since that build releases its data in the end. Otherwise the claim
//! fails. If several processes wait for each other, one fails and the others continue.
//!
//! The output of programs can't be claimed in advance. Their directories are watched: see
//! `upkeep::watch`.
//!
//! The reservation of a killed process remains until its directory in `tmp/` is removed. The
//! process that takes over the directory also takes over the reservation.
//!
//! A process without a cap claims nothing. So the cap only works if all processes have it, for
//! example from a configuration file.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, Transaction};

use super::{Room, places};
use crate::error::{Error, Result};

/// The interval between attempts to get room that other processes hold.
const RETRY: Duration = Duration::from_millis(200);
/// The allocation unit of files, in bytes.
const BLOCK: u64 = 4096;

/// The values of the column by which a waiting process informs the others.
const WAITS: i64 = 1;
const GIVES_UP: i64 = 2;

/// The cap, and this process's share of it.
#[derive(Debug, Default)]
pub(crate) struct Cap {
    bytes: Option<u64>,
    held: Mutex<Claims>,
    /// The lock that lets one thread at a time make room.
    making: Mutex<()>,
}

#[derive(Debug, Default)]
struct Claims {
    /// The sum of all claims of this process in bytes.
    claimed: u64,
    /// The reservation of this process in bytes.
    granted: u64,
}

/// A claim on bytes that are, or may be, on the disk and have no row yet.
#[derive(Debug)]
pub(crate) struct Claim {
    cap: Arc<Cap>,
    bytes: AtomicU64,
}

impl Cap {
    pub(super) fn new(bytes: Option<u64>) -> Self {
        Self { bytes, ..Self::default() }
    }

    /// Returns `true` if this process may have a reservation.
    pub(super) fn is_in_use(&self) -> bool {
        self.bytes.is_some() || self.held().granted > 0
    }

    /// Returns the cap in bytes.
    pub(crate) fn bytes(&self) -> Option<u64> {
        self.bytes
    }

    /// Returns the number of bytes that a process reserves beyond its claims.
    fn chunk(&self) -> u64 {
        self.bytes.map_or(0, |cap| (cap / 128).clamp(256 << 10, 16 << 20))
    }

    /// Returns the number of bytes kept free for programs, whose output is only measured
    /// afterwards.
    pub(crate) fn headroom(&self) -> u64 {
        self.bytes.map_or(0, |cap| cap / 16)
    }

    fn held(&self) -> MutexGuard<'_, Claims> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Claims bytes if there is room. Otherwise returns the number of missing bytes.
    fn take(&self, room: &Room, cap: u64, bytes: u64) -> Result<std::result::Result<(), u64>> {
        let mut held = self.held();
        let needed = held.claimed.saturating_add(bytes);
        if needed > held.granted {
            let (before, more, chunk) = (held.granted, needed - held.granted, self.chunk());
            let own = room.keeper.unrecorded_bytes(room)?;
            let granted = room.index().write("reserve room", |transaction| {
                let free = cap.saturating_sub(own + recorded_bytes(transaction)?);
                if more > free {
                    return Ok(Err(more - free));
                }
                let granted = before + free.min(more + chunk);
                reserve(transaction, room.process().name(), granted, 0)?;
                Ok(Ok(granted))
            })?;
            match granted {
                Ok(granted) => held.granted = granted,
                Err(missing) => return Ok(Err(missing)),
            }
        }
        held.claimed = needed;
        Ok(Ok(()))
    }

    /// Claims bytes, and makes room for them if necessary.
    fn claim(&self, room: &Arc<Room>, bytes: u64) -> Result<()> {
        let Some(cap) = self.bytes else { return Ok(()) };
        // The header of an archive may say anything. Neither the cache nor time makes room for that.
        if bytes > cap {
            return Err(Error::Full { cap, needed: bytes });
        }
        if self.take(room, cap, bytes)?.is_ok() {
            return Ok(());
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            // Pending removals are completed first.
            room.trash().settle();
            let Err(missing) = self.take(room, cap, bytes)? else { return Ok(()) };
            if evict(room, missing, missing.saturating_add(self.headroom() / 2))? > 0 {
                continue;
            }
            if !wait_for_others(room, self.held().granted)? {
                return Err(Error::Full { cap, needed: bytes });
            }
            std::thread::sleep(RETRY);
        }
    }

    /// Writes the rows of claimed data, and ends the claim: see [`Room::record`].
    pub(super) fn record<T>(
        &self,
        room: &Room,
        claim: &Claim,
        action: &'static str,
        write: impl FnOnce(&Transaction<'_>) -> rusqlite::Result<T>,
    ) -> Result<T> {
        if self.bytes.is_none() {
            return room.index().write(action, write);
        }
        let mut held = self.held();
        let left = held.claimed.saturating_sub(claim.bytes());
        let wanted = held.granted.min(left + self.chunk());
        let value = room.index().write(action, |transaction| {
            let value = write(transaction)?;
            if wanted < held.granted {
                reserve(transaction, room.process().name(), wanted, 0)?;
            }
            Ok(value)
        })?;
        (held.claimed, held.granted) = (left, wanted);
        claim.bytes.store(0, Ordering::Relaxed);
        Ok(value)
    }

    /// Keeps headroom for programs, at least `ahead` bytes, and raises the reservation to cover
    /// their output. Returns the number of bytes that may still be written.
    pub(crate) fn balance(&self, room: &Arc<Room>, ahead: u64) -> Result<u64> {
        let Some(cap) = self.bytes else { return Ok(u64::MAX) };
        let headroom = self.headroom().max(ahead);
        let used = self.used(room)?;
        if used + headroom <= cap {
            return Ok(cap - used);
        }
        let _one = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let used = self.used(room)?;
        let wanted = (used + headroom).saturating_sub(cap);
        if wanted > 0 {
            evict(room, 0, wanted + headroom / 2)?;
        }
        Ok(cap.saturating_sub(self.used(room)?))
    }

    /// Raises the reservation to the sum of claims, even without room. Returns the disk space of
    /// the store and all reservations.
    fn used(&self, room: &Room) -> Result<u64> {
        let mut held = self.held();
        let own = room.keeper.unrecorded_bytes(room)?;
        let claimed = held.claimed;
        let changes = claimed > held.granted || held.granted > claimed + 4 * self.chunk();
        let used = if changes {
            room.index().write("reserve room", |transaction| {
                reserve(transaction, room.process().name(), claimed, 0)?;
                recorded_bytes(transaction)
            })?
        } else {
            room.index().read_all("add up", recorded_bytes)?
        };
        if changes {
            held.granted = claimed;
        }
        Ok(own + used)
    }
}

impl Claim {
    /// Returns a claim on zero bytes.
    pub(super) fn new(cap: &Arc<Cap>) -> Self {
        Self { cap: Arc::clone(cap), bytes: AtomicU64::new(0) }
    }

    /// Adds the disk space of a file of `bytes` bytes to the claim.
    ///
    /// # Errors
    /// Fails if there is no room for them and none can be made.
    pub(crate) fn add(&self, room: &Arc<Room>, bytes: u64) -> Result<()> {
        if self.cap.bytes.is_some() {
            let bytes = bytes.div_ceil(BLOCK).saturating_mul(BLOCK);
            self.cap.claim(room, bytes)?;
            self.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Raises the claim to `bytes` bytes.
    pub(crate) fn ensure(&self, room: &Arc<Room>, bytes: u64) -> Result<()> {
        match bytes.saturating_sub(self.bytes()) {
            0 => Ok(()),
            missing => self.add(room, missing),
        }
    }

    /// Sets the claim to the bytes on the disk, even without room.
    pub(crate) fn set(&self, bytes: u64) {
        let mut held = self.cap.held();
        let before = self.bytes.swap(bytes, Ordering::Relaxed);
        held.claimed = (held.claimed + bytes).saturating_sub(before);
    }

    /// Returns the number of claimed bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if self.bytes() > 0 {
            self.set(0);
        }
    }
}

/// Takes over the reservation of a dead process, together with its directory.
pub(crate) fn adopt(room: &Room, dead: &str) -> Result<Option<Claim>> {
    let mut held = room.cap.held();
    let bytes = room.index().write("take over a reservation", |transaction| {
        let sql = "SELECT sum(bytes) FROM reservations WHERE process = ?1";
        let bytes: Option<i64> =
            transaction.prepare_cached(sql)?.query_row([dead], |row| row.get(0))?;
        let bytes = bytes.unwrap_or_default().cast_unsigned();
        transaction
            .prepare_cached("DELETE FROM reservations WHERE process = ?1")?
            .execute([dead])?;
        if bytes > 0 {
            reserve(transaction, room.process().name(), held.granted + bytes, 0)?;
        }
        Ok(bytes)
    })?;
    if bytes == 0 {
        return Ok(None);
    }
    held.granted += bytes;
    held.claimed += bytes;
    let (cap, bytes) = (Arc::clone(&room.cap), AtomicU64::new(bytes));
    Ok(Some(Claim { cap, bytes }))
}

/// Deletes the reservation of a process without unfinished data.
pub(super) fn release(transaction: &Connection, process: &str) -> rusqlite::Result<()> {
    let sql = "DELETE FROM reservations WHERE process = ?1";
    transaction.prepare_cached(sql)?.execute([process]).map(|_| ())
}

/// Sets the reservation of a process: its bytes, and whether it waits for others ([`WAITS`]).
fn reserve(
    transaction: &Connection,
    process: &str,
    bytes: u64,
    waits: i64,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO reservations VALUES (?1, ?2, ?3)";
    transaction.prepare_cached(sql)?.execute((process, bytes.cast_signed(), waits))?;
    Ok(())
}

/// Returns the disk space of everything with a row, and all reservations.
fn recorded_bytes(connection: &Connection) -> rusqlite::Result<u64> {
    let sql = "SELECT (SELECT coalesce(sum(disk), 0) FROM layers WHERE has_tree)
                    + (SELECT coalesce(sum(disk), 0) FROM blobs)
                    + (SELECT coalesce(sum(bytes), 0) FROM reservations)";
    let bytes: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(bytes.cast_unsigned() + places::total(connection)?)
}

/// Frees room. Returns a positive number if anything was removed: the number of bytes freed, plus
/// the number of trees of dead processes.
fn evict(room: &Arc<Room>, least: u64, wanted: u64) -> Result<u64> {
    let before = room.trash().settle();
    let freed = room.keeper.evict(room, least, wanted)?;
    Ok(freed + (room.trash().settle() - before))
}

/// Records that this process waits for room. Returns `true` if another build is running that
/// doesn't wait.
fn wait_for_others(room: &Room, granted: u64) -> Result<bool> {
    let own = room.process().name();
    room.index().write("wait for room", |transaction| {
        let sql = "SELECT 1 FROM builds LEFT JOIN reservations USING (process)
                   WHERE status = 'running' AND process <> ?1 AND coalesce(waits, 0) <> ?2";
        let is_other_at_work = transaction.prepare_cached(sql)?.exists((own, WAITS))?;
        let state = if is_other_at_work { WAITS } else { GIVES_UP };
        reserve(transaction, own, granted, state)?;
        Ok(is_other_at_work)
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use kiln_oci::Digest;

    use super::*;
    use crate::{LayerId, Store, StoreOptions};

    const CAP: u64 = 4 << 20;

    fn open(root: &std::path::Path) -> Store {
        Store::open_with(root, &StoreOptions { max_bytes: Some(CAP), ..StoreOptions::default() })
            .unwrap()
    }

    fn layer(store: &Store, name: &str, kib: usize) -> Result<LayerId> {
        let tree = store.layers().begin()?;
        tree.claim_for(kib as u64 * 1024)?;
        fs::write(tree.fs().join("f"), vec![1; kib << 10]).unwrap();
        let id = store.layers().commit(tree, None)?;
        store.cache().put(&Digest::of(name.as_bytes()), &[Some(id.clone())], "")?;
        Ok(id)
    }

    fn reserved(store: &Store) -> i64 {
        store
            .room()
            .index()
            .read("test", |connection| {
                let sql = "SELECT coalesce(sum(bytes), 0) FROM reservations";
                connection.query_row(sql, [], |row| row.get(0))
            })
            .unwrap()
    }

    #[test]
    fn what_was_used_longest_ago_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut made = Vec::new();
        for number in 0..8 {
            let store = open(dir.path());
            made.push(layer(&store, &number.to_string(), 1024).unwrap());
            assert!(store.disk_usage().unwrap().total() <= CAP, "{number}");
            drop(store);
        }
        let store = open(dir.path());
        let there = |id: &LayerId| store.layers().exists(id).unwrap();
        assert!(there(&made[7]) && there(&made[6]) && !there(&made[0]) && !there(&made[3]));
        // The data that is removed in the background stays claimed until it is gone.
        let begun = std::time::Instant::now();
        while reserved(&store) > 0 {
            assert!(begun.elapsed().as_secs() < 60, "{} bytes stay claimed", reserved(&store));
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    #[test]
    fn what_has_no_room_fails_and_leaves_the_rest() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        let first = layer(&store, "first", 2048).unwrap();
        let error = layer(&store, "second", 2048).unwrap_err();
        assert!(matches!(error, Error::Full { cap: CAP, .. }), "{error}");
        assert!(error.to_string().contains("--max-storage"), "{error}");
        assert!(store.layers().exists(&first).unwrap());
        let tree = store.layers().begin().unwrap();
        assert!(matches!(tree.claim_for(u64::MAX).unwrap_err(), Error::Full { .. }));
        drop(tree);
        let mut writer = store.content().writer().unwrap();
        let mut written = 0;
        let error = loop {
            match writer.write_all(&vec![1; 100_000]) {
                Ok(()) => written += 100_000,
                Err(error) => break error.to_string(),
            }
        };
        assert!(
            error.contains("--max-storage") && (500_000..2_000_000).contains(&written),
            "{error}"
        );
        drop(writer);
        layer(&store, "third", 1024).unwrap();
    }

    #[test]
    fn reservations_of_the_dead_count_until_their_files_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store
            .room()
            .index()
            .write("test", |transaction| reserve(transaction, "1-dead", 3 << 20, 0))
            .unwrap();
        fs::create_dir_all(dir.path().join("tmp/1-dead/0/fs")).unwrap();
        fs::write(dir.path().join("tmp/1-dead/0/fs/f"), vec![1; 3 << 20]).unwrap();
        layer(&store, "x", 2048).unwrap();
        assert!(!dir.path().join("tmp/1-dead").exists());
        drop(store);
        assert_eq!(reserved(&open(dir.path())), 0);
    }
}
