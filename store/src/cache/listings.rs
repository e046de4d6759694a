//! Listings of digested trees, by content digest. They show which file makes a later digest differ.
//!
//! A listing is a text that the worker defines. It is stored once for each digest, compressed,
//! however many steps and builds use the digest. Listings are optional: without one, an explanation
//! shows a digest in place of a file's name. So they are bounded. Listings that were unused for
//! [`MAX_AGE`] are removed, and the least recently used ones if all together exceed [`MAX_BYTES`].

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension};

use crate::error::Result;
use crate::name;
use crate::room::Room;

/// The time for which an unused listing is kept.
const MAX_AGE: Duration = Duration::from_hours(30 * 24);
/// The maximal size of all listings in bytes, compressed.
const MAX_BYTES: u64 = 64 << 20;

/// The maximal compressed size of a listing in bytes, enough for about a million files.
const LARGEST: usize = 16 << 20;
/// The maximal uncompressed size in bytes of a listing that is read.
const LARGEST_PLAIN: u64 = 1 << 30;
/// The interval at which the use of a listing is recorded.
const NOTED: Duration = Duration::from_hours(24);
/// The number of listings after which old ones are removed. This also happens after a listing
/// larger than `LARGE`.
const SWEEP: i64 = 64;
const LARGE: usize = 64 << 10;
/// The compression level: fast, because a step with a changed tree waits for its listing.
const LEVEL: i32 = 1;

/// The listings of a store.
#[derive(Clone, Debug)]
pub struct Listings {
    room: Arc<Room>,
}

impl Listings {
    /// Returns a handle to the listings of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone() }
    }

    /// Stores the listing for a digest. `listing` is only called if none is stored yet.
    pub fn keep(&self, digest: &Digest, listing: impl FnOnce() -> Vec<u8>) -> Result<()> {
        let now = name::now();
        let noted = now - NOTED.as_nanos() as i64;
        match self.seen_at(digest)? {
            Some(seen) if seen >= noted => return Ok(()),
            Some(_) => {
                let sql = "UPDATE listings SET seen_at = ?2 WHERE digest = ?1";
                return self.room.index().write("note a listing", |transaction| {
                    transaction.prepare_cached(sql)?.execute((digest.as_bytes(), now))?;
                    Ok(())
                });
            }
            None => {}
        }
        // Compressing to memory can't fail.
        let packed = zstd::encode_all(listing().as_slice(), LEVEL).unwrap_or_default();
        if packed.is_empty() || packed.len() > LARGEST {
            return Ok(());
        }
        let sql = "INSERT OR REPLACE INTO listings (digest, bytes, seen_at, listing)
                   VALUES (?1, ?2, ?3, ?4)";
        self.room.index().write("keep a listing", |transaction| {
            let bytes = packed.len() as i64;
            transaction.prepare_cached(sql)?.execute((digest.as_bytes(), bytes, now, &packed))?;
            if transaction.last_insert_rowid() % SWEEP == 0 || packed.len() > LARGE {
                sweep(transaction, now)?;
            }
            Ok(())
        })
    }

    /// Returns the listing for a digest, if it is stored and readable.
    pub fn get(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        let sql = "SELECT listing FROM listings WHERE digest = ?1";
        let packed: Option<Vec<u8>> =
            self.room.index().read("look up a listing", |connection| {
                connection
                    .prepare_cached(sql)?
                    .query_row([digest.as_bytes()], |row| row.get(0))
                    .optional()
            })?;
        let Some(packed) = packed else { return Ok(None) };
        let mut plain = Vec::new();
        let read = zstd::Decoder::new(packed.as_slice())
            .and_then(|decoder| decoder.take(LARGEST_PLAIN).read_to_end(&mut plain));
        Ok(read.ok().map(|_| plain))
    }

    fn seen_at(&self, digest: &Digest) -> Result<Option<i64>> {
        let sql = "SELECT seen_at FROM listings WHERE digest = ?1";
        self.room.index().read("look up a listing", |connection| {
            connection
                .prepare_cached(sql)?
                .query_row([digest.as_bytes()], |row| row.get(0))
                .optional()
        })
    }
}

/// Removes the listings beyond the limits.
pub(crate) fn sweep(connection: &Connection, now: i64) -> rusqlite::Result<()> {
    let sql = "DELETE FROM listings WHERE row IN (
            SELECT row FROM (
                SELECT row, seen_at, sum(bytes) OVER newest AS total
                FROM listings WINDOW newest AS (ORDER BY seen_at DESC, row DESC))
            WHERE total > ?1 OR seen_at < ?2)";
    let oldest = now - MAX_AGE.as_nanos() as i64;
    connection.prepare_cached(sql)?.execute((MAX_BYTES as i64, oldest))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use kiln_testkit::damage::Random;

    use super::*;
    use crate::Store;

    /// Returns bytes that can't be compressed.
    fn noise(seed: u8, length: usize) -> Vec<u8> {
        Random::new(seed.into()).bytes(length)
    }

    #[test]
    fn a_listing_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let listings = Store::open(dir.path()).unwrap().listings();
        let digest = Digest::of(b"x");
        assert_eq!(listings.get(&digest).unwrap(), None);
        listings.keep(&digest, || b"listing".to_vec()).unwrap();
        listings.keep(&digest, || panic!("it is there")).unwrap();
        assert_eq!(listings.get(&digest).unwrap().as_deref(), Some(&b"listing"[..]));
    }

    #[test]
    fn the_longest_unmet_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let listings = store.listings();
        let digest = |number: u8| Digest::of(&[number]);
        listings.keep(&digest(0), || noise(0, LARGEST + (1 << 20))).unwrap();
        assert_eq!(listings.get(&digest(0)).unwrap(), None, "it is too large");
        for number in 1..=5 {
            listings.keep(&digest(number), || noise(number, 15 << 20)).unwrap();
        }
        let kept: Vec<u8> =
            (1..=5).filter(|number| listings.get(&digest(*number)).unwrap().is_some()).collect();
        assert_eq!(kept, [2, 3, 4, 5]);
        let old = "UPDATE listings SET seen_at = 0";
        store.room().index().write("test", |transaction| transaction.execute(old, [])).unwrap();
        // Using a listing again renews it.
        listings.keep(&digest(3), || panic!("it is there")).unwrap();
        store.builds().prune().unwrap();
        let kept: Vec<u8> =
            (1..=5).filter(|number| listings.get(&digest(*number)).unwrap().is_some()).collect();
        assert_eq!(kept, [3]);
    }
}
