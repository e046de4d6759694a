//! Blobs that are only partly there.
//!
//! A download that ends with its process, or with the network, leaves what has arrived in
//! `ingest/DIGEST`. The next one goes on from there: it hashes what is there, and what is missing is
//! appended. Nothing is trusted for it, since the whole gets its name by its digest alone. Whoever
//! works on a file holds a lock on it; another who wants the same blob then begins a file of its own.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use kiln_oci::{Digest, HashingReader};

use crate::content::{BlobWriter, Content};
use crate::error::{Error, Result};
use crate::{lock, private};

/// What is smaller isn't worth keeping.
const WORTH: u64 = 1 << 20;
/// What nobody has gone on with for so long is garbage.
const KEPT: Duration = Duration::from_hours(24);

impl Content {
    /// Begins a blob with what an earlier attempt has left of it, if anything: see
    /// [`BlobWriter::written`].
    pub fn resume(&self, digest: &Digest) -> Result<BlobWriter> {
        let directory = self.inner.root.join("ingest");
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
        Ok(BlobWriter::of_ingest(self.inner.clone(), (path, file), (hasher, size)))
    }
}

/// Tells whether an unfinished blob is worth keeping.
pub(crate) fn is_worth_keeping(size: u64) -> bool {
    size >= WORTH
}

/// Removes what nobody is working on, and returns how many bytes of disk that freed.
pub(crate) fn remove_idle(root: &Path) -> Result<u64> {
    let mut freed = 0;
    for (path, bytes) in idle(root)? {
        freed += fs::remove_file(&path).map_or(0, |()| bytes);
    }
    Ok(freed)
}

/// Returns what nobody is working on, with the bytes of disk that each takes. What somebody works on
/// is that one's to account for.
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

/// Removes what nobody has gone on with, and returns how many bytes of disk that freed.
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
        // Somebody else, meanwhile, begins at the beginning.
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
