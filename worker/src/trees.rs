//! Trees for layers that have none yet.
//!
//! The layers of an image are declared with nothing but digests. Here they get their trees: blobs
//! that are far away are fetched in parallel, then each layer is unpacked on an overlay of those
//! below, so that deletions become what the kernel takes for deletions. A tree gets its name when
//! the blob and the uncompressed archive have turned out to be what their digests say.

use std::io::Read;

use kiln_oci::{Digest, HashingReader};
use kiln_solver::StepContext;
use kiln_store::{Layer, LayerBlob, LayerId};
use kiln_tree::{ArchiveLimits, Dir, Manifest, UnpackOptions};
use tokio::task::JoinSet;

use crate::blobs::{VerifiedReader, blocking};
use crate::error::{Error, Result};
use crate::flight;
use crate::output::Output;
use crate::progress::{Part, Progress, ReportingReader};
use crate::snapshots::Snapshots;

impl Snapshots {
    /// Makes sure that all layers of all `outputs` have trees.
    pub(crate) async fn materialise<'a>(
        &self,
        outputs: impl IntoIterator<Item = &'a Output>,
        context: Option<&StepContext>,
    ) -> Result<()> {
        let progress = context.map_or_else(Progress::silent, Progress::of);
        for output in outputs {
            if let Some(Some(top)) = output.layer() {
                self.materialise_chain(top, &progress).await?;
            }
        }
        Ok(())
    }

    async fn materialise_chain(&self, top: &LayerId, progress: &Progress) -> Result<()> {
        let layers = self.store.layers();
        let chain = layers.chain(top)?;
        let missing: Vec<_> = chain.into_iter().filter(|layer| !layer.has_tree).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let mut work = Vec::with_capacity(missing.len());
        let mut fetches = JoinSet::new();
        for layer in missing {
            let blob = self.readable_blob(&layer)?;
            if self.blobs.open(&blob)?.is_none() {
                let (blobs, blob, progress) = (self.blobs.clone(), blob.clone(), progress.clone());
                fetches.spawn(async move { blobs.ensure(&blob, &progress).await });
            }
            work.push((layer, blob));
        }
        while let Some(fetched) = fetches.join_next().await {
            fetched.map_err(|error| Error::Invalid(format!("internal error: {error}")))??;
        }
        for (layer, blob) in work {
            let _guard = flight::lock(&self.store, &format!("unpack-{}", layer.id)).await?;
            if layers.get(&layer.id)?.is_some_and(|layer| layer.has_tree) {
                continue;
            }
            let _place = self.reading_an_archive().await?;
            let part = progress.part(format!("extracting {}", blob.digest), Some(blob.size));
            let this = self.clone();
            blocking(move || this.unpack_believed(&layer, &blob, part)).await?;
        }
        Ok(())
    }

    /// Returns the packed form that is the easiest to get.
    pub(crate) fn readable_blob(&self, layer: &Layer) -> Result<LayerBlob> {
        let blobs = self.store.layers().blobs(&layer.id)?;
        for blob in &blobs {
            if self.blobs.open(blob)?.is_some() {
                return Ok(blob.clone());
            }
        }
        // A base image's own comes before a cache's.
        let distant = blobs.into_iter().filter(|blob| blob.origin.is_some());
        distant.min_by_key(|blob| blob.cache_place().is_some()).ok_or_else(|| {
            let name = layer.diff_id.map_or_else(|| layer.id.to_string(), |id| id.to_string());
            kiln_store::Error::Missing { what: "blob of layer", name }.into()
        })
    }

    /// Unpacks a blob; one of a cache is what the cache says if that comes out well.
    fn unpack_believed(&self, layer: &Layer, blob: &LayerBlob, part: Part) -> Result<()> {
        self.unpack(layer, blob, part).map_err(|error| self.blobs.lose(blob, error))?;
        match (blob.cache_place(), &layer.diff_id) {
            (Some(_), Some(diff_id)) => {
                Ok(self.store.layers().confirm_cached(&blob.digest, diff_id)?)
            }
            _ => Ok(()),
        }
    }

    fn unpack(&self, layer: &Layer, blob: &LayerBlob, mut part: Part) -> Result<()> {
        let expected = layer.diff_id.ok_or_else(|| {
            Error::Invalid(format!("layer {} has neither a tree nor a diff ID", layer.id))
        })?;
        let file = self.blobs.open(blob)?.ok_or_else(|| {
            Error::from(kiln_store::Error::Missing { what: "blob", name: blob.digest.to_string() })
        })?;
        let writable = self.write(layer.parent.as_ref())?;
        let file = std::io::BufReader::with_capacity(1 << 17, file);
        let mut packed = VerifiedReader::new(ReportingReader::new(file, &mut part), blob.digest);
        let extracted = extract(&mut packed, blob, (writable.dir(), self.limits));
        // A blob that isn't what it should be explains whatever else went wrong.
        self.verified(packed, blob)?;
        let actual = extracted?;
        if actual != expected {
            return Err(kiln_store::Error::DigestMismatch { expected, actual }.into());
        }
        if let Some(known) = self.store.layers().contents(&expected)? {
            Manifest::from_bytes(known).refine(writable.dir())?;
        }
        self.attach(writable, &layer.id)?;
        part.finish();
        Ok(())
    }

    /// Verifies a blob that was read. One of the store's that isn't what it should be is removed,
    /// so that it is fetched again.
    pub(crate) fn verified<R: std::io::Read>(
        &self,
        packed: VerifiedReader<R>,
        blob: &LayerBlob,
    ) -> Result<()> {
        let verified = packed.verify();
        if verified.is_err() && self.store.content().size(&blob.digest)?.is_some() {
            self.store.content().remove_corrupt(&blob.digest)?;
        }
        verified
    }
}

/// Unpacks a blob and returns the digest of the uncompressed archive.
fn extract(
    packed: &mut (impl Read + Send),
    blob: &LayerBlob,
    (dest, limits): (&Dir, ArchiveLimits),
) -> Result<Digest> {
    let (plain, _) = limits.decompress(packed).map_err(Error::kernel("decompress", blob.digest))?;
    let mut archive = HashingReader::new(plain);
    let max_entries = limits.max_entries;
    let options = UnpackOptions { whiteouts: true, max_entries, ..UnpackOptions::default() };
    kiln_tree::unpack(&mut archive, dest, options)?;
    // What follows the archive's end is part of the layer's identity as well.
    std::io::copy(&mut archive, &mut std::io::sink())
        .map_err(Error::kernel("decompress", blob.digest))?;
    Ok(archive.finish().0)
}
