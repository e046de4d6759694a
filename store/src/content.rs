//! The contents that have names: blobs by digest, images and volumes by name.
//!
//! # Blobs
//!
//! The blobs are in an OCI image layout.
//!
//! A blob is in the store if a row of the index names it and its file is unchanged since the row
//! was written: it has the same size and status change time (ctime). A touched file is hashed again
//! before it is used, and its row is removed if the digest differs. The name of a blob is the
//! digest of its bytes, which the store computes while they are written. No blob gets a name
//! without being hashed here.

pub(crate) mod images;
pub(crate) mod ingest;
pub(crate) mod segments;
pub(crate) mod volumes;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use kiln_oci::{Digest, DigestHasher, HashingReader};
use rusqlite::OptionalExtension;

use crate::error::{Error, Result};
use crate::room::Room;
use crate::room::cap::Claim;

/// The maximal number of bytes that are claimed in advance while a blob is written.
const AHEAD: u64 = 1 << 20;

/// The blobs of a store.
#[derive(Clone, Debug)]
pub struct Content {
    room: Arc<Room>,
}

/// A blob in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The digest of the blob's bytes.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
}

/// A writer of a blob. Dropping it unfinished removes the data, unless the next attempt needs it.
#[derive(Debug)]
pub struct BlobWriter {
    room: Arc<Room>,
    path: PathBuf,
    file: File,
    hasher: DigestHasher,
    size: u64,
    claim: Claim,
    /// `true` to keep an incomplete blob for the next attempt.
    kept: bool,
}

impl Content {
    /// Returns a handle to the blobs of an open store.
    pub(crate) fn new(room: &Arc<Room>) -> Self {
        Self { room: room.clone() }
    }

    /// Returns the blob's size, or `None` if the blob is not in the store.
    pub fn size(&self, digest: &Digest) -> Result<Option<u64>> {
        let known = self.room.index().read("look up a blob", |connection| {
            connection
                .prepare_cached("SELECT size, changed_at FROM blobs WHERE digest = ?1")?
                .query_row([digest.as_bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
                .optional()
        })?;
        let Some(known) = known else { return Ok(None) };
        match fs::symlink_metadata(self.path(digest)) {
            Ok(file) if file.is_file() && identity(&file) == known => Ok(Some(file.size())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Error::io("stat", self.path(digest))(error))
            }
            Ok(file) if file.is_file() && self.verify(digest)? => Ok(Some(file.size())),
            // The layout was changed by other means than kiln, so the blob must be created again.
            _ => {
                tracing::warn!(%digest, "the blob's file was removed or changed");
                self.forget(digest)?;
                Ok(None)
            }
        }
    }

    /// Hashes a touched file. If its content is unchanged, records its new times.
    fn verify(&self, digest: &Digest) -> Result<bool> {
        let path = self.path(digest);
        let file = File::open(&path).map_err(Error::io("open", &path))?;
        let now = identity(&file.metadata().map_err(Error::io("stat", &path))?);
        let mut reader = HashingReader::new(file);
        io::copy(&mut reader, &mut io::sink()).map_err(Error::io("read", &path))?;
        if reader.finish().0 != *digest {
            return Ok(false);
        }
        self.room.index().write("verify a blob", |transaction| {
            let sql = "UPDATE blobs SET size = ?2, changed_at = ?3 WHERE digest = ?1";
            transaction.prepare_cached(sql)?.execute((digest.as_bytes(), now.0, now.1))?;
            Ok(true)
        })
    }

    /// Returns the problem of a blob in the index, if it has one. Reads the whole blob, whatever is
    /// known about its file. A blob that was collected in the meantime has no problem.
    pub(crate) fn problem(&self, digest: &Digest) -> Result<Option<String>> {
        let actual = File::open(self.path(digest)).and_then(|file| {
            let mut reader = HashingReader::new(file);
            io::copy(&mut reader, &mut io::sink())?;
            Ok(reader.finish().0)
        });
        let problem = match actual {
            Ok(actual) if actual == *digest => return Ok(None),
            Ok(actual) => format!("its file has digest {actual}"),
            Err(error) => format!("its file can't be read: {error}"),
        };
        let sql = "SELECT 1 FROM blobs WHERE digest = ?1";
        let is_named = self.room.index().read("look up a blob", |connection| {
            connection.prepare_cached(sql)?.exists([digest.as_bytes()])
        })?;
        Ok(is_named.then_some(problem))
    }

    /// Returns the path of the blob's file.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.room.blobs().join(digest.hex())
    }

    /// Opens the file of a blob.
    pub fn open(&self, digest: &Digest) -> Result<File> {
        if self.size(digest)?.is_none() {
            return Err(Error::missing("blob", digest));
        }
        let path = self.path(digest);
        File::open(&path).map_err(Error::io("open", path))
    }

    /// Reads a small blob (a manifest, a config) and verifies it. Fails if it has more than `limit`
    /// bytes.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open(digest)?;
        let path = self.path(digest);
        let size = file.metadata().map_err(Error::io("stat", &path))?.len();
        if size > limit {
            return Err(Error::TooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::with_capacity(size as usize);
        file.take(limit).read_to_end(&mut bytes).map_err(Error::io("read", &path))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(Error::DigestMismatch { expected: *digest, actual });
        }
        Ok(bytes)
    }

