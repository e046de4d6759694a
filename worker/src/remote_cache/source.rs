//! The locations of caches, and the reading of their documents.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use kiln_images::{BlobStores, Blobs, DOCUMENT_LIMIT, Origin, blocking};
use kiln_oci::{Digest, Reference};
use kiln_registry::{Client, Repository};

use super::layout;
use crate::error::Result;

/// A cache that a build imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSource {
    /// The location of the cache.
    pub place: CachePlace,
    /// `true` if missing cache mounts are filled from the cache.
    pub mounts: bool,
}

/// The location of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// A repository of a registry, with a cache manifest or an image with an inline cache.
    Registry(Reference),
    /// An OCI layout in a directory.
    Layout {
        /// The directory of the layout.
        directory: PathBuf,
        /// The tag of the cache in the layout.
        tag: String,
        /// The digest of the manifest. It takes precedence over the tag.
        digest: Option<Digest>,
    },
    /// A store of blobs that the caller has registered.
    Client {
        /// The name of the store.
        store: String,
        /// The digest of the manifest.
        digest: Digest,
    },
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Layout { directory, .. } => write!(f, "{}", directory.display()),
            Self::Client { digest, .. } => write!(f, "local:{}", digest.hex()),
        }
    }
}

/// A reader of a cache's documents.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    Registry(Client, Repository),
    Layout(PathBuf),
    Client(Arc<BlobStores>, String),
}

impl Reader {
    /// Returns a reader of a location, and the bytes of its manifest or index.
    pub(super) async fn open(place: &CachePlace, blobs: &Blobs) -> Result<(Self, Vec<u8>)> {
        let client = blobs.client();
        match place {
            CachePlace::Client { store, digest } => {
                let reader = Self::Client(Arc::clone(&blobs.stores), store.clone());
                let bytes = reader.blob(digest, DOCUMENT_LIMIT).await?;
                Ok((reader, bytes))
            }
            CachePlace::Registry(reference) => {
                let found = client.resolve(reference).await?;
                Ok((Self::Registry(client.clone(), Repository::from(reference)), found.bytes))
            }
            CachePlace::Layout { directory, tag, digest } => {
                let (directory, tag, digest) = (directory.clone(), tag.clone(), *digest);
                blocking(move || {
                    let directory = layout::absolute(&directory)?;
                    let digest = match digest {
                        Some(digest) => digest,
                        None => layout::find_tag(&directory, &tag)?,
                    };
                    let bytes = layout::read_cached(&directory, &digest, DOCUMENT_LIMIT)?;
                    Ok((Self::Layout(directory), bytes))
                })
                .await
            }
        }
    }

    /// Reads a manifest that another document refers to.
    pub(super) async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        match self {
            Self::Registry(client, repository) => {
                Ok(client.manifest(repository, digest).await?.bytes)
            }
            Self::Layout(_) | Self::Client(..) => self.blob(digest, DOCUMENT_LIMIT).await,
        }
    }

    /// Reads a blob of at most `limit` bytes.
    pub(super) async fn blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        match self {
            Self::Registry(client, repository) => {
                Ok(client.small_blob(repository, digest, limit).await?)
            }
            Self::Layout(directory) => {
                let (directory, digest) = (directory.clone(), *digest);
                blocking(move || layout::read_cached(&directory, &digest, limit)).await
            }
            Self::Client(stores, name) => {
                let (stores, name, digest) = (Arc::clone(stores), name.clone(), *digest);
                blocking(move || Ok(stores.read(&name, &digest, limit)?)).await
            }
        }
    }

    /// Returns those of some blobs that are missing for certain, or have another size. A client
    /// answers quickly, and a later surprise would fail a step.
    pub(super) async fn missing(&self, blobs: Vec<(Digest, u64)>) -> Result<BTreeSet<Digest>> {
        let Self::Client(stores, name) = self else { return Ok(BTreeSet::new()) };
        let (stores, name) = (Arc::clone(stores), name.clone());
        let look = move || {
            let mut missing = BTreeSet::new();
            for (digest, size) in blobs {
                if !missing.contains(&digest)
                    && stores.open(&name, &digest)?.is_none_or(|(found, _)| found != size)
                {
                    missing.insert(digest);
                }
            }
            Ok(missing)
        };
        blocking(look).await
    }

    /// Returns the origin of the cache's blobs.
    pub(super) fn origin(&self) -> Origin {
        Origin::Cache(Box::new(match self {
            Self::Registry(_, repository) => Origin::Registry(repository.to_string()),
            Self::Layout(directory) => Origin::Layout(directory.clone()),
            Self::Client(_, name) => Origin::Client(name.clone()),
        }))
    }
}
