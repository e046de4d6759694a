//! Copies of images between repositories. Existing blobs are skipped, and blobs of the same
//! registry are mounted. Only the others are transferred, through an unnamed temporary file.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use futures_util::future::try_join_all;
use kiln_oci::{Digest, Reference};
use kiln_registry::{BlobSource, BlobUpload, Client, Length, Repository};
use kiln_store::Store;

use super::{Entry, MOST_PARTS, RemoteImage};

/// The most levels of nested indexes.
const DEPTH: u32 = 4;

/// A copier of documents and their contents.
#[derive(Debug)]
pub struct Copier {
    /// The client for both registries.
    pub client: Client,
    /// The store whose temporary area holds blobs in transit.
    pub store: Store,
    /// The documents that were asked for, by where they go, each with how deep it may be nested.
    known: Mutex<HashMap<Repository, HashSet<(Digest, u32)>>>,
}

impl Copier {
    /// Returns a copier that has copied nothing yet.
    pub fn new(client: Client, store: Store) -> Self {
        Self { client, store, known: Mutex::default() }
    }

    /// Copies a document and its contents from one repository to another.
    pub async fn document(&self, entry: &Entry, from: &Repository, to: &Repository) -> Result<()> {
        self.nested(entry, from, to, DEPTH).await
    }

    async fn nested(
        &self,
        entry: &Entry,
        from: &Repository,
        to: &Repository,
        depth: u32,
    ) -> Result<()> {
        if from == to || !self.is_first(to, (entry.digest, depth))? {
            return Ok(());
        }
        if self.client.has_manifest(to, &entry.digest).await? {
            return Ok(());
        }
        let image = RemoteImage::by_digest(&self.client, from, &entry.digest).await?;
        if depth == 0 {
            bail!("{from}@{}: indexes are nested too deeply", entry.digest);
        }
        self.parts(&image, to, depth).await?;
        let name: Reference = format!("{to}@{}", image.digest).parse()?;
        self.client.push_manifest(&name, &image.media_type, image.bytes.into()).await?;
        Ok(())
    }

    /// Returns `true` if a document is copied to a repository for the first time.
    ///
    /// # Errors
    /// Fails after too many documents.
    fn is_first(&self, to: &Repository, document: (Digest, u32)) -> Result<bool> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(to.clone()).or_default();
        let is_first = known.insert(document);
        if known.len() > MOST_PARTS {
            bail!("{to}: more than {MOST_PARTS} images would be copied");
        }
        Ok(is_first)
    }

    /// Copies the contents of a document to a repository.
    pub async fn contents(&self, image: &RemoteImage, to: &Repository) -> Result<()> {
        if image.repository == *to {
            return Ok(());
        }
        self.parts(image, to, DEPTH).await
    }

    async fn parts(&self, image: &RemoteImage, to: &Repository, depth: u32) -> Result<()> {
        let parsed = image.parse()?;
        let from = &image.repository;
        if image.is_index() {
            for part in &parsed.manifests {
                Box::pin(self.nested(part, from, to, depth - 1)).await?;
            }
            return Ok(());
        }
        // Foreign layers are never in a registry.
        let blobs = parsed.layers.iter().chain(&parsed.config).filter(|blob| blob.urls.is_none());
        try_join_all(blobs.map(|blob| self.blob(blob, from, to))).await?;
        Ok(())
    }

    async fn blob(&self, blob: &Entry, from: &Repository, to: &Repository) -> Result<()> {
        if self.client.has_blob(to, &blob.digest).await? {
            return Ok(());
        }
        let sources = std::slice::from_ref(from);
        if self.client.mount_blob(to, &blob.digest, sources).await?.is_some() {
            return Ok(());
        }
        let mut file = self.store.temp_file().context("make a temporary file")?;
        let stream = self.client.blob(from, &blob.digest, Length::Exactly(blob.size)).await?;
        stream.copy_to(&mut file, |_| ()).await?;
        let upload = BlobUpload {
            digest: blob.digest,
            size: blob.size,
            source: BlobSource::File(Arc::new(file)),
            sent: Arc::new(|_| ()),
        };
        self.client.push_blob(to, &upload, sources).await?;
        Ok(())
    }
}