    /// Creates a writer for a new blob.
    pub fn writer(&self) -> Result<BlobWriter> {
        let path = self.room.process().fresh();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("create", &path))?;
        let (room, hasher) = (self.room.clone(), DigestHasher::new());
        let claim = room.claim();
        Ok(BlobWriter { room, path, file, hasher, size: 0, claim, kept: false })
    }

    /// Stores `bytes` as a blob.
    pub fn put(&self, bytes: &[u8]) -> Result<Blob> {
        let digest = Digest::of(bytes);
        if let Some(size) = self.size(&digest)?
            && self.hold(&digest)?
        {
            return Ok(Blob { digest, size });
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(Error::io("write", &writer.path))?;
        writer.commit(Some(&digest))
    }

    /// Adds a blob to the process's implicit lease. Returns `true` if the blob exists.
    pub fn hold(&self, digest: &Digest) -> Result<bool> {
        let known = "SELECT 1 FROM blobs WHERE digest = ?1";
        if self.room.held_blobs().contains(digest) {
            // A leased blob can't be collected, but it may have been removed because of damage.
            return self.room.index().read("look up a blob", |connection| {
                connection.prepare_cached(known)?.exists([digest.as_bytes()])
            });
        }
        let there = self.room.index().write("hold a blob", |transaction| {
            let there = transaction.prepare_cached(known)?.exists([digest.as_bytes()])?;
            if there {
                self.room.hold_blob(transaction, digest)?;
            }
            Ok(there)
        })?;
        if there {
            self.room.held_blobs().insert(*digest);
        }
        Ok(there)
    }

    /// Records that a repository, such as `docker.io/library/alpine`, has blobs.
    pub fn note_repository(
        &self,
        repository: &str,
        digests: impl Iterator<Item = Digest>,
    ) -> Result<()> {
        self.room.index().write("note where blobs are", |transaction| {
            let sql = "INSERT OR IGNORE INTO blob_repositories VALUES (?1, ?2)";
            let mut statement = transaction.prepare_cached(sql)?;
            for digest in digests {
                statement.execute((digest.as_bytes(), repository))?;
            }
            Ok(())
        })
    }

    /// Returns the repositories that are recorded to have a blob.
    pub fn repositories(&self, digest: &Digest) -> Result<Vec<String>> {
        self.room.index().read("look up where a blob is", |connection| {
            connection
                .prepare_cached("SELECT repository FROM blob_repositories WHERE digest = ?1")?
                .query_map([digest.as_bytes()], |row| row.get(0))?
                .collect()
        })
    }

    /// Removes a blob whose bytes don't match its digest, so that it is created or fetched again.
    pub fn remove_corrupt(&self, digest: &Digest) -> Result<()> {
        self.forget(digest)?;
        self.room.discard(&self.path(digest))
    }

    fn forget(&self, digest: &Digest) -> Result<()> {
        self.room.index().write("forget a blob", |transaction| {
            transaction
                .prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
                .execute([digest.as_bytes()])?;
            Ok(())
        })
    }
}

impl BlobWriter {
    /// Returns a writer for a blob whose beginning exists already.
    fn of_ingest(
        room: Arc<Room>,
        path: PathBuf,
        file: File,
        hasher: DigestHasher,
        size: u64,
    ) -> Self {
        let claim = room.claim();
        // The existing bytes already take room.
        claim.set(if room.cap().bytes().is_some() { size } else { 0 });
        Self { room, path, file, hasher, size, claim, kept: true }
    }

    /// Claims room for a blob of `size` bytes before the first byte is written. Without this, room
    /// is claimed during writing, which may block.
    ///
    /// # Errors
    /// Fails if there is not enough room.
    pub fn expect(&self, size: u64) -> Result<()> {
        self.claim.ensure(&self.room, size)
    }

    /// Returns a hasher with the state of the bytes written so far.
    pub fn hasher(&self) -> DigestHasher {
        self.hasher.clone()
    }

    /// Begins an empty blob with the first `size` bytes of another one, which `state` is the
    /// hasher's state of.
    ///
    /// # Errors
    /// Fails if there is no room, or if the bytes can't be copied.
    pub fn begin_with(&mut self, mut other: &File, size: u64, state: &[u8]) -> io::Result<()> {
        let hasher = DigestHasher::resume(state)
            .filter(|_| self.size == 0)
            .ok_or_else(|| io::Error::other("the state of a hasher is damaged"))?;
        self.claim.ensure(&self.room, size).map_err(io::Error::other)?;
        other.rewind()?;
        let copied = io::copy(&mut other.take(size), &mut self.file)?;
        if copied != size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        (self.hasher, self.size) = (hasher, size);
        Ok(())
    }

    /// Discards the written bytes, even if they would be kept for the next attempt.
    pub fn discard(mut self) {
        self.kept = false;
    }

