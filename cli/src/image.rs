//! Images of the store, looked up as people name them.

use anyhow::{Context, Result, bail};
use kiln_oci::{Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference, media_type};
use kiln_store::{ImageRow, Store};

/// Most bytes of a manifest, index or config that are read.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// An image of the store with its documents.
#[derive(Debug)]
pub(crate) struct StoredImage {
    /// What the index holds.
    pub(crate) row: ImageRow,
    /// The manifest for the platform that was asked for.
    pub(crate) manifest: ImageManifest,
    /// The config's digest: the image ID.
    pub(crate) id: Digest,
    /// The config.
    pub(crate) config: ImageConfig,
}

impl StoredImage {
    /// Loads the documents of `row`, for `platform` where it is an index.
    pub(crate) fn load(store: &Store, row: ImageRow, platform: &Platform) -> Result<Self> {
        let content = store.content();
        let mut bytes = content.read(&row.digest, DOCUMENT_LIMIT)?;
        if media_type::is_index(&row.media_type) {
            let index: ImageIndex = serde_json::from_slice(&bytes)
                .with_context(|| format!("parse the index {}", row.digest))?;
            let descriptor = kiln_registry::select_platform(&index, platform)
                .with_context(|| format!("the image has no manifest for {platform}"))?;
            bytes = content.read(&descriptor.digest().as_ref().parse()?, DOCUMENT_LIMIT)?;
        }
        let manifest: ImageManifest = serde_json::from_slice(&bytes)
            .with_context(|| format!("parse the manifest of {}", row.digest))?;
        let id: Digest = manifest.config().digest().as_ref().parse()?;
        let config = serde_json::from_slice(&content.read(&id, DOCUMENT_LIMIT)?)
            .with_context(|| format!("parse the image config {id}"))?;
        Ok(Self { row, manifest, id, config })
    }

    /// Returns the bytes of the documents and the packed layers.
    pub(crate) fn size(&self) -> u64 {
        let layers: u64 = self.manifest.layers().iter().map(kiln_oci::Descriptor::size).sum();
        layers + self.manifest.config().size() + self.row.size
    }
}

/// Returns every image of the store, newest first; those whose documents are damaged are left out
/// with a word to `report`.
pub(crate) fn list(store: &Store, report: &mut dyn FnMut(String)) -> Result<Vec<StoredImage>> {
    let platform = Platform::host();
    let mut images = Vec::new();
    for row in store.images().list()? {
        let name = row.name.clone().unwrap_or_else(|| row.digest.to_string());
        match StoredImage::load(store, row, &platform) {
            Ok(image) => images.push(image),
            Err(error) => report(format!("image {name}: {error:#}")),
        }
    }
    Ok(images)
}

/// Finds an image by name, by the digits of its ID (at least the first few), or by its digest.
/// Several rows come back where one image has several names and was named by ID.
pub(crate) fn find(store: &Store, text: &str) -> Result<Vec<StoredImage>> {
    let platform = Platform::host();
    if let Ok(reference) = text.parse::<Reference>()
        && let Some(row) = store.images().get(&reference.to_string())?
    {
        return Ok(vec![StoredImage::load(store, row, &platform)?]);
    }
    let images = list(store, &mut |_| ())?;
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    if digits.len() < 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        bail!("no such image: {text}");
    }
    let matches = |digest: &Digest| digest.hex().starts_with(digits);
    let found: Vec<StoredImage> = images
        .into_iter()
        .filter(|image| matches(&image.id) || matches(&image.row.digest))
        .collect();
    match found.first() {
        None => bail!("no such image: {text}"),
        Some(first) if found.iter().any(|image| image.id != first.id) => {
            bail!("the ID {text} is ambiguous: give more of it")
        }
        Some(_) => Ok(found),
    }
}
