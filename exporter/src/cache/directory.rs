//! A cache in a directory: an OCI layout with one entry for each tag. (OCI image specification,
//! "Image Layout".)
//!
//! The directory may have been anywhere before it came here: all of it is reached through its
//! descriptor, and no link in it leads out. Blobs come first and the index last, each under a name of
//! its own until it is whole. A blob that is there already is read: one that isn't what its name says
//! is written anew.
//!
//! What no entry needs any more goes, as long as the directory holds nothing but caches of kiln's: a
//! directory that each build writes to does not grow. Who writes holds `.kiln.lock` meanwhile. Who
//! reads at that time may find a blob gone, and takes it for a miss.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use kiln_oci::{Digest, HashingReader, media_type};
use kiln_tree::{Attributes, Dir};
use serde::Deserialize;
use serde_json::{Value, json};

use super::contents::Contents;
use super::document::{Document, Documents};
use crate::error::{Error, Result};
use crate::export::ExportContext;

const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Most bytes of a document that is read.
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
        if context.progress.cancelled() {
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

/// A document, as far as it names others.
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
    /// Writes a blob, unless it is there.
    fn blob<R: Read>(&self, digest: &Digest, open: impl FnOnce() -> Result<R>) -> Result<()> {
        let name = digest.hex();
        if self.is_whole(digest) {
            return Ok(());
        }
        self.place(&self.blobs, &name, &mut open()?)
    }

    /// Writes a file of the root.
    fn file(&self, name: &str, mut bytes: &[u8]) -> Result<()> {
        self.place(&self.root, name, &mut bytes)
    }

    fn place(&self, dir: &Dir, name: &str, from: &mut dyn Read) -> Result<()> {
        let shown = || self.dest.join(name);
        let temporary = ".kiln.new";
        // Who holds the lock is alone: what is there was left by somebody who was killed.
        let _ = dir.remove_all(Path::new(temporary));
        let mut file = dir.create_file(Path::new(temporary), 0o644)?;
        let written = io::copy(from, &mut file).and_then(|_| file.flush());
        let placed = written
            .and_then(|()| Ok(rustix::fs::renameat(dir.as_fd(), temporary, dir.as_fd(), name)?));
        placed.map_err(|error| {
            // The first error is the one that counts.
            let _ = dir.remove_all(Path::new(temporary));
            Error::io("write", shown())(error)
        })
    }

    fn is_whole(&self, digest: &Digest) -> bool {
        let Ok(file) = self.blobs.open_file(Path::new(&digest.hex())) else { return false };
        let mut file = HashingReader::new(file);
        io::copy(&mut file, &mut io::sink()).is_ok() && file.finish().0 == *digest
    }

    /// Returns the entries that the index is to have: those of other tags stay.
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
            "mediaType": manifest.media_type,
            "digest": manifest.digest,
            "size": manifest.bytes.len(),
            "annotations": { REF_NAME: tag },
        }));
        entries
    }

    /// Returns the digests of all that entries need; `None` where one of them is something else than
    /// a cache of kiln's, or can't be read.
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

    /// Removes the blobs that nobody needs.
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
