//! Archives in the form of OCI layouts.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kiln_oci::{Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Reference, media_type};
use kiln_registry::check_document;
use kiln_store::LayerBlob;

use super::files::ArchiveFiles;
use super::{ArchivedImage, LoadOptions, check_count, docker, verify};
use crate::blobs::wrong_size;
use crate::document::{CONFIG_LIMIT, DOCUMENT_LIMIT, digest_of};
use crate::error::{Error, Result};

/// The file with the list of images.
const INDEX: &str = "index.json";
/// The maximum depth of nested indexes.
const DEPTH: u32 = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Stores the images that `index.json` lists.
pub(super) fn images(files: &ArchiveFiles, options: &LoadOptions) -> Result<Vec<ArchivedImage>> {
    let bytes = files.document(INDEX, DOCUMENT_LIMIT)?;
    let media_type =
        check_document(&bytes, None).map_err(|problem| Error::image(INDEX, problem))?;
    if !media_type::is_index(&media_type) {
        return Err(Error::image(INDEX, "is no index"));
    }
    let index = ImageIndex::parse(&bytes).map_err(|error| Error::image(INDEX, error))?;
    check_count(index.manifests.len())?;
    let layout = Layout { files, options, known: RefCell::default() };
    let tags = layout.tags()?;
    // An image with several names has several entries.
    let mut found: Vec<ArchivedImage> = Vec::new();
    for entry in &index.manifests {
        let digest = digest_of(entry)?;
        let names = named(entry)?;
        if let Some(known) = found.iter_mut().find(|known| known.digest == digest) {
            known.names.extend(names);
            continue;
        }
        let (bytes, media_type) = layout.read(&digest, entry)?;
        let config = layout.image(&digest, &bytes, &media_type, DEPTH)?;
        let id = if media_type::is_index(&media_type) { Some(digest) } else { config };
        let id = id.ok_or_else(|| Error::image(digest, "is no image"))?;
        let size = bytes.len() as u64;
        found.push(ArchivedImage { id, digest, media_type, size, names });
    }
    for image in &mut found {
        if image.names.is_empty() {
            image.names = tags.get(&image.id).cloned().unwrap_or_default();
        }
        image.names.dedup();
    }
    Ok(found)
}

/// Returns the names of an entry: the full name that containerd and buildx write, or a tag that is
/// a full name.
fn named(entry: &Descriptor) -> Result<Vec<Reference>> {
    let annotation = |key: &str| entry.annotations.get(key).map(String::as_str);
    if let Some(name) = annotation(CONTAINERD_NAME) {
        let invalid = |error| Error::image(format!("invalid name {name:?}"), error);
        return Ok(vec![name.parse().map_err(invalid)?]);
    }
    // A plain tag such as `latest` is no name.
    let name = annotation(REF_NAME).filter(|name| name.contains([':', '/']));
    Ok(name.and_then(|name| name.parse().ok()).into_iter().collect())
}

struct Layout<'a> {
    files: &'a ArchiveFiles,
    options: &'a LoadOptions,
    /// The config digests of the manifests and indexes that have been read, by digest and remaining
    /// depth. This bounds the work for nested indexes that repeat the same entries.
    known: RefCell<BTreeMap<(Digest, u32), Option<Digest>>>,
}

