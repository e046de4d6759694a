//! Blobs whose download is incomplete.
//!
//! A download that breaks off, because its process or the network ended, leaves the received bytes
//! in `ingest/DIGEST`. The next download continues there: it hashes the existing bytes and appends
//! the missing ones. The existing bytes need not be trusted, since the complete blob is verified
//! against its digest. A process that works on a file holds a lock on it. Another process that
//! needs the same blob then begins a file of its own.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_oci::{Digest, HashingReader};

use super::{BlobWriter, Content};
use crate::error::{Error, Result};
use crate::room::{lock, private};

/// The number of bytes from which an incomplete blob is kept.
const WORTH: u64 = 1 << 20;
/// The time for which an incomplete blob is kept without progress.
const KEPT: Duration = Duration::from_hours(24);

impl Content {
    /// Begins a blob with the bytes that an earlier attempt has left, if there are any: see
    /// [`BlobWriter::written`].
    pub fn resume(&self, digest: &Digest) -> Result<BlobWriter> {
        let directory = self.room.root().join("ingest");
        private::create_dir(&directory)?;
        let path = directory.join(digest.hex());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(Error::io("open", &path))?;
        if !lock::try_lock(&file, &path)? || !lock::is_at(&file, &path)? {
            return self.writer();
        }
        let mut reader = HashingReader::new(file);
        io::copy(&mut reader, &mut io::sink()).map_err(Error::io("read", &path))?;
        let (file, hasher, size) = reader.into_parts();
        Ok(BlobWriter::of_ingest(self.room.clone(), path, file, hasher, size))
    }
}

/// Returns `true` if an incomplete blob of this size is worth keeping.
pub(crate) fn is_worth_keeping(size: u64) -> bool {
    size >= WORTH
}

/// Removes the incomplete blobs that no process works on. Returns the number of bytes of disk space
/// freed.
pub(crate) fn remove_idle(root: &Path) -> Result<u64> {
    let mut freed = 0;
    for (path, bytes) in idle(root)? {
        freed += fs::remove_file(&path).map_or(0, |()| bytes);
    }
    Ok(freed)
}

/// Returns the incomplete blobs that no process works on, with their disk space in bytes. A process
/// accounts for the blobs on which it works itself.
pub(crate) fn idle(root: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for path in files(root)? {
        let Ok(file) = lock::open_existing(&path) else { continue };
        if lock::try_lock(&file, &path)? && lock::is_at(&file, &path)? {
            let metadata = file.metadata().map_err(Error::io("stat", &path))?;
            found.push((path, metadata.blocks() * 512));
        }
    }
    Ok(found)
}

fn files(root: &Path) -> Result<Vec<PathBuf>> {
    let directory = root.join("ingest");
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(Error::io("read", &directory))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(Error::io("read", &directory))
}

/// Removes the incomplete blobs without recent progress. Returns the number of bytes of disk space
/// freed.
pub(crate) fn sweep(root: &Path) -> Result<u64> {
    let mut freed = 0;
    for path in files(root)? {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        let age = metadata.modified().ok().and_then(|at| SystemTime::now().duration_since(at).ok());
        if age.is_some_and(|age| age > KEPT) && fs::remove_file(&path).is_ok() {
            freed += metadata.blocks() * 512;
        }
    }
    Ok(freed)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use crate::Store;

    #[test]
    fn what_has_arrived_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let bytes = vec![7; 3 << 20];
        let digest = Digest::of(&bytes);
        let path = dir.path().join("ingest").join(digest.hex());
        let begin = |count: usize| {
            let store = Store::open(dir.path()).unwrap();
            let mut writer = store.content().resume(&digest).unwrap();
            let there = writer.written() as usize;
            writer.write_all(&bytes[there..there + count]).unwrap();
            there
        };
        assert_eq!(begin(1000), 0);
        assert!(!path.exists(), "too little to be kept");
        assert_eq!(begin(2 << 20), 0);
        assert_eq!(begin(1000), 2 << 20);
        let store = Store::open(dir.path()).unwrap();
        let mut writer = store.content().resume(&digest).unwrap();
        assert_eq!(writer.written(), (2 << 20) + 1000);
        // Another writer begins at the start meanwhile.
        assert_eq!(store.content().resume(&digest).unwrap().written(), 0);
        let there = writer.written() as usize;
        writer.write_all(&bytes[there..]).unwrap();
        writer.commit(Some(&digest)).unwrap();
        assert_eq!(store.content().size(&digest).unwrap(), Some(3 << 20));
        assert!(!path.exists());
    }

    #[test]
    fn what_is_wrong_is_not_kept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let digest = Digest::of(b"right");
        let mut writer = store.content().resume(&digest).unwrap();
        writer.write_all(&vec![0; 2 << 20]).unwrap();
        assert!(writer.commit(Some(&digest)).is_err());
        assert_eq!(store.content().resume(&digest).unwrap().written(), 0);
        let mut writer = store.content().resume(&digest).unwrap();
        writer.write_all(&vec![0; 2 << 20]).unwrap();
        writer.discard();
        assert_eq!(store.content().resume(&digest).unwrap().written(), 0);
    }

    #[test]
    fn old_remains_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for (content, age) in [(b"old", 48), (b"new", 1)] {
            let path = dir.path().join("ingest").join(Digest::of(content).hex());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let file = File::create(&path).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_hours(age)).unwrap();
        }
        store.collect().unwrap();
        let left: Vec<_> = fs::read_dir(dir.path().join("ingest")).unwrap().flatten().collect();
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].file_name().to_str(), Some(Digest::of(b"new").hex().as_str()));
    }
}
