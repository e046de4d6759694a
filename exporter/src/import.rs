//! Images of one layer, imported from a tar of a root file system.
//!
//! The tar becomes the layer unchanged. It is parsed on the way, so that an archive that can't be
//! unpacked is rejected.

use std::io::{self, Read, Write};
use std::path::Path;

use kiln_event::Reporter;
use kiln_images::{Packing, pack_stream};
use kiln_oci::{
    Descriptor, Digest, History, ImageConfig, ImageManifest, Reference, RootFs, limits, media_type,
};
use kiln_store::{ImageRow, LayerBlob, Store};
use kiln_tree::{ArchiveLimits, TarReader};
use serde::Serialize;

use crate::config;
use crate::error::{Error, Result};

/// The properties of an imported image.
#[derive(Clone, Debug, Default)]
pub struct ImportRequest {
    /// The platform, the author and the defaults for containers. The import adds the members about
    /// layers.
    pub config: ImageConfig,
    /// The comment of the image and of its history entry.
    pub message: String,
    /// The names of the image in the store.
    pub names: Vec<Reference>,
    /// The creation time in seconds since 1970.
    pub now: i64,
    /// The limits for decompressing the archive.
    pub limits: ArchiveLimits,
}

/// Imports a tar, compressed or not, as an image into the store. Returns the image ID. Blocks the
/// thread.
///
/// # Errors
/// Fails if the archive isn't a valid tar or exceeds the limits, or if the store fails.
pub fn import(
    archive: &mut (dyn Read + Send),
    request: ImportRequest,
    store: &Store,
) -> Result<Digest> {
    let (diff_id, layer) = pack(archive, request.limits, store)?;
    store.layers().commit_blob(None, &diff_id, &layer)?;
    let created = Some(config::text_of_seconds(request.now)?);
    let mut image = request.config;
    image.created.clone_from(&created);
    image.rootfs = RootFs { kind: "layers".to_owned(), diff_ids: Some(vec![diff_id]) };
    image.other.insert("comment".to_owned(), request.message.clone().into());
    let comment = request.message;
    image.history = vec![History { created, comment, ..History::default() }];

    let bytes = json(&image)?;
    limits::check_config(bytes.len())?;
    let config = store.content().put(&bytes)?;
    let config_descriptor = Descriptor::new(media_type::OCI_CONFIG, &config.digest, config.size);
    let layer = Descriptor::new(&layer.media_type, &layer.digest, layer.size);
    let manifest = ImageManifest::new(media_type::OCI_MANIFEST, config_descriptor, vec![layer]);
    let manifest = store.content().put(&json(&manifest)?)?;
    let row = |name: Option<String>| ImageRow {
        name,
        media_type: media_type::OCI_MANIFEST.to_owned(),
        digest: manifest.digest,
        size: manifest.size,
        created_at: request.now,
    };
    if request.names.is_empty() {
        store.images().put(&row(None))?;
    }
    let rows: Vec<_> = request.names.iter().map(|name| row(Some(name.to_string()))).collect();
    store.images().put_all(&rows)?;
    Ok(config.digest)
}

/// Writes the layer's blob. Returns the digest of the uncompressed tar, too.
fn pack(
    archive: &mut (dyn Read + Send),
    limits: ArchiveLimits,
    store: &Store,
) -> Result<(Digest, LayerBlob)> {
    let failed = |source| kiln_tree::Error::Io {
        action: "read",
        path: Path::new("the archive").to_owned(),
        source,
    };
    let (mut plain, _) = limits.decompress(archive).map_err(|error| Error::Tree(failed(error)))?;
    let packed = pack_stream(store, Packing::default(), &Reporter::silent(), &mut |sink| {
        let mut tee = Tee { from: &mut plain, to: sink };
        let mut reader = TarReader::new(&mut tee);
        let mut entries = 0;
        while reader.next_entry().map_err(failed)?.is_some() {
            entries += 1;
            if limits.max_entries.is_some_and(|most| entries > most) {
                return Err(failed(io::Error::other("the archive exceeds the limit of entries")));
            }
        }
        // The diff ID covers the bytes after the end of the archive, too.
        io::copy(&mut tee, &mut io::sink()).map(drop).map_err(failed)
    });
    Ok(packed?)
}

/// A reader that copies its input to a writer.
struct Tee<'a> {
    from: &'a mut dyn Read,
    to: &'a mut dyn Write,
}

impl Read for Tee<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(buffer)?;
        self.to.write_all(&buffer[..length])?;
        Ok(length)
    }
}

fn json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::Config(error.to_string()))
}
