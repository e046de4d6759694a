//! Digests of files that were read before, by what tells that a file is the one it was.
//!
//! File systems number the files that are made together one after the other. So the digests of 256
//! neighbouring inodes lie in one row, a *page*: a context of twenty thousand files is a hundred
//! look-ups, whatever its directories are like. A page holds one record for each of its inodes, and
//! what is written for an inode takes the place of what was known of it: the table grows with the
//! files that there are, and not with their changes.
//!
//! A record is 65 bytes, all numbers little-endian: the lowest byte of the inode, the size (8), the
//! times of modification and of last change (8 and 4 each: seconds and nanoseconds), the digest (32).

use std::collections::BTreeMap;

use kiln_tree::{Metadata, Timestamp};
use rusqlite::OptionalExtension;

use crate::cache::CacheIndex;
use crate::error::Result;
use crate::sums;

/// How many bytes a record has.
const RECORD: usize = 65;

/// What tells that a file is the one it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// The device that the file is on.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// When its bytes were changed last.
    pub mtime: Timestamp,
    /// When anything of it was changed last.
    pub ctime: Timestamp,
}

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        let Metadata { device, inode, size, mtime, ctime, .. } = *metadata;
        Self { device, inode, size, mtime, ctime }
    }
}

impl FileStamp {
    /// Returns the page that the file's record is in: the device, and the inode without its lowest
    /// byte.
    fn page(&self) -> (u64, u64) {
        (self.device, self.inode >> 8)
    }

    /// Returns a record but for the digest.
    fn encode(&self) -> [u8; RECORD - 32] {
        let mut bytes = [0; RECORD - 32];
        bytes[0] = self.inode as u8;
        bytes[1..9].copy_from_slice(&self.size.to_le_bytes());
        for (at, time) in [(9, self.mtime), (21, self.ctime)] {
            bytes[at..at + 8].copy_from_slice(&time.seconds.to_le_bytes());
            bytes[at + 8..at + 12].copy_from_slice(&time.nanoseconds.to_le_bytes());
        }
        bytes
    }
}

impl CacheIndex {
    /// Returns the digests of files that were read before and haven't changed, in their order.
    pub fn file_digests(&self, files: &[FileStamp]) -> Result<Vec<Option<[u8; 32]>>> {
        let mut pages: BTreeMap<(u64, u64), Vec<usize>> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            pages.entry(file.page()).or_default().push(number);
        }
        let sql = format!(
            "SELECT records FROM file_pages WHERE device = ?1 AND page = ?2 AND sum IS {}",
            sums::FILE_PAGE
        );
        let found = self.inner.index.read("look up file digests", |connection| {
            // One transaction, so that the index is not looked at for changes each time.
            let snapshot = connection.unchecked_transaction()?;
            let mut statement = snapshot.prepare_cached(&sql)?;
            let page = |(device, page): &(u64, u64)| {
                let key = (device.cast_signed(), page.cast_signed());
                statement.query_row(key, |row| row.get::<_, Vec<u8>>(0)).optional()
            };
            pages.keys().map(page).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let mut digests = vec![None; files.len()];
        for (records, numbers) in found.iter().zip(pages.values()) {
            let Some(records) = records else { continue };
            for number in numbers {
                digests[*number] = digest_in(records, &files[*number].encode());
            }
        }
        Ok(digests)
    }

    /// Remembers digests of files, in one transaction.
    pub fn put_file_digests(&self, learned: &[(FileStamp, [u8; 32])]) -> Result<()> {
        let mut pages: BTreeMap<(u64, u64), BTreeMap<u8, [u8; RECORD]>> = BTreeMap::new();
        for (file, digest) in learned {
            let mut record = [0; RECORD];
            record[..RECORD - 32].copy_from_slice(&file.encode());
            record[RECORD - 32..].copy_from_slice(digest);
            pages.entry(file.page()).or_default().insert(file.inode as u8, record);
        }
        let select = format!(
            "SELECT records FROM file_pages WHERE device = ?1 AND page = ?2 AND sum IS {}",
            sums::FILE_PAGE
        );
        let insert = "INSERT OR REPLACE INTO file_pages VALUES (?1, ?2, ?3,
                      (SELECT value FROM meta WHERE key = 'epoch'), row_sum(?1, ?2, ?3))";
        self.inner.index.write("remember file digests", |transaction| {
            let mut select = transaction.prepare_cached(&select)?;
            let mut insert = transaction.prepare_cached(insert)?;
            for ((device, page), new) in &mut pages {
                let key = (device.cast_signed(), page.cast_signed());
                let old = select.query_row(key, |row| row.get::<_, Vec<u8>>(0)).optional()?;
                for record in old.iter().flat_map(|old| old.as_chunks::<RECORD>().0) {
                    new.entry(record[0]).or_insert(*record);
                }
                let records: Vec<u8> = new.values().flatten().copied().collect();
                insert.execute((key.0, key.1, records))?;
            }
            Ok(())
        })
    }
}

