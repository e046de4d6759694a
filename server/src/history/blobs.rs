//! The documents that records of builds refer to, by their digests.
//!
//! A document is one file, named after its digest. It is complete as soon as it has that name.

#![expect(clippy::disallowed_methods, reason = "the directory belongs to the server")]

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use kiln_oci::Digest;

/// A document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Blob {
    /// The digest.
    pub(crate) digest: Digest,
    /// The size in bytes.
    pub(crate) size: u64,
    /// The time at which the document was written.
    pub(crate) written_at: SystemTime,
}

/// A directory of documents.
#[derive(Clone, Debug)]
pub(crate) struct Blobs(PathBuf);

impl Blobs {
    /// Opens a directory. Creates it if it doesn't exist, and removes unfinished documents.
    ///
    /// # Errors
    /// Fails if the directory can't be created or read.
    pub(crate) fn open(directory: PathBuf) -> io::Result<Self> {
        create(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if digest_of(&path).is_none() {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self(directory))
    }

    /// Opens a document. `None` if there is none of this digest.
    ///
    /// # Errors
    /// Fails if the document can't be opened.
    pub(crate) fn get(&self, digest: &Digest) -> io::Result<Option<(File, Blob)>> {
        let opened = File::open(self.path(digest));
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let metadata = file.metadata()?;
        let blob = Blob { digest: *digest, size: metadata.len(), written_at: metadata.modified()? };
        Ok(Some((file, blob)))
    }

    /// Returns all documents, sorted by digest.
    ///
    /// # Errors
    /// Fails if the directory can't be read.
    pub(crate) fn list(&self) -> io::Result<Vec<Blob>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let Some(digest) = digest_of(&entry?.path()) else { continue };
            found.extend(self.get(&digest)?.map(|(_, blob)| blob));
        }
        found.sort_unstable_by_key(|blob| blob.digest);
        Ok(found)
    }

    /// Stores a document.
    ///
    /// # Errors
    /// Fails if the document can't be written.
    pub(crate) fn put(&self, bytes: &[u8]) -> io::Result<Digest> {
        let digest = Digest::of(bytes);
        self.write(&digest, |file| file.write_all(bytes))?;
        Ok(digest)
    }

    /// Stores a document that `write` writes. Does nothing if the document is stored.
    ///
    /// # Errors
    /// Fails if the document can't be written.
    pub(crate) fn write(
        &self,
        digest: &Digest,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<()> {
        let path = self.path(digest);
        if path.exists() { Ok(()) } else { place(&path, write) }
    }

    /// Removes a document.
    ///
    /// # Errors
    /// Fails if the document can't be removed.
    pub(crate) fn remove(&self, digest: &Digest) -> io::Result<()> {
        remove(&self.path(digest))
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.0.join(digest.hex())
    }
}

fn digest_of(path: &Path) -> Option<Digest> {
    format!("sha256:{}", path.file_name()?.to_str()?).parse().ok()
}

/// Creates a directory for the server alone, unless it exists.
pub(super) fn create(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(directory)
}

/// Writes a file under a temporary name, and then gives it its own name.
pub(super) fn place(
    path: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let temporary = path.with_file_name(format!(".new-{}-{number}", std::process::id()));
    let mut options = File::options();
    let placed = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut file| write(&mut file))
        .and_then(|()| fs::rename(&temporary, path));
    if placed.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    placed
}

/// Removes a file if it exists.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn documents_are_whole_or_absent() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("blobs");
        let blobs = Blobs::open(place.clone()).unwrap();
        let digest = blobs.put(b"text").unwrap();
        assert_eq!(blobs.put(b"text").unwrap(), digest);
        let other = Digest::of(b"other");
        let failed = blobs.write(&other, |_| Err(io::ErrorKind::StorageFull.into()));
        assert!(failed.is_err() && blobs.get(&other).unwrap().is_none());
        fs::write(place.join(".new-1-1"), "half").unwrap();
        let blobs = Blobs::open(place.clone()).unwrap();
        assert_eq!(fs::read_dir(&place).unwrap().count(), 1);
        let (mut file, blob) = blobs.get(&digest).unwrap().unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!((text.as_str(), blob.size), ("text", 4));
        assert_eq!(blobs.list().unwrap(), [blob]);
        blobs.remove(&digest).unwrap();
        blobs.remove(&digest).unwrap();
        assert!(blobs.list().unwrap().is_empty());
    }
}
