//! The segments of blobs that were packed here.
//!
//! A blob of a layer consists of segments that were compressed one by one. The index has the place
//! of each, under a key that stands for its content and its compression. So a new blob takes the
//! bytes of unchanged segments from an older one. The segments take no room besides the blobs, and
//! are forgotten with them.
//!
//! The rows also have the states of the hashers of the tar and of the blob at the end of each
//! segment. A blob with the same first segments continues from there.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use kiln_oci::Digest;
use rusqlite::{Connection, OptionalExtension, Row};

use super::Content;
use crate::db::sums;
use crate::error::{Error, Result};

/// The number of blobs that are compared with a new one to find the same first segments.
const COMPARED: usize = 4;

/// A segment of a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobSegment {
    /// The digest of the segment's content and compression.
    pub key: [u8; 32],
    /// The place of its first byte in the blob.
    pub offset: u64,
    /// The number of its bytes in the blob.
    pub size: u64,
    /// The number of its bytes in the tar.
    pub length: u64,
    /// The CRC-32 of its bytes in the tar.
    pub crc: u32,
    /// The digest of its bytes in the blob.
    pub digest: [u8; 32],
    /// The state of the tar's hasher behind the segment.
    pub tar_state: Vec<u8>,
    /// The state of the blob's hasher behind the segment.
    pub blob_state: Vec<u8>,
}

/// A segment in the store, and the blob that has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptSegment {
    /// The digest of the blob.
    pub blob: Digest,
    /// The segment.
    pub segment: BlobSegment,
}

impl KeptSegment {
    /// Reads the segment's bytes from the file of its blob. The caller verifies them.
    ///
    /// # Errors
    /// Fails if the file can't be read, or is too short.
    pub fn read(&self, file: &File) -> std::io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.segment.size as usize];
        file.read_exact_at(&mut bytes, self.segment.offset)?;
        Ok(bytes)
    }
}