    /// Finishes the blob: verifies its digest against `expected`, if given, and moves it to its
    /// place.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<Blob> {
        // From here on, the blob is either complete or wrong.
        self.kept = false;
        let digest = std::mem::take(&mut self.hasher).finish();
        if let Some(expected) = expected
            && *expected != digest
        {
            return Err(Error::DigestMismatch { expected: *expected, actual: digest });
        }
        let target = self.room.blobs().join(digest.hex());
        let _placing = self.room.placing()?;
        fs::rename(&self.path, &target).map_err(Error::io("rename", &target))?;
        // The rename is the last change to the file's status.
        let metadata = self.file.metadata().map_err(Error::io("stat", &target))?;
        let (placed, disk) = (identity(&metadata), metadata.blocks() * 512);
        self.room.record(&self.claim, "store a blob", |transaction| {
            let sql = "INSERT OR REPLACE INTO blobs (digest, size, changed_at, disk, epoch)
                       VALUES (?1, ?2, ?3, ?4, (SELECT value FROM meta WHERE key = 'epoch'))";
            let row = (digest.as_bytes(), placed.0, placed.1, disk.cast_signed());
            transaction.prepare_cached(sql)?.execute(row)?;
            self.room.hold_blob(transaction, &digest)
        })?;
        Ok(Blob { digest, size: self.size })
    }

    /// Returns the number of bytes written so far.
    pub fn written(&self) -> u64 {
        self.size
    }
}

/// Returns the identity of an unchanged file: its size and its status change time.
fn identity(file: &fs::Metadata) -> (i64, i64) {
    let changed = file.ctime().wrapping_mul(1_000_000_000).wrapping_add(file.ctime_nsec());
    (file.size().cast_signed(), changed)
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let (needed, claimed) = (self.size + bytes.len() as u64, self.claim.bytes());
        if needed > claimed && self.room.cap().bytes().is_some() {
            // The claims grow, since a large blob probably continues to grow.
            let ahead = needed.max(claimed + claimed.min(AHEAD));
            self.claim.ensure(&self.room, ahead).map_err(io::Error::other)?;
        }
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if self.kept && ingest::is_worth_keeping(self.size) {
            return;
        }
        // The file is gone already if the blob was committed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    #[test]
    fn what_is_put_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let blob = content.put(b"hello").unwrap();
        assert_eq!(blob, Blob { digest: Digest::of(b"hello"), size: 5 });
        assert_eq!(content.put(b"hello").unwrap(), blob);
        assert_eq!(content.size(&blob.digest).unwrap(), Some(5));
        assert_eq!(content.read(&blob.digest, 5).unwrap(), b"hello");
        assert!(matches!(content.read(&blob.digest, 4), Err(Error::TooLarge { .. })));
        assert_eq!(content.size(&Digest::of(b"other")).unwrap(), None);
        assert!(matches!(content.open(&Digest::of(b"other")), Err(Error::Missing { .. })));
    }

    #[test]
    fn repositories_are_noted_as_long_as_the_blob_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let held = content.put(b"held").unwrap().digest;
        let gone = Digest::of(b"gone");
        content.note_repository("r/x", [held, gone].into_iter()).unwrap();
        content.note_repository("r/x", [held].into_iter()).unwrap();
        content.note_repository("r/y", [held].into_iter()).unwrap();
        assert_eq!(content.repositories(&held).unwrap(), ["r/x", "r/y"]);
        assert_eq!(content.repositories(&gone).unwrap(), ["r/x"]);
        store.collect().unwrap();
        assert_eq!(content.repositories(&held).unwrap(), ["r/x", "r/y"]);
        assert!(content.repositories(&gone).unwrap().is_empty());
    }

    #[test]
    fn a_wrong_digest_gets_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.content().writer().unwrap();
        writer.write_all(b"evil").unwrap();
        let expected = Digest::of(b"good");
        let error = writer.commit(Some(&expected)).unwrap_err();
        assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");
        assert_eq!(store.content().size(&expected).unwrap(), None);
        assert_eq!(store.content().size(&Digest::of(b"evil")).unwrap(), None);
        assert_eq!(fs::read_dir(dir.path().join("content/blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn changed_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let short = content.put(b"truncated").unwrap().digest;
        fs::write(content.path(&short), "trunc").unwrap();
        assert_eq!(content.size(&short).unwrap(), None);
        let gone = content.put(b"gone").unwrap().digest;
        fs::remove_file(content.path(&gone)).unwrap();
        assert_eq!(content.size(&gone).unwrap(), None);
        let flipped = content.put(b"flipped").unwrap().digest;
        fs::write(content.path(&flipped), "flippee").unwrap();
        assert_eq!(content.size(&flipped).unwrap(), None);
        assert_eq!(content.put(b"flipped").unwrap().digest, flipped);
        assert_eq!(content.read(&flipped, 99).unwrap(), b"flipped");
        fs::write(content.path(&flipped), "flipped").unwrap();
        assert_eq!(content.size(&flipped).unwrap(), Some(7), "touched, and still the same");
        content.remove_corrupt(&flipped).unwrap();
        assert_eq!(content.size(&flipped).unwrap(), None);
    }
}