impl Layout<'_> {
    /// Returns the names of images in `manifest.json`, by image ID. Returns none without that file.
    fn tags(&self) -> Result<BTreeMap<Digest, Vec<Reference>>> {
        let mut tags = BTreeMap::new();
        if !self.files.contains(docker::MANIFEST) {
            return Ok(tags);
        }
        for entry in docker::entries(self.files)? {
            let (id, _) = self.files.blob(&entry.config)?;
            tags.entry(id).or_insert_with(Vec::new).extend(entry.names()?);
        }
        Ok(tags)
    }

    /// Reads a manifest or index and verifies that it matches its descriptor.
    fn read(&self, digest: &Digest, entry: &Descriptor) -> Result<(Vec<u8>, String)> {
        self.described_blob(digest, entry)?;
        let bytes = self.files.document(&path(digest), DOCUMENT_LIMIT)?;
        let media_type = check_document(&bytes, Some(&entry.media_type))
            .map_err(|problem| Error::image(digest, problem))?;
        Ok((bytes, media_type))
    }

    /// Stores the contents of a manifest or index. Returns the digest of an image's config.
    fn image(
        &self,
        digest: &Digest,
        bytes: &[u8],
        media_type: &str,
        depth: u32,
    ) -> Result<Option<Digest>> {
        let config = self.read_image(digest, bytes, media_type, depth)?;
        self.known.borrow_mut().insert((*digest, depth), config);
        Ok(config)
    }

    fn read_image(
        &self,
        digest: &Digest,
        bytes: &[u8],
        media_type: &str,
        depth: u32,
    ) -> Result<Option<Digest>> {
        let invalid = |error: serde_json::Error| Error::image(digest, error);
        if !media_type::is_index(media_type) {
            let manifest = ImageManifest::parse(bytes).map_err(invalid)?;
            return self.manifest(digest, &manifest);
        }
        if depth == 0 {
            return Err(Error::image(digest, "indexes are nested too deeply"));
        }
        let index = ImageIndex::parse(bytes).map_err(invalid)?;
        let mut any = None;
        for entry in &index.manifests {
            let digest = digest_of(entry)?;
            // An archive may contain only some of the platforms.
            if !self.files.contains(&path(&digest)) {
                continue;
            }
            let known = self.known.borrow().get(&(digest, depth - 1)).copied();
            if let Some(known) = known {
                any = known.or(any);
                continue;
            }
            let (bytes, media_type) = self.read(&digest, entry)?;
            any = self.image(&digest, &bytes, &media_type, depth - 1)?.or(any);
        }
        match any {
            Some(any) => Ok(Some(any)),
            None => Err(Error::image(digest, "none of the images that the index names is there")),
        }
    }

    /// Stores a blob if necessary and returns its size. Verifies the digest, because the file may
    /// be a link to another one.
    fn blob(&self, digest: &Digest) -> Result<u64> {
        let (actual, size) = self.files.blob(&path(digest))?;
        if actual == *digest {
            return Ok(size);
        }
        Err(kiln_store::Error::DigestMismatch { expected: *digest, actual }.into())
    }

    /// Does the same as [`Self::blob`], and verifies the size in the descriptor.
    fn described_blob(&self, digest: &Digest, descriptor: &Descriptor) -> Result<u64> {
        let size = self.blob(digest)?;
        if size == descriptor.size {
            return Ok(size);
        }
        Err(wrong_size(digest, descriptor.size, size))
    }

    /// Stores the contents of a manifest. Returns the config's digest if it is an image's.
    fn manifest(&self, digest: &Digest, manifest: &ImageManifest) -> Result<Option<Digest>> {
        let config_digest = digest_of(&manifest.config)?;
        self.described_blob(&config_digest, &manifest.config)?;
        let kind = manifest.config.media_type.as_str();
        if kind != media_type::OCI_CONFIG && kind != media_type::DOCKER_CONFIG {
            for layer in &manifest.layers {
                self.blob(&digest_of(layer)?)?;
            }
            return Ok(None);
        }
        let bytes = self.files.document(&path(&config_digest), CONFIG_LIMIT)?;
        let config =
            ImageConfig::parse(&bytes).map_err(|error| Error::image(config_digest, error))?;
        let (diff_ids, layers) = (config.rootfs.diff_ids(), &manifest.layers);
        // The layers of an attestation are statements, and its diff IDs are their digests.
        let is_image = layers.iter().all(|layer| layer.media_type.contains(".tar"));
        if is_image && diff_ids.len() != layers.len() {
            let (layers, count) = (layers.len(), diff_ids.len());
            let problem = format!("{layers} layers in the manifest, {count} in the config");
            return Err(Error::image(digest, problem));
        }
        let mut below = None;
        for (place, layer) in layers.iter().enumerate() {
            let digest = digest_of(layer)?;
            let size = self.described_blob(&digest, layer)?;
            if let Some(diff_id) = diff_ids.get(place).filter(|_| is_image) {
                let media_type = layer.media_type.clone();
                let blob = LayerBlob { media_type, digest, size, origin: None };
                below = Some(verify::declare(
                    below.as_ref(),
                    diff_id,
                    &blob,
                    self.files,
                    self.options,
                )?);
            }
        }
        Ok(is_image.then_some(config_digest))
    }
}

/// Returns the path of a blob in the archive.
fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
