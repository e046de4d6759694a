//! Archives of OCI layouts.

use std::cell::RefCell;
use std::collections::BTreeMap;

use kiln_oci::{
    Descriptor, Digest, ImageConfig, ImageManifest, Reference, media_type, parse_index,
    parse_manifest,
};
use kiln_registry::check_document;
use kiln_store::LayerBlob;

use super::files::ArchiveFiles;
use super::{ArchivedImage, LoadOptions, check_count, docker, verify};
use crate::blobs::wrong_size;
use crate::error::{Error, Result};
use crate::source::document::{CONFIG_LIMIT, DOCUMENT_LIMIT, digest_of};

/// The list of images.
const INDEX: &str = "index.json";
/// How deep indexes may be nested.
const DEPTH: u32 = 4;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// Brings the images that `index.json` lists into the store.
pub(super) fn images(files: &ArchiveFiles, options: &LoadOptions) -> Result<Vec<ArchivedImage>> {
    let bytes = files.document(INDEX, DOCUMENT_LIMIT)?;
    let media_type =
        check_document(&bytes, None).map_err(|problem| Error::image(INDEX, problem))?;
    if !media_type::is_index(&media_type) {
        return Err(Error::image(INDEX, "is no index"));
    }
    let index = parse_index(&bytes).map_err(|error| Error::image(INDEX, error))?;
    check_count(index.manifests().len())?;
    let layout = Layout { files, options, known: RefCell::default() };
    let tags = layout.tags()?;
    // One that has several names is there several times.
    let mut found: Vec<ArchivedImage> = Vec::new();
    for entry in index.manifests() {
        let digest = digest_of(entry)?;
        let names = named(entry)?;
        if let Some(known) = found.iter_mut().find(|known| known.digest == digest) {
            known.names.extend(names);
            continue;
        }
        let (bytes, media_type) = layout.read(&digest, entry)?;
        let config = layout.image(&digest, (&bytes, &media_type), DEPTH)?;
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

/// Returns the names of an entry: in full where containerd or buildx wrote it, or as a tag that is
/// a name as well.
fn named(entry: &Descriptor) -> Result<Vec<Reference>> {
    let annotations = entry.annotations().as_ref();
    let annotation = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
    if let Some(name) = annotation(CONTAINERD_NAME) {
        let invalid = |error| Error::image(format!("invalid name {name:?}"), error);
        return Ok(vec![name.parse().map_err(invalid)?]);
    }
    // `latest` alone is a tag of nothing.
    let name = annotation(REF_NAME).filter(|name| name.contains([':', '/']));
    Ok(name.and_then(|name| name.parse().ok()).into_iter().collect())
}

struct Layout<'a> {
    files: &'a ArchiveFiles,
    options: &'a LoadOptions,
    /// The manifests and indexes that were brought in, by the depth that was left, with the configs of
    /// images: nested indexes that name the same ones again and again would not end.
    known: RefCell<BTreeMap<(Digest, u32), Option<Digest>>>,
}

impl Layout<'_> {
    /// Returns the names that `manifest.json` gives to images, where there is one, by their IDs.
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

    /// Returns a manifest or index, which has to be what its descriptor says.
    fn read(&self, digest: &Digest, entry: &Descriptor) -> Result<(Vec<u8>, String)> {
        self.described_blob(digest, entry)?;
        let declared = entry.media_type().as_ref();
        let bytes = self.files.document(&path(digest), DOCUMENT_LIMIT)?;
        let media_type = check_document(&bytes, Some(declared))
            .map_err(|problem| Error::image(digest, problem))?;
        Ok((bytes, media_type))
    }

    /// Brings in what a manifest or index names; returns the digest of the config of an image.
    fn image(
        &self,
        digest: &Digest,
        document: (&[u8], &str),
        depth: u32,
    ) -> Result<Option<Digest>> {
        let config = self.read_image(digest, document, depth)?;
        self.known.borrow_mut().insert((*digest, depth), config);
        Ok(config)
    }

    fn read_image(
        &self,
        digest: &Digest,
        (bytes, media_type): (&[u8], &str),
        depth: u32,
    ) -> Result<Option<Digest>> {
        let invalid = |error: serde_json::Error| Error::image(digest, error);
        if !media_type::is_index(media_type) {
            let manifest = parse_manifest(bytes).map_err(invalid)?;
            return self.manifest(digest, &manifest);
        }
        if depth == 0 {
            return Err(Error::image(digest, "indexes are nested too deeply"));
        }
        let index = parse_index(bytes).map_err(invalid)?;
        let mut any = None;
        for entry in index.manifests() {
            let digest = digest_of(entry)?;
            // An archive may be of some platforms alone.
            if !self.files.contains(&path(&digest)) {
                continue;
            }
            let known = self.known.borrow().get(&(digest, depth - 1)).copied();
            if let Some(known) = known {
                any = known.or(any);
                continue;
            }
            let (bytes, media_type) = self.read(&digest, entry)?;
            any = self.image(&digest, (&bytes, &media_type), depth - 1)?.or(any);
        }
        match any {
            Some(any) => Ok(Some(any)),
            None => Err(Error::image(digest, "none of the images that the index names is there")),
        }
    }

    /// Sees to it that a blob is in the store, and returns its size. What lies under its name may be a
    /// link to something else.
    fn blob(&self, digest: &Digest) -> Result<u64> {
        let (actual, size) = self.files.blob(&path(digest))?;
        if actual == *digest {
            return Ok(size);
        }
        Err(kiln_store::Error::DigestMismatch { expected: *digest, actual }.into())
    }

    /// Does the same for a blob that has to have the size that its descriptor says.
    fn described_blob(&self, digest: &Digest, descriptor: &Descriptor) -> Result<u64> {
        let size = self.blob(digest)?;
        if size == descriptor.size() {
            return Ok(size);
        }
        Err(wrong_size(digest, descriptor.size(), size))
    }

    /// Brings in what a manifest names; returns the config's digest where it is that of an image.
    fn manifest(&self, digest: &Digest, manifest: &ImageManifest) -> Result<Option<Digest>> {
        let config_digest = digest_of(manifest.config())?;
        self.described_blob(&config_digest, manifest.config())?;
        let kind = manifest.config().media_type().to_string();
        if kind != media_type::OCI_CONFIG && kind != media_type::DOCKER_CONFIG {
            for layer in manifest.layers() {
                self.blob(&digest_of(layer)?)?;
            }
            return Ok(None);
        }
        let bytes = self.files.document(&path(&config_digest), CONFIG_LIMIT)?;
        let config =
            ImageConfig::parse(&bytes).map_err(|error| Error::image(config_digest, error))?;
        let (diff_ids, layers) = (config.rootfs.diff_ids(), manifest.layers());
        // Those of attestations are statements, whose digests stand where diff IDs do.
        let is_image = layers.iter().all(|layer| layer.media_type().to_string().contains(".tar"));
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
                let media_type = layer.media_type().to_string();
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

/// Returns where a blob lies.
fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}