/// Returns the digest of the record that begins like this.
fn digest_in(records: &[u8], beginning: &[u8]) -> Option<[u8; 32]> {
    let records = records.as_chunks::<RECORD>().0;
    let at = records.binary_search_by_key(&beginning[0], |record| record[0]).ok()?;
    let digest = records[at].strip_prefix(beginning)?;
    digest.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn file(inode: u64, size: u64) -> FileStamp {
        let time = |seconds| Timestamp { seconds, nanoseconds: 999_999_999 };
        FileStamp { device: u64::MAX, inode, size, mtime: time(-1), ctime: time(i64::MAX) }
    }

    #[test]
    fn digests_are_found_by_everything_that_tells_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = store.cache();
        let known = file(u64::MAX - 3, 5);
        cache.put_file_digests(&[(known, [1; 32]), (file(256, 1), [2; 32])]).unwrap();
        cache.put_file_digests(&[(file(257, 1), [3; 32])]).unwrap();
        let mut asked = vec![known, file(258, 1), file(256, 1), file(257, 1), file(256, 1)];
        let later = |time: Timestamp| Timestamp { nanoseconds: time.nanoseconds - 1, ..time };
        asked.push(FileStamp { device: 1, ..known });
        asked.push(FileStamp { size: 6, ..known });
        asked.push(FileStamp { mtime: later(known.mtime), ..known });
        asked.push(FileStamp { ctime: later(known.ctime), ..known });
        let found = cache.file_digests(&asked).unwrap();
        let expected = [Some(1), None, Some(2), Some(3), Some(2), None, None, None, None];
        assert_eq!(found, expected.map(|byte| byte.map(|byte| [byte; 32])));
    }

    #[test]
    fn an_inode_has_one_record() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = store.cache();
        for size in 1..100 {
            cache.put_file_digests(&[(file(7, size), [size as u8; 32])]).unwrap();
        }
        assert_eq!(
            cache.file_digests(&[file(7, 98), file(7, 99)]).unwrap(),
            [None, Some([99; 32])]
        );
        let sql = "SELECT sum(length(records)) FROM file_pages";
        let bytes = cache
            .inner
            .index
            .read("count", |connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0)));
        assert_eq!(bytes.unwrap(), RECORD as i64);
    }

    #[test]
    fn a_page_that_is_damaged_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = store.cache();
        cache.put_file_digests(&[(file(7, 1), [1; 32])]).unwrap();
        let damage = "UPDATE file_pages SET sum = sum + 1";
        cache.inner.index.write("damage", |transaction| transaction.execute(damage, [])).unwrap();
        assert_eq!(cache.file_digests(&[file(7, 1)]).unwrap(), [None]);
        cache.put_file_digests(&[(file(8, 1), [3; 32])]).unwrap();
        assert_eq!(cache.file_digests(&[file(7, 1), file(8, 1)]).unwrap(), [None, Some([3; 32])]);
    }
}
