//! Verification of layers against the image config.

use std::io;

use kiln_oci::{Digest, HashingReader, media_type};
use kiln_store::{LayerBlob, LayerId};
use kiln_tree::Compression;

use super::LoadOptions;
use super::files::ArchiveFiles;
use crate::error::{Error, Result};

/// Declares a layer above `below` after verifying that the blob has the diff ID.
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

/// Returns the digest of a layer's uncompressed bytes.
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

/// Returns the media type for a compression: Docker's type if there is one, otherwise OCI's.
/// Returns `None` if images don't support the compression.
pub(super) fn media_type(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => Some(media_type::DOCKER_LAYER),
        Compression::Gzip => Some(media_type::DOCKER_LAYER_GZIP),
        Compression::Zstd => Some(media_type::OCI_LAYER_ZSTD),
        Compression::Bzip2 | Compression::Xz => None,
    }
}
