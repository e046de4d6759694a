//! Lookup of images in the store by the names that users give.

pub mod named;
pub mod removal;
mod similar;
mod transfer;

pub use similar::{did_you_mean, no_such_image, similar};
pub use transfer::PushedImage;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};
use kiln_oci::error::chain;
use kiln_oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, Platform, Reference, media_type,
};
use kiln_store::{ImageRow, Store};

/// The most bytes of a manifest, index or config that are read.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// The most bytes of all manifests of an index.
const MANIFESTS_LIMIT: u64 = 64 << 20;

/// The platform to select from an image.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// The given platform.
    Platform(&'a Platform),
    /// The entry of an index that this machine can run, or an image's only platform.
    Here,
    /// A platform that this machine can run, or else any platform.
    Any,
}

/// An image of the store with its documents.
#[derive(Debug)]
pub struct StoredImage {
    /// The row in the store's index.
    pub row: ImageRow,
    /// The image ID: the digest of the config, or of the index if the image has one.
    pub id: Digest,
    /// The digest of the manifest for the selected platform.
    pub digest: Digest,
    /// The config for the selected platform.
    pub config: ImageConfig,
    /// The entries of the index, each with `true` if the store has its image; empty without an
    /// index.
    pub entries: Vec<(Descriptor, bool)>,
    /// The manifests in the store.
    manifests: Vec<ImageManifest>,
}

impl StoredImage {
    /// Loads the documents of the image in `row`.
    pub fn load(store: &Store, row: ImageRow, wanted: Wanted<'_>) -> Result<Self> {
        if media_type::is_index(&row.media_type) {
            return Self::load_index(store, row, wanted);
        }
        let manifest = manifest(store, &row.digest)?;
        let id = manifest.config.digest()?;
        let config = config(store, &id)?;
        if let Wanted::Platform(platform) = wanted
            && !kiln_registry::platform::runs(platform, &config.platform())
        {
            bail!("the image is not for {platform}, but for {}", config.platform());
        }
        let digest = row.digest;
        Ok(Self { row, id, digest, config, entries: Vec::new(), manifests: vec![manifest] })
    }

    fn load_index(store: &Store, row: ImageRow, wanted: Wanted<'_>) -> Result<Self> {
        let bytes = store.content().read(&row.digest, DOCUMENT_LIMIT)?;
        let mut index =
            ImageIndex::parse(&bytes).with_context(|| format!("parse the index {}", row.digest))?;
        let mut entries = Vec::new();
        for entry in kiln_registry::platform::images(&index) {
            // An index may list platforms whose images were never fetched.
            let is_there = store.content().size(&entry.digest()?)?.is_some();
            entries.push((entry.clone(), is_there));
        }
        let there = entries.iter().filter(|(_, is_there)| *is_there);
        let there: Vec<Descriptor> = there.map(|(entry, _)| entry.clone()).collect();
        let manifests = manifests(store, &there)?;
        index.manifests = there;
        let host = Platform::host();
        let (platform, fallback) = match wanted {
            Wanted::Platform(platform) => (platform, None),
            Wanted::Here => (&host, None),
            Wanted::Any => (&host, index.manifests.first()),
        };
        let chosen = kiln_registry::platform::select_platform(&index, platform).or(fallback);
        let chosen = chosen.with_context(|| {
            let there = kiln_registry::platform::list_platforms(&index);
            format!("the image has nothing for {platform}: there is {there}")
        })?;
        let digest = chosen.digest()?;
        let manifest = manifest(store, &digest)?;
        let config = config(store, &manifest.config.digest()?)?;
        Ok(Self { id: row.digest, row, digest, config, entries, manifests })
    }

    /// Returns the size in bytes of the documents and the compressed layers of all platforms in the
    /// store.
    pub fn size(&self) -> u64 {
        let mut sizes = BTreeMap::new();
        for manifest in &self.manifests {
            for blob in manifest.layers.iter().chain([&manifest.config]) {
                sizes.insert(&blob.digest, blob.size);
            }
        }
        let manifests = self.entries.iter().filter(|(_, is_there)| *is_there);
        let manifests: u64 = manifests.map(|(entry, _)| entry.size).sum();
        sizes.values().sum::<u64>() + manifests + self.row.size
    }
}

/// Reads the manifests of an index, without duplicates.
fn manifests(store: &Store, entries: &[Descriptor]) -> Result<Vec<ImageManifest>> {
    let (mut found, mut known, mut bytes) = (Vec::new(), BTreeSet::new(), 0);
    for entry in entries {
        let digest = entry.digest()?;
        if known.insert(digest) {
            bytes += store.content().size(&digest)?.unwrap_or_default();
            if bytes > MANIFESTS_LIMIT {
                bail!("the manifests of the index have more than {MANIFESTS_LIMIT} bytes");
            }
            found.push(manifest(store, &digest)?);
        }
    }
    Ok(found)
}

