//! The uses of the cache that the index doesn't have yet.
//!
//! A look-up doesn't wait for a write: the uses are kept in memory, and written after many of them,
//! before parts of the cache are removed, and when the store is closed.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kiln_oci::Digest;

use super::file_digests::{self, Page};
use crate::db::Index;
use crate::error::Result;
use crate::name;

/// The number of uses of records that are kept in memory before they are written.
const MANY: usize = 1024;

/// The unwritten uses of this process.
#[derive(Debug, Default)]
pub(crate) struct Uses {
    /// The times of the last uses of cache records.
    records: Mutex<HashMap<Digest, i64>>,
    /// The pages of file digests that were used today.
    pages: Mutex<BTreeSet<Page>>,
}

impl Uses {
    /// Notes that a record is used now. Returns `true` if there are so many uses that they must be
    /// written.
    pub(super) fn note_record(&self, key: &Digest) -> bool {
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.insert(*key, name::now());
        records.len() > MANY
    }

    /// Returns the pages that were used today and whose use the index doesn't have yet.
    pub(super) fn pages(&self) -> MutexGuard<'_, BTreeSet<Page>> {
        // The code that changes the set can't panic halfway.
        self.pages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the uses to the index.
    pub(crate) fn flush(&self, index: &Index) -> Result<()> {
        let used =
            std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner));
        let pages = std::mem::take(&mut *self.pages());
        if used.is_empty() && pages.is_empty() {
            return Ok(());
        }
        index.write("note uses", |transaction| {
            let sql = "UPDATE cache_records SET used_at = max(used_at, ?2) WHERE key = ?1";
            let mut statement = transaction.prepare_cached(sql)?;
            for (key, time) in &used {
                statement.execute((key.as_bytes(), time))?;
            }
            file_digests::note_uses(transaction, pages)
        })
    }
}
