//! Leases, with which living processes keep layers and blobs.

use std::sync::Arc;

use kiln_oci::Digest;

use super::LayerId;
use crate::error::{Error, Result};
use crate::room::Room;

/// A lease on layers and blobs, which prevents their collection until it is dropped.
#[derive(Debug)]
pub struct Lease {
    room: Arc<Room>,
    number: i64,
}

impl Lease {
    /// Begins an empty lease.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone(), number: room.new_lease() }
    }

    /// Adds a layer, and all layers below it.
    ///
    /// # Errors
    /// Fails if the layer doesn't exist.
    pub fn add_layer(&self, id: &LayerId) -> Result<()> {
        let there = self.room.index().write("lease a layer", |transaction| {
            let known = "SELECT 1 FROM layers WHERE id = ?1";
            if !transaction.prepare_cached(known)?.exists([id.as_str()])? {
                return Ok(false);
            }
            transaction
                .prepare_cached("INSERT OR IGNORE INTO lease_layers VALUES (?1, ?2, ?3)")?
                .execute((self.room.process().name(), self.number, id.as_str()))?;
            Ok(true)
        })?;
        if there { Ok(()) } else { Err(Error::missing("layer", id)) }
    }

    /// Adds a blob to the lease.
    ///
    /// # Errors
    /// Fails if the blob doesn't exist.
    pub fn add_blob(&self, digest: &Digest) -> Result<()> {
        let there = self.room.index().write("lease a blob", |transaction| {
            let known = "SELECT 1 FROM blobs WHERE digest = ?1";
            if !transaction.prepare_cached(known)?.exists([digest.as_bytes()])? {
                return Ok(false);
            }
            transaction
                .prepare_cached("INSERT OR IGNORE INTO lease_blobs VALUES (?1, ?2, ?3)")?
                .execute((self.room.process().name(), self.number, digest.as_bytes()))?;
            Ok(true)
        })?;
        if there { Ok(()) } else { Err(Error::missing("blob", digest)) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let ended = self.room.index().write("end a lease", |transaction| {
            let whose = (self.room.process().name(), self.number);
            transaction
                .prepare_cached("DELETE FROM lease_layers WHERE process = ?1 AND lease = ?2")?
                .execute(whose)?;
            transaction
                .prepare_cached("DELETE FROM lease_blobs WHERE process = ?1 AND lease = ?2")?
                .execute(whose)
        });
        // The lease ends with the process at the latest.
        if let Err(error) = ended {
            tracing::debug!(%error, "can't end a lease");
        }
    }
}