/// Reads a manifest from the store.
pub fn manifest(store: &Store, digest: &Digest) -> Result<ImageManifest> {
    let bytes = store.content().read(digest, DOCUMENT_LIMIT)?;
    ImageManifest::parse(&bytes).with_context(|| format!("parse the manifest {digest}"))
}

fn config(store: &Store, digest: &Digest) -> Result<ImageConfig> {
    let bytes = store.content().read(digest, DOCUMENT_LIMIT)?;
    ImageConfig::parse(&bytes).with_context(|| format!("parse the image config {digest}"))
}

/// Returns every image of the store, newest first. Skips images with damaged documents and passes a
/// message to `report` for each.
pub fn list(store: &Store, report: &mut dyn FnMut(String)) -> Result<Vec<StoredImage>> {
    Ok(load(store, store.images().list()?, report))
}

/// Loads the images of `rows`.
fn load(store: &Store, rows: Vec<ImageRow>, report: &mut dyn FnMut(String)) -> Vec<StoredImage> {
    let mut images = Vec::new();
    for row in rows {
        let name = row.name.clone().unwrap_or_else(|| row.digest.to_string());
        match StoredImage::load(store, row, Wanted::Any) {
            Ok(image) => images.push(image),
            Err(error) => report(format!("image {name}: {}", chain(error.as_ref()))),
        }
    }
    images
}

/// Finds an image by name, by a prefix of its ID, or by its digest. Returns several rows if an
/// image with several names is found by ID.
pub fn find(store: &Store, text: &str, wanted: Wanted<'_>) -> Result<Vec<StoredImage>> {
    let rows = find_rows(store, text)?;
    if rows.is_empty() {
        return Err(no_such_image(store, text));
    }
    let load = |row| StoredImage::load(store, row, wanted);
    rows.into_iter().map(load).collect::<Result<_>>().with_context(|| format!("image {text}"))
}

/// Returns the rows of an image, one per name; empty if no image matches.
pub fn find_rows(store: &Store, text: &str) -> Result<Vec<ImageRow>> {
    if let Some(row) = row_of_name(store, text)? {
        return Ok(vec![row]);
    }
    if let Some(reference) = with_digest(text) {
        return Ok(rows_of_digest(&store.images().list()?, &reference));
    }
    let Some(digits) = digits(text) else { return Ok(Vec::new()) };
    let images = list(store, &mut |_| ())?;
    let ids: Vec<_> = images.into_iter().map(|image| (image.id, image.row)).collect();
    rows_of_id(&ids, digits)
}

/// Returns `true` if a name has neither a tag nor a digest.
pub fn is_bare(text: &str) -> bool {
    !text.contains('@') && !text.rsplit('/').next().unwrap_or(text).contains(':')
}

/// Looks up an image by its whole name.
fn row_of_name(store: &Store, text: &str) -> Result<Option<ImageRow>> {
    let Ok(reference) = text.parse::<Reference>() else { return Ok(None) };
    Ok(store.images().get(&reference.to_string())?)
}

/// Returns the name that `text` is, if it has a digest.
fn with_digest(text: &str) -> Option<Reference> {
    text.parse().ok().filter(|reference: &Reference| reference.digest().is_some())
}

/// Returns the rows of the image with a digest that are names of its repository.
fn rows_of_digest(rows: &[ImageRow], reference: &Reference) -> Vec<ImageRow> {
    let is_it = |row: &&ImageRow| {
        let name = row.name.as_deref().and_then(|name| name.parse::<Reference>().ok());
        Some(row.digest) == reference.digest()
            && name.is_some_and(|name| name.name() == reference.name())
    };
    rows.iter().filter(is_it).cloned().collect()
}

/// Returns the first digits of an ID, if `text` is that.
fn digits(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    (digits.len() >= 2 && digits.bytes().all(|b| b.is_ascii_hexdigit())).then_some(digits)
}

/// Returns the rows of the image whose ID or digest begins with `digits`.
///
/// # Errors
/// Fails where those of several images do.
fn rows_of_id(ids: &[(Digest, ImageRow)], digits: &str) -> Result<Vec<ImageRow>> {
    let matches = |digest: &Digest| digest.hex().starts_with(digits);
    let is_it = |entry: &&(Digest, ImageRow)| matches(&entry.0) || matches(&entry.1.digest);
    let found: Vec<&(Digest, ImageRow)> = ids.iter().filter(is_it).collect();
    if found.iter().any(|entry| entry.0 != found[0].0) {
        bail!("the ID {digits} is ambiguous: give more of it");
    }
    Ok(found.into_iter().map(|entry| entry.1.clone()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_names_have_no_tag() {
        for (text, bare) in [
            ("alpine", true),
            ("localhost:5000/x", true),
            ("alpine:3", false),
            ("localhost:5000/x:1", false),
            ("x@sha256:00", false),
        ] {
            assert_eq!(is_bare(text), bare, "{text}");
        }
    }
}
