//! Image sources: an image's layers, declared and not fetched.

use kiln_oci::{Digest, Platform, media_type};
use kiln_store::{LayerBlob, LayerId, Store};

use super::document::digest_of;
use super::origin::Origin;
use crate::error::{Error, Result};
use crate::resolve::ImageResolver;

/// Makes the layers of an image known to the store and returns the uppermost.
pub(crate) async fn load(
    images: &ImageResolver,
    store: &Store,
    (origin, digest): (&Origin, &Digest),
    platform: &Platform,
) -> Result<Option<LayerId>> {
    let image = images.image(origin, digest, platform).await?;
    let diff_ids = image.config.rootfs.diff_ids();
    if diff_ids.len() != image.layers.len() {
        let problem = format!(
            "{} layers in the manifest, {} in the config",
            image.layers.len(),
            diff_ids.len()
        );
        return Err(Error::image(format!("{origin}@{digest}"), problem));
    }
    let mut top = None;
    for (descriptor, diff_id) in image.layers.iter().zip(diff_ids) {
        let media_type = descriptor.media_type().to_string();
        check_media_type(&media_type)?;
        let blob = LayerBlob {
            media_type,
            digest: digest_of(descriptor)?,
            size: descriptor.size(),
            origin: origin.text(),
        };
        top = Some(store.layers().declare(top.as_ref(), diff_id, &blob)?);
    }
    Ok(top)
}

fn check_media_type(media_type: &str) -> Result<()> {
    let known = [
        media_type::OCI_LAYER,
        media_type::OCI_LAYER_GZIP,
        media_type::OCI_LAYER_ZSTD,
        media_type::DOCKER_LAYER,
        media_type::DOCKER_LAYER_GZIP,
    ];
    if known.contains(&media_type) {
        Ok(())
    } else {
        Err(Error::Unsupported(format!("layer of type {media_type}")))
    }
}
