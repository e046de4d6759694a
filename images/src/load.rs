//! Loading of image archives that `docker save`, `skopeo`, `podman save` or kiln have written.
//!
//! An archive may be hostile, and it can't be seeked because it may come through a pipe. It is read
//! once. Large files go into the store's content as they arrive, under the digest of their bytes;
//! small files stay in memory. Nothing is written elsewhere, so that neither names nor links of the
//! archive can lead outside: links are looked up among the archive's own files.
//!
//! There are three kinds of archives:
//!
//! - An OCI layout has an `index.json`, and blobs in `blobs/sha256`. Newer `docker save`s write
//!   layouts with an additional `manifest.json`, from which only the names are read.
//! - An older `docker save` has a `manifest.json` with the paths of configs and layers. The loader
//!   creates a manifest for each image, which is a function of these files.
//! - Docker before 1.10 wrote a directory for each layer, and a file `repositories`.
//!
//! An image gets its names only after every blob is stored under its verified digest, and every
//! layer has the diff ID that the config lists. An archive therefore can't give other content to a
//! layer that is shared with other images.

mod docker;
mod files;
mod layout;
mod legacy;
mod verify;

use std::io::Read;

use kiln_oci::{Digest, Reference};
use kiln_store::{ImageRow, Store};
use kiln_tree::ArchiveLimits;

use crate::error::{Error, Result};
use files::ArchiveFiles;

/// The maximum number of names in an archive, and of images in its list.
const MAX_NAMES: usize = 10_000;

/// The options of loading.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// The store that receives the images.
    pub store: Store,
    /// The limits for decompressing the archive and its layers.
    pub limits: ArchiveLimits,
    /// The current time in seconds since 1970.
    pub now: i64,
}

/// An image that was loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// The image ID: the digest of the config, or of the index if the archive has one.
    pub id: Digest,
    /// The names of the image in the archive.
    pub names: Vec<LoadedName>,
}

/// A name of a loaded image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedName {
    /// The name, which now refers to the loaded image.
    pub name: Reference,
    /// The digest of the manifest or index of another image that had the name before.
    pub previous: Option<Digest>,
}

/// An image of an archive that is complete in the store but has no name there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedImage {
    /// The image ID: the digest of the config, or of the index if the archive has one.
    pub id: Digest,
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// The media type of the manifest or index.
    pub media_type: String,
    /// The size of the manifest or index in bytes.
    pub size: u64,
    /// The names of the image in the archive.
    pub names: Vec<Reference>,
}

/// Loads all images of an archive, compressed or not. Blocks the thread.
///
/// # Errors
/// Fails if the archive can't be read, contains no images, is incomplete, or exceeds the limits. No
/// image gets a name in that case.
pub fn load(archive: impl Read + Send, options: &LoadOptions) -> Result<Vec<LoadedImage>> {
    name(&bring(archive, options)?, options)
}

/// Stores all images of an archive without giving them names. Blocks the thread.
///
/// # Errors
/// Fails like [`load`].
pub fn bring(archive: impl Read + Send, options: &LoadOptions) -> Result<Vec<ArchivedImage>> {
    let files = ArchiveFiles::read(archive, options)?;
    let found = if files.contains("index.json") {
        layout::images(&files, options)?
    } else if files.contains("manifest.json") {
        docker::images(&files, options)?
    } else if legacy::is_legacy(&files) {
        legacy::images(&files, options)?
    } else {
        return Err(Error::NoImages(
            "there is neither an index.json nor a manifest.json nor a file repositories in it",
        ));
    };
    if found.is_empty() {
        return Err(Error::NoImages("its list is empty"));
    }
    let names: usize = found.iter().map(|image| image.names.len()).sum();
    if names > MAX_NAMES {
        let problem = format!("it gives {names} names, more than {MAX_NAMES}");
        return Err(Error::image("the archive", problem));
    }
    Ok(found)
}

/// Returns an error if a list has too many images.
fn check_count(images: usize) -> Result<()> {
    if images <= MAX_NAMES {
        return Ok(());
    }
    let problem = format!("it lists {images} images, more than {MAX_NAMES}");
    Err(Error::image("the archive", problem))
}

/// Stores the names of images in one transaction.
fn name(found: &[ArchivedImage], options: &LoadOptions) -> Result<Vec<LoadedImage>> {
    let mut rows = Vec::new();
    for image in found {
        let row = |name: Option<String>| ImageRow {
            name,
            media_type: image.media_type.clone(),
            digest: image.digest,
            size: image.size,
            created_at: options.now,
        };
        if image.names.is_empty() {
            rows.push(row(None));
        }
        rows.extend(image.names.iter().map(|name| row(Some(name.to_string()))));
    }
    let mut losers = options.store.images().put_all(&rows)?.into_iter();
    let loaded = found.iter().map(|image| {
        let losers: Vec<_> = losers.by_ref().take(image.names.len().max(1)).collect();
        let names = image.names.iter().zip(losers).map(|(name, loser)| {
            let previous = loser.filter(|loser| loser.digest != image.digest);
            LoadedName { name: name.clone(), previous: previous.map(|loser| loser.digest) }
        });
        LoadedImage { id: image.id, names: names.collect() }
    });
    Ok(loaded.collect())
}

#[cfg(test)]
mod tests;
