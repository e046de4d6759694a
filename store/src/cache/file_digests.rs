//! Digests of files that were read before, by the files' metadata.
//!
//! File systems assign consecutive inode numbers to files that are created together. So the digests
//! for 256 neighbouring inodes are in one row, a *page*: a context of twenty thousand files needs
//! about a hundred look-ups, whatever its directory structure. A page has one record for each of
//! its inodes, and a new record replaces the old one. So the size of the table depends on the
//! number of files, and not on their changes.
//!
//! The index doesn't notice deleted files. So the day of the last use is stored for each page, in
//! another table than the page, which is much larger. Pages that were unused for a month are
//! removed when the store is flushed after a build, and by pruning.
//!
//! A record has 65 bytes, all numbers little-endian: the lowest byte of the inode, the size (8),
//! the modification and status change times (8 and 4 each: seconds and nanoseconds), the digest
//! (32).

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_tree::{Metadata, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row};

use super::CacheIndex;
use crate::db::sums;
use crate::error::Result;
use crate::name;
use crate::room::Room;

/// The size of a record in bytes.
const RECORD: usize = 65;

/// The number of days for which an unused page is kept.
const KEPT: i64 = 30;

/// The identity of a page: the device, and the inode numbers without their lowest byte.
pub(super) type Page = (u64, u64);

/// The metadata that identifies an unchanged file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    /// The number of the device that contains the file.
    pub device: u64,
    /// The inode number, unique on the device.
    pub inode: u64,
    /// The size in bytes.
    pub size: u64,
    /// The time of the last change to the content.
    pub mtime: Timestamp,
    /// The time of the last change to content or metadata.
    pub ctime: Timestamp,
}

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        let Metadata { device, inode, size, mtime, ctime, .. } = *metadata;
        Self { device, inode, size, mtime, ctime }
    }
}

impl FileStamp {
    /// Returns the page with the file's record.
    fn page(&self) -> Page {
        (self.device, self.inode >> 8)
    }

    /// Returns the record without its digest.
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
    /// Returns the known digests of unchanged files, in order.
    pub fn file_digests(&self, files: &[FileStamp]) -> Result<Vec<Option<[u8; 32]>>> {
        let mut pages: BTreeMap<Page, Vec<usize>> = BTreeMap::new();
        for (number, file) in files.iter().enumerate() {
            pages.entry(file.page()).or_default().push(number);
        }
        let sql = format!(
            "SELECT records, (SELECT day FROM file_page_uses AS uses
                              WHERE uses.device = ?1 AND uses.page = ?2)
             FROM file_pages WHERE device = ?1 AND page = ?2 AND sum IS {}",
            sums::FILE_PAGE
        );
        let found = self.room.index().read("look up file digests", |connection| {
            // In a single transaction, SQLite checks the index for changes only once.
            let snapshot = connection.unchecked_transaction()?;
            let mut statement = snapshot.prepare_cached(&sql)?;
            let page = |(device, page): &Page| {
                let key = (device.cast_signed(), page.cast_signed());
                let read =
                    |row: &Row<'_>| Ok((row.get::<_, Vec<u8>>(0)?, row.get::<_, Option<i64>>(1)?));
                statement.query_row(key, read).optional()
            };
            pages.keys().map(page).collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let (mut digests, mut used, today) = (vec![None; files.len()], Vec::new(), today());
        for (found, (page, numbers)) in found.iter().zip(&pages) {
            let Some((records, day)) = found else { continue };
            for number in numbers {
                digests[*number] = digest_in(records, &files[*number].encode());
            }
            if *day != Some(today) && numbers.iter().any(|number| digests[*number].is_some()) {
                used.push(*page);
            }
        }
        self.uses.pages().extend(used);
        Ok(digests)
    }

    /// Stores the digests of files in one transaction.
    pub fn put_file_digests(&self, learned: &[(FileStamp, [u8; 32])]) -> Result<()> {
        let mut pages: BTreeMap<Page, BTreeMap<u8, [u8; RECORD]>> = BTreeMap::new();
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
        self.room.index().write("remember file digests", |transaction| {
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
            note_uses(transaction, pages.keys().copied())
        })
    }
}

/// Records within a transaction that pages were used today.
pub(super) fn note_uses(
    transaction: &Connection,
    pages: impl IntoIterator<Item = Page>,
) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO file_page_uses VALUES (?1, ?2, ?3)";
    let (mut statement, today) = (transaction.prepare_cached(sql)?, today());
    for (device, page) in pages {
        statement.execute((device.cast_signed(), page.cast_signed(), today))?;
    }
    Ok(())
}

