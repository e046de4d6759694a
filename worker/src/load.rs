//! Archives of images: what `docker save`, `skopeo`, `podman save` and kiln itself write.
//!
//! An archive is hostile, and can't be seeked in: it may come through a pipe. It is read once; large
//! files go into the store's content as they come, under the digest that they turn out to have, small
//! ones are held in memory. Nothing is written anywhere else, so that neither names nor links of the
//! archive lead anywhere: links are looked up among the archive's own files.
//!
//! There are three kinds:
//!
//! - an OCI layout has an `index.json`; what it names lies in `blobs/sha256`. Newer `docker save`s are
//!   layouts with a `manifest.json` beside, of which names alone are taken then;
//! - an older `docker save` has a `manifest.json` that tells where configs and layers lie. These get
//!   a manifest here, whose bytes are a function of theirs;
//! - docker before 1.10 wrote a directory for each layer, and a file `repositories`.
//!
//! Before an image gets its names, every blob is there with the digest that it is named by, and every
//! layer was found to have the diff ID that the config says: a layer that others have, too, can't be
//! given other content.

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

/// The number of names that an archive may give to its images, and of images that it may list.
const MAX_NAMES: usize = 10_000;

/// What loading works with.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// Where images go.
    pub store: Store,
    /// How much an archive and its layers may become.
    pub limits: ArchiveLimits,
    /// When that is, seconds since 1970.
    pub now: i64,
}

/// An image that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedImage {
    /// Its ID: the digest of its config, or of the index where there is one.
    pub id: Digest,
    /// The names that the archive gives it.
    pub names: Vec<LoadedName>,
}

/// A name of an image that was taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedName {
    /// The name.
    pub name: Reference,
    /// The ID of another image that had it.
    pub previous: Option<Digest>,
}

/// An image of an archive, complete in the store, that has no name there yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArchivedImage {
    /// Its ID: the digest of its config, or of the index where there is one.
    pub id: Digest,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The media type of that.
    pub media_type: String,
    /// The size of that in bytes.
    pub size: u64,
    /// The names that the archive gives it.
    pub names: Vec<Reference>,
}

/// Takes in all images of an archive, compressed or not. Blocks.
///
/// # Errors
/// Fails where the archive can't be read, is no archive of images, lacks something, or exceeds the
/// limits. Then no image has got a name.
pub fn load(archive: impl Read + Send, options: &LoadOptions) -> Result<Vec<LoadedImage>> {
    name(&bring(archive, options)?, options)
}

/// Brings all images of an archive into the store, and gives none of them a name. Blocks.
///
/// # Errors
/// As [`load`].
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

/// Checks the number of images that a list has.
fn check_count(images: usize) -> Result<()> {
    if images <= MAX_NAMES {
        return Ok(());
    }
    let problem = format!("it lists {images} images, more than {MAX_NAMES}");
    Err(Error::image("the archive", problem))
}

/// Gives images their names, in one transaction.
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
