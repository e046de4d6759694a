//! The blobs of layers and their retrieval.

use std::fs::File;
use std::sync::Arc;

use kiln_event::{Part, Reporter, ReportingReader};
use kiln_oci::error::{causes, chain};
use kiln_oci::{Digest, HashingReader};
use kiln_registry::{Client, Length, PartialBlob, Repository};
use kiln_store::{BlobWriter, LayerBlob, Store};
use kiln_tree::ArchiveLimits;

use crate::error::{Error, Result};
use crate::flight;
use crate::lost::{LostBlob, LostBlobs};
use crate::oci_layout::open_blob;
use crate::origin::Origin;
use crate::stores::BlobStores;

/// The blobs of layers in the store, in OCI layouts and in registries.
#[derive(Clone, Debug)]
pub struct Blobs {
    /// The store that receives the blobs.
    pub store: Store,
    /// The limits for decompressing archives.
    pub limits: ArchiveLimits,
    /// The blobs that caches list but can't provide.
    pub lost: Arc<LostBlobs>,
    /// The stores that the caller has registered.
    pub stores: Arc<BlobStores>,
    registry: Client,
}

impl Blobs {
    /// Creates access to the blobs of a store.
    pub fn new(store: Store, registry: Client, limits: ArchiveLimits) -> Self {
        Self { store, registry, limits, lost: Arc::default(), stores: Arc::default() }
    }

    /// Returns the client for registries.
    pub fn client(&self) -> &Client {
        &self.registry
    }

    /// Brings a blob into the store unless it is stored already. Concurrent calls, in this process
    /// or others, fetch it once.
    ///
    /// # Errors
    /// Fails if the blob isn't available, or if its content has another digest or size.
    pub async fn fetch(&self, blob: &LayerBlob, reporter: &Reporter) -> Result<()> {
        self.ensure(blob, reporter).await?;
        if blob.cache_place().is_none() {
            return Ok(());
        }
        let (this, blob) = (self.clone(), blob.clone());
        blocking(move || this.verify_cached(&blob)).await
    }

    /// Returns the blobs of caches that turned out to be unusable since the last call. The store
    /// has already dropped all results that depend on them, so the caller may retry a build that
    /// failed because of them.
    pub fn take_lost(&self) -> Vec<LostBlob> {
        self.lost.take()
    }

    /// Brings a blob into the store unless it is stored already. Doesn't verify that a blob of a cache
    /// is the layer that the cache lists it for: unpacking does.
    ///
    /// # Errors
    /// Fails like [`Self::fetch`].
    pub async fn ensure(&self, blob: &LayerBlob, reporter: &Reporter) -> Result<()> {
        if self.is_here(blob)? {
            return Ok(());
        }
        let _guard = flight::lock(&self.store, &format!("blob-{}", blob.digest.hex())).await?;
        if self.is_here(blob)? {
            return Ok(());
        }
        let part = reporter.part(blob.digest.to_string(), Some(blob.size));
        let origin = blob.origin.as_deref().map_or(Origin::Store, Origin::parse);
        match origin {
            Origin::Cache(place) => {
                let fetched = self.bring(*place, blob, part).await;
                fetched.map_err(|error| self.lose(blob, error))
            }
            origin => self.bring(origin, blob, part).await,
        }
    }

    /// Returns `true` if the store has a blob.
    ///
    /// # Errors
    /// Fails if the stored blob has another size than the descriptor says.
    pub(crate) fn is_here(&self, blob: &LayerBlob) -> Result<bool> {
        match self.store.content().size(&blob.digest)? {
            Some(actual) if actual != blob.size => Err(wrong_size(&blob.digest, blob.size, actual)),
            found => Ok(found.is_some()),
        }
    }

    /// Fetches a blob that isn't stored.
    async fn bring(&self, from: Origin, blob: &LayerBlob, part: Part) -> Result<()> {
        match from {
            Origin::Layout(directory) => {
                let (this, blob) = (self.clone(), blob.clone());
                blocking(move || this.import(open_blob(&directory, &blob.digest)?, &blob, part))
                    .await
            }
            Origin::Client(name) => {
                let (this, blob) = (self.clone(), blob.clone());
                let open = move || {
                    let found = this.stores.open(&name, &blob.digest)?;
                    this.import(found.map(|(_, bytes)| bytes), &blob, part)
                };
                blocking(open).await
            }
            Origin::Registry(name) => self.download(&name, blob, part).await,
            Origin::Store | Origin::Cache(_) => Err(missing(&blob.digest)),
        }
    }

