//! Blobs of layers, wherever they are.

use std::fs::File;
use std::path::Path;

use kiln_oci::{Digest, HashingReader};
use kiln_registry::{Beginning, Client, Length, Repository};
use kiln_store::{BlobWriter, LayerBlob, Store};

use crate::error::{Error, Result};
use crate::flight;
use crate::progress::{Part, Progress, ReportingReader};
use crate::source::oci_layout::open_blob;
use crate::source::origin::Origin;

/// Blobs of layers: in the store, in OCI layouts, in registries.
#[derive(Clone, Debug)]
pub struct Blobs {
    store: Store,
    registry: Client,
}

impl Blobs {
    /// Makes an access to blobs.
    pub fn new(store: Store, registry: Client) -> Self {
        Self { store, registry }
    }

    /// Returns who speaks to registries.
    pub fn client(&self) -> &Client {
        &self.registry
    }

    /// Brings a blob into the store, unless it is there. Asked by several at once, in this process
    /// or others, it is fetched once.
    ///
    /// # Errors
    /// Fails where nobody has it, or what they have isn't it.
    pub async fn fetch(&self, blob: &LayerBlob) -> Result<()> {
        self.ensure(blob, &Progress::silent()).await
    }

    pub(crate) async fn ensure(&self, blob: &LayerBlob, progress: &Progress) -> Result<()> {
        let content = self.store.content();
        if content.size(&blob.digest)?.is_some() {
            return Ok(());
        }
        let _guard = flight::lock(&self.store, &format!("blob-{}", blob.digest.hex())).await?;
        if content.size(&blob.digest)?.is_some() {
            return Ok(());
        }
        let part = progress.part(blob.digest.to_string(), Some(blob.size));
        match blob.origin.as_deref().map(Origin::parse) {
            Some(Origin::Layout(directory)) => {
                let (this, blob) = (self.clone(), blob.clone());
                blocking(move || this.import(&directory, &blob, part)).await
            }
            Some(Origin::Registry(name)) => self.download(&name, blob, part).await,
            Some(Origin::Store) | None => Err(missing(&blob.digest)),
        }
    }

    /// Opens a blob for reading without storing it where it can be read in place. The bytes are
    /// still to be verified.
    pub(crate) fn open(&self, blob: &LayerBlob) -> Result<Option<File>> {
        if self.store.content().size(&blob.digest)?.is_some() {
            return Ok(Some(self.store.content().open(&blob.digest)?));
        }
        match blob.origin.as_deref().map(Origin::parse) {
            Some(Origin::Layout(directory)) => open_blob(&directory, &blob.digest),
            _ => Ok(None),
        }
    }

    fn import(&self, directory: &Path, blob: &LayerBlob, mut part: Part) -> Result<()> {
        let file = open_blob(directory, &blob.digest)?.ok_or_else(|| missing(&blob.digest))?;
        let mut writer = self.store.content().writer()?;
        writer.expect(blob.size)?;
        std::io::copy(&mut ReportingReader::new(file, &mut part), &mut writer)
            .map_err(Error::kernel("copy blob", blob.digest))?;
        writer.commit(Some(&blob.digest))?;
        part.finish();
        Ok(())
    }

    /// Downloads a blob, what an earlier attempt has left of it set aside.
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
            match self.transfer(&repository, blob, (&mut writer, &mut part)).await {
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
        self.transfer(&repository, blob, (&mut writer, &mut part)).await?;
        finish(writer, blob, part)
    }

    /// Begins a blob for which there is room, with what is left of an earlier attempt or anew.
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
        (writer, part): (&mut BlobWriter, &mut Part),
    ) -> Result<()> {
        if writer.written() == blob.size && writer.hasher().finish() == blob.digest {
            return Ok(());
        }
        let length = Length::Exactly(blob.size);
        let beginning = Beginning { hasher: writer.hasher(), size: writer.written() };
        let stream = self.registry.rest_of_blob(repository, &blob.digest, length, beginning);
        stream.await?.copy_to(writer, |bytes| part.advance(bytes)).await?;
        Ok(())
    }
}

fn finish(writer: BlobWriter, blob: &LayerBlob, part: Part) -> Result<()> {
    writer.commit(Some(&blob.digest))?;
    part.finish();
    Ok(())
}

/// A blob's bytes on their way, hashed to be verified at the end.
pub(crate) struct VerifiedReader<R> {
    inner: HashingReader<R>,
    expected: Digest,
}

impl<R: std::io::Read> VerifiedReader<R> {
    pub(crate) fn new(inner: R, expected: Digest) -> Self {
        Self { inner: HashingReader::new(inner), expected }
    }

    /// Reads what is left, and fails where the whole isn't what it should be.
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

fn missing(digest: &Digest) -> Error {
    kiln_store::Error::Missing { what: "blob", name: digest.to_string() }.into()
}

/// Runs work that blocks on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_cancelled() => Err(Error::Cancelled),
        Err(error) => Err(Error::Invalid(format!("internal error: {error}"))),
    }
}
