//! The layers of an image, declared without a download.

use kiln_oci::{Digest, Platform, media_type};
use kiln_store::{LayerBlob, LayerId, Store};

use crate::blobs::wrong_size;
use crate::compression::DOCKER_LAYER_ZSTD;
use crate::document::digest_of;
use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::resolve::{Image, ImageResolver};

/// The maximum size of a layer: 1 EiB, which exceeds all disks.
const LARGEST: u64 = 1 << 60;

impl ImageResolver {
    /// Finds the image for `platform` in a manifest or index, declares its layers to the store and
    /// returns the uppermost one.
    ///
    /// # Errors
    /// Fails if a document isn't available or is invalid.
    pub async fn declare(
        &self,
        origin: &Origin,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<Option<LayerId>> {
        self.declare_lowest(origin, digest, platform, None).await
    }

    /// Declares the lowest layers of an image, `limit` at most, and returns the uppermost of them.
    ///
    /// # Errors
    /// Fails in the same cases as [`Self::declare`].
    pub async fn declare_lowest(
        &self,
        origin: &Origin,
        digest: &Digest,
        platform: &Platform,
        limit: Option<usize>,
    ) -> Result<Option<LayerId>> {
        let image = self.image(origin, digest, platform).await?;
        declare_some(&image, self.store(), origin, digest, limit)
    }
}

/// Declares the layers of an image to the store and returns the uppermost one.
///
/// # Errors
/// Fails if the image is inconsistent or the store can't be written.
pub fn declare(
    image: &Image,
    store: &Store,
    origin: &Origin,
    digest: &Digest,
) -> Result<Option<LayerId>> {
    declare_some(image, store, origin, digest, None)
}

fn declare_some(
    image: &Image,
    store: &Store,
    origin: &Origin,
    digest: &Digest,
    limit: Option<usize>,
) -> Result<Option<LayerId>> {
    let name = format!("{origin}@{digest}");
    let mut layers = layer_blobs(image, origin, &name)?;
    layers.truncate(limit.unwrap_or(usize::MAX));
    check_sizes(&layers, store, &name)?;
    Ok(store.layers().declare_all(&layers)?)
}

/// Returns the diff ID and the blob of an image's layers, base first. `name` is the image's name
/// for errors.
pub(crate) fn layer_blobs(
    image: &Image,
    origin: &Origin,
    name: &str,
) -> Result<Vec<(Digest, LayerBlob)>> {
    let diff_ids = image.config.rootfs.diff_ids();
    if diff_ids.len() != image.layers.len() {
        let (layers, count) = (image.layers.len(), diff_ids.len());
        let problem = format!("{layers} layers in the manifest, {count} in the config");
        return Err(Error::image(name, problem));
    }
    let mut blobs = Vec::with_capacity(diff_ids.len());
    for (descriptor, diff_id) in image.layers.iter().zip(diff_ids) {
        let media_type = descriptor.media_type.clone();
        check_media_type(&media_type)?;
        let (digest, size) = (digest_of(descriptor)?, descriptor.size);
        if size > LARGEST || (size == 0 && digest != Digest::of(b"")) {
            return Err(Error::image(name, format!("layer {digest} can't have {size} bytes")));
        }
        blobs.push((*diff_id, LayerBlob { media_type, digest, size, origin: origin.text() }));
    }
    Ok(blobs)
}

/// Returns an error if a stored blob has another size than its descriptor says.
pub(crate) fn check_sizes(layers: &[(Digest, LayerBlob)], store: &Store, name: &str) -> Result<()> {
    for (_, LayerBlob { digest, size, .. }) in layers {
        if let Some(actual) = store.content().size(digest)?.filter(|actual| actual != size) {
            return Err(Error::image(name, wrong_size(digest, *size, actual)));
        }
    }
    Ok(())
}

/// Returns an error unless the media type is that of a supported layer.
///
/// # Errors
/// Fails for any other media type.
pub fn check_media_type(media_type: &str) -> Result<()> {
    let known = [
        media_type::OCI_LAYER,
        media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_GZIP,
        DOCKER_LAYER_ZSTD,
    ];
    if known.contains(&media_type) {
        Ok(())
    } else {
        Err(Error::Unsupported(format!("layer of type {media_type}")))
    }
}
