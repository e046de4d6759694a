//! Images: names for manifests and indexes.

use kiln_oci::Digest;

use crate::error::Result;

/// A named image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRow {
    /// Its full name with tag, as `docker.io/library/app:latest`; `None` for an image that has
    /// lost its names, or never had one.
    pub name: Option<String>,
    /// The media type of what it names.
    pub media_type: String,
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// The manifest's or index's size in bytes.
    pub size: u64,
    /// When it was stored, seconds since 1970.
    pub created_at: i64,
}

/// The images.
#[derive(Clone, Debug)]
pub struct Images {}

impl Images {
    /// Gives an image a name. An image that has it loses it.
    pub fn put(&self, image: &ImageRow) -> Result<()> {
        let _ = image;
        todo!()
    }

    /// Returns the image with a name.
    pub fn get(&self, name: &str) -> Result<Option<ImageRow>> {
        let _ = name;
        todo!()
    }

    /// Returns all images, newest first.
    pub fn list(&self) -> Result<Vec<ImageRow>> {
        todo!()
    }

    /// Takes a name away and tells whether it was there. The image's blobs and layers are left to
    /// garbage collection.
    pub fn remove_name(&self, name: &str) -> Result<bool> {
        let _ = name;
        todo!()
    }

    /// Removes the image with this manifest or index digest, all its names too, and returns them.
    pub fn remove(&self, digest: &Digest) -> Result<Vec<String>> {
        let _ = digest;
        todo!()
    }
}
