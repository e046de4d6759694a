//! Layers that are what their config says.

use std::io;

use kiln_oci::{Digest, HashingReader, media_type};
use kiln_store::{LayerBlob, LayerId};
use kiln_tree::decompress::Compression;

use super::LoadOptions;
use super::files::ArchiveFiles;
use crate::error::{Error, Result};

/// Makes a layer known, above `below`, after making sure that the blob is what the diff ID says.
pub(super) fn declare(
    below: Option<&LayerId>,
    diff_id: &Digest,
    blob: &LayerBlob,
    files: &ArchiveFiles,
    options: &LoadOptions,
) -> Result<LayerId> {
    let known = (blob.digest, *diff_id);
    if !files.known.verified.borrow().contains(&known) {
        verify(diff_id, blob, options)?;
        files.known.verified.borrow_mut().insert(known);
    }
    Ok(options.store.layers().declare(below, diff_id, blob)?)
}

fn verify(diff_id: &Digest, blob: &LayerBlob, options: &LoadOptions) -> Result<()> {
    if blob.digest == *diff_id {
        return Ok(());
    }
    let actual = diff_id_of(blob, options)?;
    if actual == *diff_id {
        return Ok(());
    }
    let problem = format!("its config calls it {diff_id}, but it is {actual}");
    Err(Error::image(format!("layer {}", blob.digest), problem))
}

/// Returns the digest of a layer that is no longer compressed.
pub(super) fn diff_id_of(blob: &LayerBlob, options: &LoadOptions) -> Result<Digest> {
    if blob.media_type == media_type::DOCKER_LAYER {
        return Ok(blob.digest);
    }
    let failed = |error| Error::kernel("decompress", blob.digest)(error);
    let file = options.store.content().open(&blob.digest)?;
    let (plain, _) = options.limits.decompress(file).map_err(failed)?;
    let mut plain = HashingReader::new(plain);
    io::copy(&mut plain, &mut io::sink()).map_err(failed)?;
    Ok(plain.finish().0)
}

/// Returns the media type of a layer by its compression, docker's where docker has one; `None` where
/// no image may have such layers.
pub(super) fn media_type(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => Some(media_type::DOCKER_LAYER),
        Compression::Gzip => Some(media_type::DOCKER_LAYER_GZIP),
        Compression::Zstd => Some(media_type::OCI_LAYER_ZSTD),
        Compression::Bzip2 | Compression::Xz => None,
    }
}