/// Removes the pages that were unused for a month.
pub(crate) fn forget_unused(room: &Room) -> Result<()> {
    let first = today() - KEPT;
    let some = "SELECT 1 FROM file_page_uses WHERE day < ?1";
    let some = room.index().read("look for unused file digests", |connection| {
        connection.prepare_cached(some)?.exists([first])
    })?;
    if !some {
        return Ok(());
    }
    room.index().write("forget file digests", |transaction| {
        let pages = "DELETE FROM file_pages WHERE rowid IN (
                         SELECT file_pages.rowid FROM file_page_uses AS uses
                         JOIN file_pages USING (device, page) WHERE uses.day < ?1)";
        transaction.execute(pages, [first])?;
        transaction.execute("DELETE FROM file_page_uses WHERE day < ?1", [first])?;
        Ok(())
    })
}

/// Returns the number of days since 1970.
fn today() -> i64 {
    name::now() / Duration::from_hours(24).as_nanos() as i64
}

/// Returns the digest of the record that begins with `beginning`.
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
            .room
            .index()
            .read("count", |connection| connection.query_row(sql, [], |row| row.get::<_, i64>(0)));
        assert_eq!(bytes.unwrap(), RECORD as i64);
    }

    #[test]
    fn what_is_of_no_use_for_a_month_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let (used, gone) = (file(7, 1), file(7 << 8, 1));
        let age = |days: i64| {
            let store = Store::open(dir.path()).unwrap();
            let sql = "UPDATE file_page_uses SET day = day - ?1";
            store.room().index().write("age", |it| it.execute(sql, [days])).unwrap();
        };
        let rows = |table: &str| {
            let store = Store::open(dir.path()).unwrap();
            let sql = format!("SELECT count(*) FROM {table}");
            let count = |it: &Connection| it.query_row(&sql, [], |row| row.get::<_, i64>(0));
            store.room().index().read("count", count).unwrap()
        };
        let find = |file| {
            let store = Store::open(dir.path()).unwrap();
            let cache = store.cache();
            let found = cache.file_digests(&[file]).unwrap();
            let noted = cache.uses.pages().len();
            (found[0].is_some(), noted)
        };
        let known = [(used, [1; 32]), (gone, [2; 32])];
        Store::open(dir.path()).unwrap().cache().put_file_digests(&known).unwrap();
        assert_eq!(find(used), (true, 0), "nothing is written on the same day");
        age(20);
        assert_eq!(find(used), (true, 1));
        assert_eq!(find(used), (true, 0), "once a day is enough");
        assert_eq!(find(FileStamp { size: 2, ..gone }), (false, 0), "that was of no use");
        age(20);
        Store::open(dir.path()).unwrap().sync().unwrap();
        assert_eq!((rows("file_pages"), rows("file_page_uses")), (1, 1));
        assert_eq!((find(used).0, find(gone).0), (true, false));
        age(20);
        Store::open(dir.path()).unwrap().prune(&crate::PruneOptions::default()).unwrap();
        assert_eq!(rows("file_pages"), 1, "it was of use after the sweep");
        age(40);
        Store::open(dir.path()).unwrap().prune(&crate::PruneOptions::default()).unwrap();
        assert_eq!((rows("file_pages"), rows("file_page_uses")), (0, 0));
    }

    #[test]
    fn a_page_that_is_damaged_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let cache = store.cache();
        cache.put_file_digests(&[(file(7, 1), [1; 32])]).unwrap();
        let damage = "UPDATE file_pages SET sum = sum + 1";
        cache.room.index().write("damage", |transaction| transaction.execute(damage, [])).unwrap();
        assert_eq!(cache.file_digests(&[file(7, 1)]).unwrap(), [None]);
        cache.put_file_digests(&[(file(8, 1), [3; 32])]).unwrap();
        assert_eq!(cache.file_digests(&[file(7, 1), file(8, 1)]).unwrap(), [None, Some([3; 32])]);
    }
}
