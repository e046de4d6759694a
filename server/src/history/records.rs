//! The files of the history.
//!
//! ```text
//! records/NAME    the record of a build, a `BuildHistoryRecord`; the name is a hash of the reference
//! blobs/HEX       the documents that records refer to, by their digests
//! ```
//!
//! A record is written after its documents, and removed before them. So a killed server leaves only
//! documents without a record, which the next one removes.

#![expect(clippy::disallowed_methods, reason = "the directory belongs to the server")]

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bollard_buildkit_proto::moby::buildkit::v1::{BuildHistoryRecord, BuildResultInfo, Descriptor};
use kiln_oci::Digest;
use prost::Message as _;
use serde::Deserialize;

use super::blobs::{Blob, Blobs, create, place, remove};

/// The size in bytes up to which a document may be a manifest.
const LARGEST_MANIFEST: u64 = 1 << 20;

/// The records and their documents. Any number of threads may use them.
#[derive(Debug)]
pub(super) struct Records {
    directory: PathBuf,
    blobs: Blobs,
    /// Held while a record or its documents change.
    changing: Mutex<()>,
}

/// A change of records that is going on.
pub(super) struct Change<'a> {
    records: &'a Records,
    _changing: MutexGuard<'a, ()>,
}

impl Records {
    /// Opens the records below a directory. Creates it if it doesn't exist.
    ///
    /// # Errors
    /// Fails if the directory can't be created or read.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        let directory = root.join("records");
        create(&directory)?;
        for entry in fs::read_dir(&directory)? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().starts_with(b".") {
                fs::remove_file(entry.path())?;
            }
        }
        let blobs = Blobs::open(root.join("blobs"))?;
        let records = Self { directory, blobs, changing: Mutex::default() };
        let all: Vec<Digest> = records.blobs.list()?.iter().map(|blob| blob.digest).collect();
        records.change().forget(&all)?;
        Ok(records)
    }

    /// Returns all records, sorted by reference. Leaves out a damaged one.
    ///
    /// # Errors
    /// Fails if the directory can't be read.
    pub(super) fn list(&self) -> io::Result<Vec<BuildHistoryRecord>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let path = entry?.path();
            // A record may be removed meanwhile.
            let bytes = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read?,
            };
            match BuildHistoryRecord::decode(bytes.as_slice()) {
                Ok(record) if !record.r#ref.is_empty() => found.push(record),
                _ => tracing::warn!(?path, "ignoring a damaged record of a build"),
            }
        }
        found.sort_by(|one, two| one.r#ref.cmp(&two.r#ref));
        Ok(found)
    }

    /// Returns the number of records.
    ///
    /// # Errors
    /// Fails if the directory can't be read.
    pub(super) fn count(&self) -> io::Result<usize> {
        Ok(fs::read_dir(&self.directory)?.count())
    }

    /// Returns the record of a build, if there is one.
    ///
    /// # Errors
    /// Fails if the record can't be read.
    pub(super) fn get(&self, reference: &str) -> io::Result<Option<BuildHistoryRecord>> {
        match fs::read(self.path(reference)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            read => Ok(Some(BuildHistoryRecord::decode(read?.as_slice())?)),
        }
    }

    /// Returns all documents.
    ///
    /// # Errors
    /// Fails if the directory can't be read.
    pub(super) fn blobs(&self) -> io::Result<Vec<Blob>> {
        self.blobs.list()
    }

    /// Opens a document, if there is one of this digest.
    ///
    /// # Errors
    /// Fails if the document can't be opened.
    pub(super) fn blob(&self, digest: &Digest) -> io::Result<Option<(File, Blob)>> {
        self.blobs.get(digest)
    }

    /// Begins a change. Other changes wait until its end.
    pub(super) fn change(&self) -> Change<'_> {
        let changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        Change { records: self, _changing: changing }
    }

    fn path(&self, reference: &str) -> PathBuf {
        self.directory.join(Digest::of(reference.as_bytes()).hex())
    }
}