impl Content {
    /// Stores the segments of a blob, in order, unless the blob was removed.
    ///
    /// # Errors
    /// Fails if the index can't be written.
    pub fn put_segments(&self, blob: &Digest, segments: &[BlobSegment]) -> Result<()> {
        let known = "SELECT 1 FROM blobs WHERE digest = ?1";
        let insert = "INSERT OR REPLACE INTO segments VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9,
                      ?10, row_sum(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10))";
        self.room.index().write("store segments", |transaction| {
            if !transaction.prepare_cached(known)?.exists([blob.as_bytes()])? {
                return Ok(());
            }
            let mut insert = transaction.prepare_cached(insert)?;
            for (number, segment) in segments.iter().enumerate() {
                insert.execute(rusqlite::params![
                    blob.as_bytes(),
                    number as i64,
                    segment.key,
                    segment.offset.cast_signed(),
                    segment.size.cast_signed(),
                    segment.length.cast_signed(),
                    segment.crc,
                    segment.digest,
                    segment.tar_state,
                    segment.blob_state,
                ])?;
            }
            Ok(())
        })
    }

    /// Returns a stored segment with this key. Its blob may have been changed or removed by other
    /// means than kiln: see [`Content::open`].
    ///
    /// # Errors
    /// Fails if the index can't be read.
    pub fn find_segment(&self, key: &[u8; 32]) -> Result<Option<KeptSegment>> {
        let sql = select("WHERE key = ?1 LIMIT 1");
        self.room.index().read("look up a segment", |connection| {
            let found = connection.prepare_cached(&sql)?.query_row([key], kept).optional()?;
            Ok(found.flatten())
        })
    }

    /// Returns the segments of the blob that begins with the most of the segments `keys`. The
    /// list is empty if no blob begins with the first one.
    ///
    /// # Errors
    /// Fails if the index can't be read.
    pub fn similar_segments(&self, keys: &[Option<[u8; 32]>]) -> Result<Vec<KeptSegment>> {
        let Some(Some(first)) = keys.first() else { return Ok(Vec::new()) };
        let sql = "SELECT blob FROM segments JOIN blobs ON blobs.digest = blob
                   WHERE key = ?1 AND number = 0 ORDER BY changed_at DESC LIMIT ?2";
        self.room.index().read_all("look up segments", |connection| {
            let blobs: Vec<[u8; 32]> = connection
                .prepare_cached(sql)?
                .query_map((first, COMPARED as i64), |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            let mut best: (usize, Vec<KeptSegment>) = (0, Vec::new());
            for blob in blobs {
                let segments = of_blob(connection, &blob)?;
                let same = common_start(&segments, keys);
                if same > best.0 {
                    best = (same, segments);
                }
            }
            Ok(best.1)
        })
    }

    /// Opens the blob of a segment, or returns `None` if its file isn't the stored one any more.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub fn open_for_segments(&self, blob: &Digest) -> Result<Option<File>> {
        match self.open(blob) {
            Ok(file) => Ok(Some(file)),
            Err(Error::Missing { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Returns the number of segments with which a blob begins as `keys` do.
pub fn common_start(segments: &[KeptSegment], keys: &[Option<[u8; 32]>]) -> usize {
    let is_same = |(kept, key): &(&KeptSegment, &Option<[u8; 32]>)| Some(kept.segment.key) == **key;
    segments.iter().zip(keys).take_while(is_same).count()
}

fn select(condition: &str) -> String {
    format!(
        "SELECT blob, key, offset, size, length, crc, digest, tar_state, blob_state, sum IS {}
         FROM segments {condition}",
        sums::SEGMENT
    )
}

/// Returns the segments of a blob up to the first damaged row.
fn of_blob(connection: &Connection, blob: &[u8; 32]) -> rusqlite::Result<Vec<KeptSegment>> {
    let sql = select("WHERE blob = ?1 ORDER BY number");
    let mut statement = connection.prepare_cached(&sql)?;
    let rows = statement.query_map([blob], kept)?;
    let mut found = Vec::new();
    for row in rows {
        match row? {
            Some(segment) => found.push(segment),
            None => break,
        }
    }
    Ok(found)
}

/// Returns the segment of a row, or `None` if the row is damaged.
fn kept(row: &Row<'_>) -> rusqlite::Result<Option<KeptSegment>> {
    if !row.get::<_, bool>(9)? {
        return Ok(None);
    }
    let number = |column| row.get::<_, i64>(column).map(i64::cast_unsigned);
    let segment = BlobSegment {
        key: row.get(1)?,
        offset: number(2)?,
        size: number(3)?,
        length: number(4)?,
        crc: row.get(5)?,
        digest: row.get(6)?,
        tar_state: row.get(7)?,
        blob_state: row.get(8)?,
    };
    Ok(Some(KeptSegment { blob: Digest::from_bytes(row.get(0)?), segment }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn segment(key: u8, offset: u64) -> BlobSegment {
        BlobSegment {
            key: [key; 32],
            offset,
            size: 2,
            length: 3,
            crc: u32::MAX,
            digest: [7; 32],
            tar_state: vec![1; 105],
            blob_state: Vec::new(),
        }
    }

    fn keys(keys: &[u8]) -> Vec<Option<[u8; 32]>> {
        keys.iter().map(|key| Some([*key; 32])).collect()
    }

    #[test]
    fn segments_are_found_by_key_and_go_with_their_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let one = content.put(b"abcd").unwrap().digest;
        content.put_segments(&one, &[segment(1, 0), segment(2, 2)]).unwrap();
        let found = content.find_segment(&[2; 32]).unwrap().unwrap();
        assert_eq!(found, KeptSegment { blob: one, segment: segment(2, 2) });
        let file = content.open_for_segments(&one).unwrap().unwrap();
        assert_eq!(found.read(&file).unwrap(), b"cd");
        assert!(content.find_segment(&[3; 32]).unwrap().is_none());

        content.remove_corrupt(&one).unwrap();
        assert!(content.find_segment(&[2; 32]).unwrap().is_none());
        content.put_segments(&one, &[segment(1, 0)]).unwrap();
        assert!(content.find_segment(&[1; 32]).unwrap().is_none(), "the blob is gone");
        assert!(content.open_for_segments(&one).unwrap().is_none());
    }

    #[test]
    fn the_blob_with_the_longest_common_start_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let (one, two) = (content.put(b"one").unwrap(), content.put(b"two").unwrap());
        content.put_segments(&one.digest, &[segment(1, 0), segment(2, 2)]).unwrap();
        let list = [segment(1, 0), segment(3, 2), segment(2, 4)];
        content.put_segments(&two.digest, &list).unwrap();
        let similar = |wanted: &[u8]| {
            let found = content.similar_segments(&keys(wanted)).unwrap();
            found
                .first()
                .map(|first| (first.blob, found.len(), common_start(&found, &keys(wanted))))
        };
        assert_eq!(similar(&[1, 2, 9]), Some((one.digest, 2, 2)));
        assert_eq!(similar(&[1, 3, 9]), Some((two.digest, 3, 2)));
        assert_eq!(similar(&[2, 3]), None, "no blob begins with this segment");
        assert!(content.similar_segments(&[None]).unwrap().is_empty());
    }

    #[test]
    fn damaged_rows_are_no_segments() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let blob = content.put(b"abcd").unwrap().digest;
        content.put_segments(&blob, &[segment(1, 0), segment(2, 2)]).unwrap();
        let damage = "UPDATE segments SET offset = 1 WHERE number = 1";
        store.room().index().write("test", |rows| rows.execute(damage, [])).unwrap();
        assert!(content.find_segment(&[2; 32]).unwrap().is_none());
        assert_eq!(content.similar_segments(&keys(&[1, 2])).unwrap().len(), 1);
        assert_eq!(store.check().unwrap().len(), 1);
        store.repair(&store.check().unwrap()).unwrap();
        assert!(store.check().unwrap().is_empty());
    }
}
