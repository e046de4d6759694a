//! The blob of a layer.
//!
//! | the layer has | the packer |
//! | --- | --- |
//! | a blob with the requested compression in the content | uses it |
//! | a blob that came with a base image | fetches it and uses it as it is, unless compression is forced |
//! | a blob with the requested compression in a cache | fetches, verifies and uses it |
//! | another blob in the content or a cache | decompresses it and compresses it again, with the same diff ID |
//! | a tree | packs the tree |
//!
//! The new blob is recorded with the layer. A layer is packed only once: other threads and
//! processes wait for a lock and find the blob.

mod driver;
mod kept;
mod planned;

use std::fmt;
use std::io::{self, Read, Write};

use kiln_event::Reporter;
use kiln_oci::{Digest, HashingWriter};
use kiln_store::{BlobWriter, Layer, LayerBlob, LayerId, Store};
use kiln_tree::{ArchiveLimits, Plan};

use crate::compression::{Compression, Packing};
use crate::compressor::Compressor;
use crate::error::{Error, Result};
use crate::fetcher::Fetcher;
use planned::PlannedFiles;

/// The number of bytes between two progress reports.
const REPORT: u64 = 1 << 20;

/// A layer as a blob in the store's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedLayer {
    /// The ID of the layer in the store.
    pub layer: LayerId,
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub digest: Digest,
    /// The size of the blob in bytes.
    pub size: u64,
    /// The compression of the blob.
    pub compression: Compression,
    /// The layer's creation time in nanoseconds since 1970.
    pub created_at: i64,
    /// The command or instruction that created the layer, if it is known.
    pub description: Option<String>,
    /// The time that timestamps are limited to, in seconds since 1970. `None` if they are not
    /// rewritten.
    pub rewritten: Option<i64>,
}

/// A packer of layers into blobs.
pub struct Packer<'a> {
    /// The store that holds the layers and receives the blobs.
    pub store: &'a Store,
    /// The requested compression, its level, and whether it is forced.
    pub packing: Packing,
    /// The limits for blobs that are decompressed and compressed again.
    pub limits: ArchiveLimits,
    /// The source of base images' layers.
    pub fetcher: &'a Fetcher,
    /// The receiver of progress reports.
    pub progress: &'a Reporter,
}

/// Returns a blob of a layer in a registry that an output can use without a download. Returns
/// `None` if the store has a blob of the layer.
///
/// # Errors
/// Fails if the store fails.
pub fn locate_layer(store: &Store, id: &LayerId, packing: Packing) -> Result<Option<PackedLayer>> {
    let missing = || kiln_store::Error::Missing { what: "layer", name: id.to_string() };
    let layer = store.layers().get(id)?.ok_or_else(missing)?;
    let Some(diff_id) = layer.diff_id else { return Ok(None) };
    let mut far = None;
    for blob in store.layers().blobs(id)? {
        let Some(compression) = Compression::of(&blob.media_type) else { continue };
        if store.content().size(&blob.digest)?.is_some() {
            // [`Packer::pack`] chooses among the stored blobs.
            return Ok(None);
        }
        let is_image = blob.came_with_an_image();
        let usable = compression == packing.compression || is_image && !packing.force;
        let place = blob.cache_place().or(blob.origin.as_deref());
        // The base image's own blob takes precedence over a cache's.
        let is_better = far.is_none() || is_image;
        if place.is_some_and(|place| !place.starts_with('/')) && usable && is_better {
            far = Some(packed(&layer, diff_id, compression, &blob));
        }
    }
    Ok(far)
}

/// Returns a blob of a layer that was packed here before, and that the store doesn't have any more.
/// Returns `None` if the store has a blob of the layer.
///
/// # Errors
/// Fails if the store fails.
pub fn packed_before(store: &Store, id: &LayerId, packing: Packing) -> Result<Option<PackedLayer>> {
    let missing = || kiln_store::Error::Missing { what: "layer", name: id.to_string() };
    let layer = store.layers().get(id)?.ok_or_else(missing)?;
    let Some(diff_id) = layer.diff_id else { return Ok(None) };
    let mut found = None;
    for blob in store.layers().blobs(id)? {
        if store.content().size(&blob.digest)?.is_some() {
            return Ok(None);
        }
        let compression = Compression::of(&blob.media_type);
        if blob.origin.is_none() && compression == Some(packing.compression) {
            found = Some(packed(&layer, diff_id, packing.compression, &blob));
        }
    }
    Ok(found)
}

impl fmt::Debug for Packer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer").field("packing", &self.packing).finish_non_exhaustive()
    }
}

