//! Trees for layers without one.
//!
//! The layers of an image are declared with their digests only. This module creates their trees. It
//! downloads the blobs in parallel and unpacks each layer on an overlay of the layers below, so
//! that deletions become whiteouts. A tree is committed after the digests of the blob and of the
//! uncompressed archive are verified.

use std::collections::VecDeque;
use std::io::{BufReader, Read};

use kiln_event::{Part, Reporter, ReportingReader};
use kiln_oci::HashingReader;
use kiln_store::{Layer, LayerBlob, LayerId};
use kiln_tree::{Manifest, UnpackOptions};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use crate::blobs::{VerifiedReader, blocking};
use crate::error::{Error, Result};
use crate::flight;
use crate::inflate::Inflating;
use crate::snapshots::Snapshots;

/// The number of bytes of a blob that are read at a time.
const BUFFER: usize = 128 * 1024;

impl Snapshots {
    /// Unpacks all layers of these chains that have no tree.
    ///
    /// # Errors
    /// Fails if a layer can't be fetched or doesn't match its digests.
    pub async fn materialise<'a>(
        &self,
        tops: impl IntoIterator<Item = &'a LayerId>,
        reporter: &Reporter,
    ) -> Result<()> {
        for top in tops {
            self.materialise_chain(top, reporter).await?;
        }
        Ok(())
    }

    async fn materialise_chain(&self, top: &LayerId, reporter: &Reporter) -> Result<()> {
        let layers = self.store.layers();
        let chain = layers.chain(top)?;
        let missing: Vec<_> = chain.into_iter().filter(|layer| !layer.has_tree).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let fetches = TaskTracker::new();
        let mut work = VecDeque::with_capacity(missing.len());
        for layer in missing {
            let blob = self.readable_blob(&layer)?;
            let mut fetch = None;
            if self.blobs.open(&blob)?.is_none() {
                let (blobs, blob, reporter) = (self.blobs.clone(), blob.clone(), reporter.clone());
                let fetched = async move { blobs.ensure(&blob, &reporter).await };
                fetch = Some(AbortOnDropHandle::new(fetches.spawn(fetched)));
            }
            work.push_back(Missing { layer, blob, fetch, inflating: None });
        }
        while let Some(mut missing) = work.pop_front() {
            missing.fetched().await?;
            let _guard = flight::lock(&self.store, &format!("unpack-{}", missing.layer.id)).await?;
            if layers.get(&missing.layer.id)?.is_some_and(|layer| layer.has_tree) {
                continue;
            }
            let _place = self.reading_an_archive().await?;
            let inflating = match missing.inflating.take() {
                Some(inflating) => inflating,
                None => missing.inflate(self, reporter, None)?,
            };
            if let Some(next) = work.front_mut().filter(|next| next.is_here())
                && let Some(ahead) = self.reading_ahead()
            {
                next.inflating = Some(next.inflate(self, reporter, Some(ahead))?);
            }
            let (this, Missing { layer, blob, .. }) = (self.clone(), missing);
            blocking(move || this.unpack_believed(&layer, &blob, inflating)).await?;
        }
        Ok(())
    }

    /// Returns the most accessible blob of a layer.
    pub(crate) fn readable_blob(&self, layer: &Layer) -> Result<LayerBlob> {
        let blobs = self.store.layers().blobs(&layer.id)?;
        for blob in &blobs {
            if self.blobs.open(blob)?.is_some() {
                return Ok(blob.clone());
            }
        }
        // A base image's own blob takes precedence over a cache's.
        let distant = blobs.into_iter().filter(|blob| blob.origin.is_some());
        distant.min_by_key(|blob| blob.cache_place().is_some()).ok_or_else(|| {
            let name = layer.diff_id.map_or_else(|| layer.id.to_string(), |id| id.to_string());
            kiln_store::Error::Missing { what: "blob of layer", name }.into()
        })
    }

    /// Unpacks a blob. A successful result confirms a cache's description of the blob.
    fn unpack_believed(&self, layer: &Layer, blob: &LayerBlob, inflating: Inflating) -> Result<()> {
        self.unpack(layer, inflating).map_err(|error| self.blobs.lose(blob, error))?;
        match (blob.cache_place(), &layer.diff_id) {
            (Some(_), Some(diff_id)) => {
                Ok(self.store.layers().confirm_cached(&blob.digest, diff_id)?)
            }
            _ => Ok(()),
        }
    }

    fn unpack(&self, layer: &Layer, mut inflating: Inflating) -> Result<()> {
        let expected = layer.diff_id.ok_or_else(|| {
            Error::Invalid(format!("layer {} has neither a tree nor a diff ID", layer.id))
        })?;
        let writable = self.write(layer.parent.as_ref())?;
        let max_entries = self.limits.max_entries;
        let options = UnpackOptions { whiteouts: true, max_entries, ..UnpackOptions::default() };
        let mut archive = HashingReader::new(&mut inflating.plain);
        let unpacked = kiln_tree::unpack(&mut archive, writable.dir(), options);
        if unpacked.is_ok() {
            // The diff ID covers the bytes after the end of the archive, too.
            let _ = std::io::copy(&mut archive, &mut std::io::sink());
        }
        let (actual, _) = archive.finish();
        let part = match (inflating.end(), unpacked) {
            // An invalid blob explains all other errors.
            (Err(error), Ok(_)) | (Err(error @ Error::Store(_)), Err(_)) => return Err(error),
            (_, Err(error)) => return Err(error.into()),
            (Ok(part), Ok(_)) => part,
        };
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

    /// Calls `read` with a blob and verifies the blob afterwards, whatever the result. Returns
    /// `None` if the blob isn't on this machine. A corrupt blob of the store is removed, so that it
    /// is fetched again.
    pub(crate) fn read_blob<T>(
        &self,
        blob: &LayerBlob,
        part: &mut Part,
        read: impl FnOnce(&mut (dyn Read + Send)) -> T,
    ) -> Result<Option<T>> {
        let Some(file) = self.blobs.open(blob)? else { return Ok(None) };
        let file = BufReader::with_capacity(BUFFER, file);
        let mut packed = VerifiedReader::new(ReportingReader::new(file, part), blob.digest);
        let result = read(&mut packed);
        let verified = packed.verify();
        if verified.is_err() && self.store.content().size(&blob.digest)?.is_some() {
            self.store.content().remove_corrupt(&blob.digest)?;
        }
        verified.map(|()| Some(result))
    }
}

/// A layer without a tree.
struct Missing {
    layer: Layer,
    blob: LayerBlob,
    /// The task that downloads the blob. `None` if the blob is on this machine.
    fetch: Option<AbortOnDropHandle<Result<()>>>,
    /// The layer's archive, if it is read ahead of its turn.
    inflating: Option<Inflating>,
}

impl Missing {
    /// Returns `true` if the download has ended or isn't needed.
    fn is_here(&self) -> bool {
        self.fetch.as_ref().is_none_or(AbortOnDropHandle::is_finished)
    }

    /// Waits for the end of the download.
    async fn fetched(&mut self) -> Result<()> {
        match self.fetch.take() {
            Some(fetch) => {
                fetch.await.map_err(|error| Error::Invalid(format!("internal error: {error}")))?
            }
            None => Ok(()),
        }
    }

    /// Starts to read the blob.
    fn inflate(
        &self,
        snapshots: &Snapshots,
        reporter: &Reporter,
        ahead: Option<OwnedSemaphorePermit>,
    ) -> Result<Inflating> {
        let name = format!("extracting {}", self.blob.digest);
        let part = reporter.part(name, Some(self.blob.size));
        Inflating::begin(snapshots, &self.blob, part, ahead)
    }
}
