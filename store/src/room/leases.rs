//! The leases of this process.
//!
//! Lease 0 is the implicit one, on everything that the process stores or gets from the cache.

use std::collections::HashSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_oci::Digest;
use rusqlite::Connection;

use super::Room;
use crate::error::Result;

/// The numbers of the process's leases, and the parts that are certainly in its implicit lease.
#[derive(Debug, Default)]
pub(super) struct Leases {
    last: AtomicI64,
    layers: Mutex<HashSet<String>>,
    blobs: Mutex<HashSet<Digest>>,
}

impl Room {
    /// Returns the number of a new lease.
    pub(crate) fn new_lease(&self) -> i64 {
        self.leases.last.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Returns the IDs of layers that are certainly in the process's implicit lease.
    pub(crate) fn held_layers(&self) -> MutexGuard<'_, HashSet<String>> {
        self.leases.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the blobs that are certainly in the process's implicit lease.
    pub(crate) fn held_blobs(&self) -> MutexGuard<'_, HashSet<Digest>> {
        // The code that changes the set can't panic halfway.
        self.leases.blobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a layer to the process's implicit lease, within a transaction.
    pub(crate) fn hold_layer(&self, transaction: &Connection, layer: &str) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO lease_layers VALUES (?1, 0, ?2)";
        transaction.prepare_cached(sql)?.execute((self.process.name(), layer))?;
        Ok(())
    }

    /// Adds a blob to the process's implicit lease, within a transaction.
    pub(crate) fn hold_blob(
        &self,
        transaction: &Connection,
        digest: &Digest,
    ) -> rusqlite::Result<()> {
        let sql = "INSERT OR IGNORE INTO lease_blobs VALUES (?1, 0, ?2)";
        transaction.prepare_cached(sql)?.execute((self.process.name(), digest.as_bytes()))?;
        Ok(())
    }

    /// Ends all leases of the process.
    pub(super) fn end_leases(&self) -> Result<()> {
        self.index.write("end leases", |transaction| {
            let name = self.process.name();
            transaction
                .prepare_cached("DELETE FROM lease_layers WHERE process = ?1")?
                .execute([name])?;
            transaction
                .prepare_cached("DELETE FROM lease_blobs WHERE process = ?1")?
                .execute([name])?;
            Ok(())
        })
    }
}