impl Change<'_> {
    /// Stores a document. Returns its descriptor.
    ///
    /// # Errors
    /// Fails if the document can't be written.
    pub(super) fn add(&self, media_type: &str, bytes: &[u8]) -> io::Result<Descriptor> {
        let digest = self.records.blobs.put(bytes)?;
        Ok(descriptor(media_type, &digest, bytes.len() as u64))
    }

    /// Stores a document that `write` writes. Returns its descriptor.
    ///
    /// # Errors
    /// Fails if the document can't be written.
    pub(super) fn add_written(
        &self,
        media_type: &str,
        digest: Digest,
        size: u64,
        write: impl FnOnce(&mut File) -> io::Result<()>,
    ) -> io::Result<Descriptor> {
        self.records.blobs.write(&digest, write)?;
        Ok(descriptor(media_type, &digest, size))
    }

    /// Writes a record, whose documents are stored. Replaces an earlier one of the same reference.
    ///
    /// # Errors
    /// Fails if the record can't be written.
    pub(super) fn put(&self, record: &BuildHistoryRecord) -> io::Result<()> {
        let path = self.records.path(&record.r#ref);
        let earlier = self.records.get(&record.r#ref)?;
        place(&path, |file| file.write_all(&record.encode_to_vec()))?;
        earlier.map_or(Ok(()), |earlier| self.forget(&documents(&earlier)))
    }

    /// Removes records with the documents that no other record refers to.
    ///
    /// # Errors
    /// Fails if a file can't be removed.
    pub(super) fn remove(&self, removed: &[BuildHistoryRecord]) -> io::Result<()> {
        for record in removed {
            remove(&self.records.path(&record.r#ref))?;
        }
        self.forget(&removed.iter().flat_map(documents).collect::<Vec<_>>())
    }

    /// Removes those documents that no record refers to.
    fn forget(&self, documents_of_removed: &[Digest]) -> io::Result<()> {
        if documents_of_removed.is_empty() {
            return Ok(());
        }
        let kept: HashSet<Digest> = self.records.list()?.iter().flat_map(documents).collect();
        let kept = self.reach(kept.into_iter().collect())?;
        let unused = self.reach(documents_of_removed.to_vec())?;
        unused.difference(&kept).try_for_each(|digest| self.records.blobs.remove(digest))
    }

    /// Returns the digests of all stored documents that lead from these ones.
    fn reach(&self, mut waiting: Vec<Digest>) -> io::Result<HashSet<Digest>> {
        let mut reached = HashSet::new();
        while let Some(digest) = waiting.pop() {
            let Some((file, blob)) = self.records.blobs.get(&digest)? else { continue };
            if reached.insert(digest) && blob.size <= LARGEST_MANIFEST {
                let mut bytes = Vec::new();
                file.take(LARGEST_MANIFEST).read_to_end(&mut bytes)?;
                waiting.extend(parts(&bytes));
            }
        }
        Ok(reached)
    }
}

fn descriptor(media_type: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: media_type.to_owned(),
        digest: digest.to_string(),
        size: size.cast_signed(),
        ..Descriptor::default()
    }
}

/// Returns the digests of the documents that a record names.
fn documents(record: &BuildHistoryRecord) -> Vec<Digest> {
    let results = record.result.iter().chain(record.results.values());
    let single = [&record.logs, &record.external_error, &record.trace];
    let all = results.flat_map(descriptors).chain(single.into_iter().flatten());
    all.filter_map(|descriptor| descriptor.digest.parse().ok()).collect()
}

/// The parts of a manifest or index that refer to other documents.
#[derive(Deserialize)]
struct Manifest {
    config: Option<Part>,
    manifests: Option<Vec<Part>>,
    /// `null` if the image has no layers, as Go writes it.
    layers: Option<Vec<Part>>,
}

#[derive(Deserialize)]
struct Part {
    digest: String,
}

/// Returns the digests of the documents that a document refers to, if it is a manifest or an index.
fn parts(bytes: &[u8]) -> Vec<Digest> {
    let Ok(Manifest { config, manifests, layers }) = serde_json::from_slice(bytes) else {
        return Vec::new();
    };
    let lists = manifests.into_iter().chain(layers).flatten();
    let parts = config.into_iter().chain(lists);
    parts.filter_map(|part| part.digest.parse().ok()).collect()
}

/// Returns the descriptors of a result.
fn descriptors(result: &BuildResultInfo) -> impl Iterator<Item = &Descriptor> {
    let outputs = result.result_deprecated.iter().chain(result.results.values());
    outputs.chain(&result.attestations)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(reference: &str, documents: &[&Descriptor]) -> BuildHistoryRecord {
        let attestations = documents.iter().map(|&it| it.clone()).collect();
        BuildHistoryRecord {
            r#ref: reference.to_owned(),
            result: Some(BuildResultInfo { attestations, ..BuildResultInfo::default() }),
            ..BuildHistoryRecord::default()
        }
    }

    #[test]
    fn an_image_without_layers_has_a_config() {
        let config = Digest::of(b"config");
        let manifest = format!(r#"{{"config":{{"digest":"{config}"}},"layers":null}}"#);
        assert_eq!(parts(manifest.as_bytes()), [config]);
        assert!(parts(b"text").is_empty() && parts(b"{}").is_empty());
    }

    #[test]
    fn documents_stay_as_long_as_a_record_names_them() {
        let directory = tempfile::tempdir().unwrap();
        let records = Records::open(directory.path()).unwrap();
        let (one, two, three) = {
            let change = records.change();
            let add = |text: &str| change.add("text", text.as_bytes()).unwrap();
            (add("one"), add("two"), add("three"))
        };
        records.change().put(&record("b", &[&one, &two])).unwrap();
        // A manifest leads to further documents.
        let manifest = format!(r#"{{"layers":[{{"digest":"{}"}}]}}"#, three.digest);
        let manifest = records.change().add("manifest", manifest.as_bytes()).unwrap();
        records.change().put(&record("../a", &[&one, &manifest])).unwrap();
        // Another server on the same directory keeps everything that has a record.
        records.change().add("text", b"unused").unwrap();
        drop(records);
        let records = Records::open(directory.path()).unwrap();
        let names = |records: &Records| -> Vec<String> {
            records.list().unwrap().into_iter().map(|record| record.r#ref).collect()
        };
        assert_eq!(names(&records), ["../a", "b"]);
        assert_eq!((records.blobs().unwrap().len(), records.count().unwrap()), (4, 2));
        // A record that replaces another one has other documents.
        records.change().put(&record("b", &[&one])).unwrap();
        assert_eq!(records.blobs().unwrap().len(), 3);
        let first = records.get("../a").unwrap().unwrap();
        records.change().remove(&[first]).unwrap();
        assert_eq!(records.blobs().unwrap().len(), 1);
        records.change().remove(&records.list().unwrap()).unwrap();
        assert!(records.blobs().unwrap().is_empty() && names(&records).is_empty());
    }
}