impl Packer<'_> {
    /// Returns a blob of a layer. Fetches or creates it if necessary. The store's implicit lease
    /// holds the blob.
    ///
    /// # Errors
    /// Fails if the layer has neither a tree nor an available blob, if a blob exceeds the limits,
    /// or if a read or write fails.
    pub fn pack(&self, id: &LayerId) -> Result<PackedLayer> {
        let layer = self.layer(id)?;
        if let Some(found) = self.find(&layer)? {
            return Ok(found);
        }
        let _guard = self.store.lock(&self.lock_name(id))?;
        // Another process may have packed the layer meanwhile.
        let layer = self.layer(id)?;
        if let Some(found) = self.find(&layer)? {
            return Ok(found);
        }
        self.make(&layer)
    }

    /// Packs a layer unless it is packed or being packed.
    ///
    /// # Errors
    /// Fails like [`Packer::pack`].
    pub(crate) fn try_pack(&self, id: &LayerId) -> Result<()> {
        if self.find(&self.layer(id)?)?.is_some() {
            return Ok(());
        }
        let Some(_guard) = self.store.try_lock(&self.lock_name(id))? else { return Ok(()) };
        let layer = self.layer(id)?;
        if self.find(&layer)?.is_none() {
            self.make(&layer)?;
        }
        Ok(())
    }

    fn lock_name(&self, id: &LayerId) -> String {
        format!("pack-{id}-{}", self.packing.compression.name())
    }

    fn layer(&self, id: &LayerId) -> Result<Layer> {
        let missing = || kiln_store::Error::Missing { what: "layer", name: id.to_string() };
        Ok(self.store.layers().get(id)?.ok_or_else(missing)?)
    }

    /// Returns a blob that can be used as it is. Fetches it if it isn't stored.
    fn find(&self, layer: &Layer) -> Result<Option<PackedLayer>> {
        let Some(diff_id) = layer.diff_id else { return Ok(None) };
        let wanted = self.packing.compression;
        let mut usable: Vec<(Compression, LayerBlob)> = self.blobs(layer)?;
        usable.retain(|(compression, blob)| {
            *compression == wanted || (blob.came_with_an_image() && !self.packing.force)
        });
        // Stored blobs come first. Among them, a base image's own comes first, then those with the
        // requested compression.
        usable.sort_by_key(|(compression, blob)| {
            (self.packing.force || !blob.came_with_an_image(), *compression != wanted)
        });
        // A cache's blob is fetched even if it is stored, because the fetcher verifies that it
        // belongs to the layer.
        let known = |blob: &LayerBlob| blob.cache_place().is_none();
        for (compression, blob) in usable.iter().filter(|(_, blob)| known(blob)) {
            if self.is_near(blob)? {
                return Ok(Some(packed(layer, diff_id, *compression, blob)));
            }
        }
        for (compression, blob) in usable.iter().filter(|(_, blob)| blob.origin.is_some()) {
            self.fetch(blob)?;
            if self.is_near(blob)? {
                return Ok(Some(packed(layer, diff_id, *compression, blob)));
            }
        }
        Ok(None)
    }

    fn make(&self, layer: &Layer) -> Result<PackedLayer> {
        let name = format!("packing layer {}", layer.id);
        let (diff_id, blob) = if let Some(blob) = self.source_blob(layer)? {
            let file = self.store.content().open(&blob.digest)?;
            self.context(&name).compress(|sink| {
                let (mut plain, _) = self.limits.decompress(file)?;
                copy(&mut plain, sink).map_err(Into::into)
            })?
        } else if layer.has_tree {
            self.store.layers().check_trees([layer])?;
            let dir = self.store.layers().open_tree(&layer.id)?;
            let changes = self.store.layers().changes(&layer.id)?;
            let plan = Plan::of_changes(&dir, &changes)?;
            self.context(&name).pack(&plan, PlannedFiles::Layer)?
        } else {
            let name = format!(
                "of layer {}",
                layer.diff_id.map_or_else(|| layer.id.to_string(), |id| id.to_string())
            );
            return Err(kiln_store::Error::Missing { what: "tree or blob", name }.into());
        };
        if let Some(expected) = layer.diff_id
            && expected != diff_id
        {
            return Err(kiln_store::Error::DigestMismatch { expected, actual: diff_id }.into());
        }
        self.store.layers().add_blob(&layer.id, &diff_id, &blob)?;
        Ok(packed(layer, diff_id, self.packing.compression, &blob))
    }

    fn context<'b>(&'b self, name: &'b str) -> PackContext<'b> {
        PackContext { store: self.store, packing: self.packing, progress: self.progress, name }
    }

    /// Returns a blob to compress again. A base image's blob is fetched even if the layer has a
    /// tree, because the tree would not pack to the same bytes.
    fn source_blob(&self, layer: &Layer) -> Result<Option<LayerBlob>> {
        let blobs = self.blobs(layer)?;
        for (_, blob) in blobs.iter().filter(|(_, blob)| blob.cache_place().is_none()) {
            if self.is_near(blob)? {
                return Ok(Some(blob.clone()));
            }
        }
        for (_, blob) in blobs.iter().filter(|(_, blob)| blob.origin.is_some()) {
            self.fetch(blob)?;
            if self.is_near(blob)? {
                return Ok(Some(blob.clone()));
            }
        }
        Ok(None)
    }

    fn blobs(&self, layer: &Layer) -> Result<Vec<(Compression, LayerBlob)>> {
        let blobs = self.store.layers().blobs(&layer.id)?;
        let known = |blob: LayerBlob| Some((Compression::of(&blob.media_type)?, blob));
        Ok(blobs.into_iter().filter_map(known).collect())
    }

    /// Returns `true` if a blob is in the content, and holds it.
    fn is_near(&self, blob: &LayerBlob) -> Result<bool> {
        let content = self.store.content();
        Ok(content.size(&blob.digest)?.is_some() && content.hold(&blob.digest)?)
    }

    fn fetch(&self, blob: &LayerBlob) -> Result<()> {
        self.fetcher.fetch(blob)
    }
}