    /// Verifies that a stored blob of a cache is a packed form of the layers that the cache lists
    /// it for.
    fn verify_cached(&self, blob: &LayerBlob) -> Result<()> {
        let expected = self.store.layers().cached_diff_ids(&blob.digest)?;
        if expected.is_empty() {
            return Ok(());
        }
        let actual = self.diff_id(blob).map_err(|error| self.lose(blob, error))?;
        self.store.layers().confirm_cached(&blob.digest, &actual)?;
        match expected.into_iter().find(|expected| *expected != actual) {
            Some(expected) => {
                let error = kiln_store::Error::DigestMismatch { expected, actual };
                Err(self.lose(blob, error.into()))
            }
            None => Ok(()),
        }
    }

    /// Returns the digest of a blob's uncompressed bytes.
    fn diff_id(&self, blob: &LayerBlob) -> Result<Digest> {
        let file = self.store.content().open(&blob.digest)?;
        let failed = || Error::kernel("decompress", blob.digest);
        let (plain, _) = self.limits.decompress(file).map_err(failed())?;
        let mut plain = HashingReader::new(plain);
        std::io::copy(&mut plain, &mut std::io::sink()).map_err(failed())?;
        Ok(plain.finish().0)
    }

    /// Drops all cache records about an unusable blob and returns the error that describes it. Does
    /// nothing if the error has a local cause, which doesn't discredit the cache.
    pub(crate) fn lose(&self, blob: &LayerBlob, error: Error) -> Error {
        let Some(place) = blob.cache_place().filter(|_| !is_own(&error)) else { return error };
        if let Err(error) = self.store.cache().distrust(&blob.digest) {
            return error.into();
        }
        let problem = chain(&error);
        self.lost.note(LostBlob { digest: blob.digest, place: place.to_owned(), problem });
        Error::Cached { digest: blob.digest, source: Box::new(error) }
    }

    /// Opens a blob for reading in place if possible, without storing it. The caller must verify
    /// the bytes.
    pub(crate) fn open(&self, blob: &LayerBlob) -> Result<Option<File>> {
        if self.store.content().size(&blob.digest)?.is_some() {
            return Ok(Some(self.store.content().open(&blob.digest)?));
        }
        match blob.origin.as_deref().map(Origin::parse) {
            Some(Origin::Layout(directory)) => open_blob(&directory, &blob.digest),
            // A cache's blob must be verified before any use.
            _ => Ok(None),
        }
    }

    fn import<R: std::io::Read>(
        &self,
        file: Option<R>,
        blob: &LayerBlob,
        mut part: Part,
    ) -> Result<()> {
        let file = file.ok_or_else(|| missing(&blob.digest))?;
        // Reading one byte more than expected detects a file that is too large, whatever its size.
        let file = file.take(blob.size.saturating_add(1));
        let mut writer = self.store.content().writer()?;
        writer.expect(blob.size)?;
        std::io::copy(&mut ReportingReader::new(file, &mut part), &mut writer)
            .map_err(Error::kernel("copy blob", blob.digest))?;
        writer.commit(Some(&blob.digest))?;
        part.finish();
        Ok(())
    }

    /// Downloads a blob. Resumes an interrupted download.
    async fn download(&self, name: &str, blob: &LayerBlob, part: Part) -> Result<()> {
        let repository: Repository = name.parse().map_err(|error| Error::image(name, error))?;
        let mut part = part;
        let mut writer = self.writer(blob, true).await?;
        let begun = writer.written();
        if begun > blob.size {
            writer.discard();
            writer = self.writer(blob, false).await?;
        } else if begun > 0 {
            part.advance(begun);
            match self.transfer(&repository, blob, &mut writer, &mut part).await {
                Err(Error::Registry(error)) if error.is_wrong_content() => {
                    tracing::debug!(%error, "what was left of the blob is of no use");
                    writer.discard();
                    part.restart();
                    writer = self.writer(blob, false).await?;
                }
                Err(error) => return Err(error),
                Ok(()) => return finish(writer, blob, part),
            }
        }
        self.transfer(&repository, blob, &mut writer, &mut part).await?;
        finish(writer, blob, part)
    }

