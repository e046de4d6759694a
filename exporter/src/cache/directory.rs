//! A cache in a directory: an OCI layout with one entry per tag. (OCI image specification, "Image
//! Layout".)
//!
//! The directory may come from an untrusted source. It is accessed through its descriptor only, so
//! that no link in it leads outside. Blobs are written first and the index last. Each file has a
//! temporary name until it is complete. An existing blob is read, and written again if its content
//! doesn't match its digest.
//!
//! Blobs that no entry needs are removed, unless the directory holds anything but kiln's caches. A
//! directory that every build writes to therefore doesn't grow. A writer holds a lock on
//! `.kiln.lock`. A concurrent reader may find a blob missing, and treats that as a cache miss.

#![expect(clippy::disallowed_methods, reason = "the user names the destination")]

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use kiln_oci::{Digest, Document, HashingReader, media_type};
use kiln_tree::{Attributes, Dir};
use serde::Deserialize;
use serde_json::{Value, json};

use super::contents::Contents;
use super::document::Documents;
use crate::error::{Error, Result};
use crate::export::ExportContext;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The maximum size of a document in bytes.
const LIMIT: u64 = 64 << 20;

/// Writes a cache under a tag.
pub(super) fn write(
    contents: &Contents,
    documents: &Documents,
    dest: &Path,
    tag: &str,
    context: &ExportContext<'_>,
) -> Result<()> {
    fs::create_dir_all(dest).map_err(Error::io("create", dest))?;
    let root = Dir::open(dest)?;
    let lock = Path::new(".kiln.lock");
    let lock = root.create_file(lock, 0o644).or_else(|_| root.open_file(lock))?;
    lock.lock().map_err(Error::io("lock", dest))?;
    let directory = Attributes { mode: Some(0o755), ..Attributes::default() };
    root.mkdir_all(Path::new("blobs/sha256"), &directory)?;
    let layout = Layout { blobs: root.open_dir(Path::new("blobs/sha256"))?, root, dest };
    for blob in contents.blobs() {
        if context.progress.is_cancelled() {
            return Err(Error::Cancelled);
        }
        layout.blob(&blob.digest, || Ok(context.store.content().open(&blob.digest)?))?;
    }
    for document in [&documents.config, &documents.manifest] {
        layout.blob(&document.digest, || Ok(io::Cursor::new(&document.bytes)))?;
    }
    layout.file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let entries = layout.index(&documents.manifest, tag);
    let index =
        json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": entries });
    layout.file("index.json", index.to_string().as_bytes())?;
    if let Some(needed) = layout.needed(&entries) {
        layout.sweep(&needed)?;
    }
    Ok(())
}

/// The descriptors in a document.
#[derive(Deserialize)]
struct Named {
    config: Option<Entry>,
    #[serde(default)]
    layers: Vec<Entry>,
    #[serde(default)]
    manifests: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: Digest,
}

struct Layout<'a> {
    root: Dir,
    blobs: Dir,
    dest: &'a Path,
}

impl Layout<'_> {
    /// Writes a blob unless it is stored intact.
    fn blob<R: Read>(&self, digest: &Digest, open: impl FnOnce() -> Result<R>) -> Result<()> {
        let name = digest.hex();
        if self.is_whole(digest) {
            return Ok(());
        }
        self.place(&self.blobs, &name, &mut open()?)
    }

    /// Writes a file in the root of the layout.
    fn file(&self, name: &str, mut bytes: &[u8]) -> Result<()> {
        self.place(&self.root, name, &mut bytes)
    }

    fn place(&self, dir: &Dir, name: &str, from: &mut dyn Read) -> Result<()> {
        let shown = || self.dest.join(name);
        let temporary = ".kiln.new";
        // The lock excludes other writers: an existing file is the remains of a killed process.
        let _ = dir.remove_all(Path::new(temporary));
        let mut file = dir.create_file(Path::new(temporary), 0o644)?;
        let written = io::copy(from, &mut file).and_then(|_| file.flush());
        let placed = written
            .and_then(|()| Ok(rustix::fs::renameat(dir.as_fd(), temporary, dir.as_fd(), name)?));
        placed.map_err(|error| {
            // The write's error takes precedence over an error of the removal.
            let _ = dir.remove_all(Path::new(temporary));
            Error::io("write", shown())(error)
        })
    }

    fn is_whole(&self, digest: &Digest) -> bool {
        let Ok(file) = self.blobs.open_file(Path::new(&digest.hex())) else { return false };
        let mut file = HashingReader::new(file);
        io::copy(&mut file, &mut io::sink()).is_ok() && file.finish().0 == *digest
    }

    /// Returns the new index entries. Entries of other tags stay.
    fn index(&self, manifest: &Document, tag: &str) -> Vec<Value> {
        let index = self.root.open_file(Path::new("index.json")).ok().and_then(read);
        let index = index.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
        let mut entries = match index {
            Some(Value::Object(mut index)) => match index.remove("manifests") {
                Some(Value::Array(entries)) => entries,
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        entries.retain(|entry| entry["annotations"][REF_NAME] != tag);
        entries.push(json!({
            "mediaType": manifest.descriptor.media_type,
            "digest": manifest.digest,
            "size": manifest.bytes.len(),
            "annotations": { REF_NAME: tag },
        }));
        entries
    }

    /// Returns the digests that the entries need. Returns `None` if one of them isn't a cache of
    /// kiln's or can't be read.
    fn needed(&self, entries: &[Value]) -> Option<BTreeSet<Digest>> {
        let mut needed = BTreeSet::new();
        for entry in entries {
            let digest = Entry::deserialize(entry).ok()?.digest;
            let file = self.blobs.open_file(Path::new(&digest.hex())).ok()?;
            let document: Named = serde_json::from_slice(&read(file)?).ok()?;
            let named: Vec<Entry> = document
                .config
                .into_iter()
                .chain(document.layers)
                .chain(document.manifests)
                .collect();
            if !named.iter().any(|entry| entry.media_type == media_type::CACHE_CONFIG) {
                return None;
            }
            needed.insert(digest);
            needed.extend(named.into_iter().map(|entry| entry.digest));
        }
        Some(needed)
    }

    /// Removes the blobs that aren't in `needed`.
    fn sweep(&self, needed: &BTreeSet<Digest>) -> Result<()> {
        for name in self.blobs.names()? {
            let name = String::from_utf8_lossy(&name).into_owned();
            let digest = format!("sha256:{name}").parse::<Digest>();
            if digest.is_ok_and(|digest| !needed.contains(&digest)) {
                self.blobs.remove_all(&PathBuf::from(name))?;
            }
        }
        Ok(())
    }
}

fn read(file: File) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).ok()?;
    (bytes.len() as u64 <= LIMIT).then_some(bytes)
}