/// The context of packing one layer.
#[derive(Clone, Copy)]
struct PackContext<'a> {
    store: &'a Store,
    packing: Packing,
    progress: &'a Reporter,
    /// The name in progress reports.
    name: &'a str,
}

/// Creates a blob of the tar that `fill` writes, for a layer without a tree. Returns the tar's
/// digest, too.
///
/// # Errors
/// Fails if `fill` or the store fails.
pub fn pack_stream(
    store: &Store,
    packing: Packing,
    progress: &Reporter,
    fill: &mut dyn FnMut(&mut dyn Write) -> kiln_tree::Result<()>,
) -> Result<(Digest, LayerBlob)> {
    let context = PackContext { store, packing, progress, name: "packing layer" };
    context.compress(|sink| fill(sink).map_err(Into::into))
}

/// Creates a blob of a planned tar, for a layer without a tree. Compresses only the segments that
/// no blob in the store has. Returns the tar's digest, too.
///
/// # Errors
/// Fails if a file can't be read, or if the store fails.
pub fn pack_plan(
    store: &Store,
    packing: Packing,
    progress: &Reporter,
    plan: &Plan<'_>,
) -> Result<(Digest, LayerBlob)> {
    let context = PackContext { store, packing, progress, name: "packing layer" };
    context.pack(plan, PlannedFiles::Sources)
}

impl PackContext<'_> {
    /// Packs a plan into a blob. Returns the digest of the tar, too.
    fn pack(&self, plan: &Plan<'_>, files: PlannedFiles) -> Result<(Digest, LayerBlob)> {
        match planned::pack(*self, plan, files)? {
            Some(packed) => Ok(packed),
            None => self.compress(|sink| Ok(plan.write(sink).map(drop)?)),
        }
    }

    /// Compresses the output of `fill` into a blob. Returns the digest of the uncompressed output,
    /// too.
    fn compress(
        &self,
        fill: impl FnOnce(&mut dyn Write) -> std::result::Result<(), Failure>,
    ) -> Result<(Digest, LayerBlob)> {
        let Self { store, packing, progress, name } = *self;
        let failed = |source| Error::Pack { layer: name.to_owned(), source };
        let compressor = Compressor::new(store.content().writer()?, packing);
        let mut sink = Meter::new(compressor, name, progress);
        if let Err(failure) = fill(&mut sink) {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            return Err(match failure {
                Failure::Tree(error) => error.into(),
                Failure::Io(error) => failed(error),
            });
        }
        let (compressor, diff_id, bytes) = sink.finish();
        let blob = compressor.finish().map_err(failed)?.commit(None)?;
        progress.status(name, bytes, None, true);
        let media_type = packing.compression.media_type(true).to_owned();
        Ok((diff_id, LayerBlob { media_type, digest: blob.digest, size: blob.size, origin: None }))
    }
}

fn packed(
    layer: &Layer,
    diff_id: Digest,
    compression: Compression,
    blob: &LayerBlob,
) -> PackedLayer {
    PackedLayer {
        layer: layer.id.clone(),
        diff_id,
        digest: blob.digest,
        size: blob.size,
        compression,
        created_at: layer.created_at,
        description: layer.description.clone(),
        rewritten: None,
    }
}

/// A failure to write the tar.
enum Failure {
    Tree(kiln_tree::Error),
    Io(io::Error),
}

impl From<kiln_tree::Error> for Failure {
    fn from(error: kiln_tree::Error) -> Self {
        Self::Tree(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Copies with a buffer of 128 KiB, which suits layers.
fn copy(from: &mut dyn Read, to: &mut dyn Write) -> io::Result<()> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// A writer that computes the digest, reports progress, and fails when the export is cancelled.
struct Meter<'a> {
    inner: HashingWriter<Compressor<BlobWriter>>,
    name: &'a str,
    progress: &'a Reporter,
    written: u64,
    reported: u64,
}

impl<'a> Meter<'a> {
    fn new(inner: Compressor<BlobWriter>, name: &'a str, progress: &'a Reporter) -> Self {
        Self { inner: HashingWriter::new(inner), name, progress, written: 0, reported: 0 }
    }

    fn finish(self) -> (Compressor<BlobWriter>, Digest, u64) {
        self.inner.finish()
    }
}

impl Write for Meter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.written += count as u64;
        if self.written - self.reported >= REPORT {
            if self.progress.is_cancelled() {
                return Err(io::Error::other("canceled"));
            }
            self.reported = self.written;
            self.progress.status(self.name, self.written, None, false);
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests;