    /// Reserves space for a blob and starts to write it, after the bytes of an interrupted download
    /// or from the beginning.
    async fn writer(&self, blob: &LayerBlob, resumed: bool) -> Result<BlobWriter> {
        let (content, digest, size) = (self.store.content(), blob.digest, blob.size);
        let begin = move || {
            let writer = if resumed { content.resume(&digest)? } else { content.writer()? };
            writer.expect(size)?;
            Ok(writer)
        };
        blocking(begin).await
    }

    async fn transfer(
        &self,
        repository: &Repository,
        blob: &LayerBlob,
        writer: &mut BlobWriter,
        part: &mut Part,
    ) -> Result<()> {
        if writer.written() == blob.size && writer.hasher().finish() == blob.digest {
            return Ok(());
        }
        let length = Length::Exactly(blob.size);
        let beginning = PartialBlob { hasher: writer.hasher(), size: writer.written() };
        let stream = self.registry.rest_of_blob(repository, &blob.digest, length, beginning);
        stream.await?.copy_to(writer, |bytes| part.advance(bytes)).await?;
        Ok(())
    }
}

/// Returns `true` if an error has a local cause and isn't the cache's fault.
fn is_own(error: &Error) -> bool {
    use kiln_store::Error::{DigestMismatch, Missing};
    if let Error::Store(error) = error
        && matches!(error, DigestMismatch { .. } | Missing { .. })
    {
        return false;
    }
    let scarce = [libc::ENOSPC, libc::EDQUOT, libc::EMFILE, libc::ENFILE, libc::ENOMEM];
    if let Error::Registry(error) = error
        && error.os_error().is_some_and(|errno| scarce.contains(&errno))
    {
        return true;
    }
    let is_scarce = causes(error).any(|cause| {
        let errno = cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
        errno.is_some_and(|errno| scarce.contains(&errno))
    });
    is_scarce || matches!(error, Error::Cancelled | Error::Store(_))
}

fn finish(writer: BlobWriter, blob: &LayerBlob, part: Part) -> Result<()> {
    writer.commit(Some(&blob.digest))?;
    part.finish();
    Ok(())
}

/// A reader that hashes a blob's bytes for verification at the end.
pub(crate) struct VerifiedReader<R> {
    inner: HashingReader<R>,
    expected: Digest,
}

impl<R: std::io::Read> VerifiedReader<R> {
    pub(crate) fn new(inner: R, expected: Digest) -> Self {
        Self { inner: HashingReader::new(inner), expected }
    }

    /// Reads the remaining bytes. Returns an error if the digest of the whole differs.
    pub(crate) fn verify(mut self) -> Result<()> {
        std::io::copy(&mut self.inner, &mut std::io::sink())
            .map_err(Error::kernel("read", self.expected))?;
        let (actual, _) = self.inner.finish();
        if actual == self.expected {
            Ok(())
        } else {
            Err(kiln_store::Error::DigestMismatch { expected: self.expected, actual }.into())
        }
    }
}

impl<R: std::io::Read> std::io::Read for VerifiedReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.inner.read(buffer)
    }
}

/// Returns the error for a blob whose size differs from its descriptor.
pub(crate) fn wrong_size(digest: &Digest, expected: u64, actual: u64) -> Error {
    let problem = format!("its descriptor says {expected} bytes, and it has {actual}");
    Error::Invalid(format!("{digest}: {problem}"))
}

pub(crate) fn missing(digest: &Digest) -> Error {
    kiln_store::Error::Missing { what: "blob", name: digest.to_string() }.into()
}

/// Runs blocking work on a thread of the runtime's pool for such work.
///
/// # Errors
/// Fails with the error of the work, or if the runtime stops or the work panics.
pub async fn blocking<T: Send + 'static, E: From<Error> + Send + 'static>(
    work: impl FnOnce() -> std::result::Result<T, E> + Send + 'static,
) -> std::result::Result<T, E> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::Cancelled.into()),
        Err(error) => Err(Error::Invalid(format!("internal error: {error}")).into()),
    }
}
