//! Archives with a `manifest.json`.

use std::io::{self, Read as _};

use kiln_oci::{Descriptor, ImageConfig, ImageManifest, Reference, json, media_type};
use kiln_store::LayerBlob;
use kiln_tree::Compression;
use serde::Deserialize;

use super::files::ArchiveFiles;
use super::{ArchivedImage, LoadOptions, check_count, verify};
use crate::document::{CONFIG_LIMIT, DOCUMENT_LIMIT};
use crate::error::{Error, Result};

/// The file with the list of images.
pub(super) const MANIFEST: &str = "manifest.json";

/// An image in the list.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    /// The path of the config.
    pub(super) config: String,
    /// The names with tags.
    #[serde(default)]
    pub(super) repo_tags: Option<Vec<String>>,
    /// The paths of the layers, base first.
    #[serde(default)]
    layers: Option<Vec<String>>,
}

impl Entry {
    /// Returns the parsed names of the image.
    ///
    /// # Errors
    /// Fails if a name is invalid.
    pub(super) fn names(&self) -> Result<Vec<Reference>> {
        let tags = self.repo_tags.as_deref().unwrap_or_default();
        let name = |tag: &String| {
            tag.parse().map_err(|error| Error::image(format!("invalid tag {tag:?}"), error))
        };
        tags.iter().map(name).collect()
    }
}

/// Reads the list of images.
pub(super) fn entries(files: &ArchiveFiles) -> Result<Vec<Entry>> {
    let bytes = files.document(MANIFEST, DOCUMENT_LIMIT)?;
    json::from_go(&bytes).map_err(|error| Error::image(MANIFEST, error))
}

/// Stores the images that `manifest.json` lists.
pub(super) fn images(files: &ArchiveFiles, options: &LoadOptions) -> Result<Vec<ArchivedImage>> {
    let entries = entries(files)?;
    check_count(entries.len())?;
    entries.iter().map(|entry| image(entry, files, options)).collect()
}

fn image(entry: &Entry, files: &ArchiveFiles, options: &LoadOptions) -> Result<ArchivedImage> {
    let bytes = files.document(&entry.config, CONFIG_LIMIT)?;
    let config = ImageConfig::parse(&bytes).map_err(|error| Error::image(&entry.config, error))?;
    let (diff_ids, paths) = (config.rootfs.diff_ids(), entry.layers.as_deref().unwrap_or_default());
    if diff_ids.len() != paths.len() {
        let (expected, actual) = (diff_ids.len(), paths.len());
        let problem =
            format!("invalid manifest, layers length mismatch: expected {expected}, got {actual}");
        return Err(Error::image(&entry.config, problem));
    }
    let mut below = None;
    let mut layers = Vec::new();
    for (diff_id, path) in diff_ids.iter().zip(paths) {
        let blob = layer(path, files, options)?;
        below = Some(verify::declare(below.as_ref(), diff_id, &blob, files, options)?);
        layers.push(blob);
    }
    put(&bytes, &layers, entry.names()?, options)
}

/// Stores the config and a new manifest of an image whose layers are stored.
pub(super) fn put(
    config: &[u8],
    layers: &[LayerBlob],
    names: Vec<Reference>,
    options: &LoadOptions,
) -> Result<ArchivedImage> {
    json::check_amount(config).map_err(|error| Error::image("the image config", error))?;
    let config = options.store.content().put(config)?;
    let described = Descriptor::new(media_type::DOCKER_CONFIG, &config.digest, config.size);
    let layer = |blob: &LayerBlob| Descriptor::new(&blob.media_type, &blob.digest, blob.size);
    let layers = layers.iter().map(layer).collect();
    let manifest = ImageManifest::new(media_type::DOCKER_MANIFEST, described, layers);
    let manifest = serde_json::to_vec(&manifest).map_err(|error| Error::image(MANIFEST, error))?;
    let manifest = options.store.content().put(&manifest)?;
    Ok(ArchivedImage {
        id: config.digest,
        media_type: media_type::DOCKER_MANIFEST.to_owned(),
        digest: manifest.digest,
        size: manifest.size,
        names,
    })
}

/// Returns a layer with the archive's compression. A layer whose compression images don't support
/// is decompressed.
pub(super) fn layer(path: &str, files: &ArchiveFiles, options: &LoadOptions) -> Result<LayerBlob> {
    let known = files.known.layers.borrow().get(path).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let layer = read_layer(path, files, options)?;
    files.known.layers.borrow_mut().insert(path.to_owned(), layer.clone());
    Ok(layer)
}

fn read_layer(path: &str, files: &ArchiveFiles, options: &LoadOptions) -> Result<LayerBlob> {
    let content = options.store.content();
    let (mut digest, mut size) = files.blob(path)?;
    let failed = |error| Error::kernel("decompress", path)(error);
    let mut first = Vec::new();
    content.open(&digest)?.take(10).read_to_end(&mut first).map_err(failed)?;
    let compression = Compression::detect(&first);
    let media_type = if let Some(media_type) = verify::media_type(compression) {
        media_type
    } else {
        let (mut plain, _) = options.limits.decompress(content.open(&digest)?).map_err(failed)?;
        let mut writer = content.writer()?;
        io::copy(&mut plain, &mut writer).map_err(failed)?;
        let blob = writer.commit(None)?;
        (digest, size) = (blob.digest, blob.size);
        media_type::DOCKER_LAYER
    };
    Ok(LayerBlob { media_type: media_type.to_owned(), digest, size, origin: None })
}
