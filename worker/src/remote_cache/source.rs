//! Where a cache lies, and how its documents are read.

use std::fmt;
use std::path::PathBuf;

use kiln_oci::{Digest, Reference};
use kiln_registry::{Client, Repository};

use super::layout;
use crate::blobs::blocking;
use crate::error::Result;
use crate::source::document::DOCUMENT_LIMIT;
use crate::source::origin::Origin;

/// A cache that results may be taken from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSource {
    /// Where it lies.
    pub place: CachePlace,
    /// Whether cache mounts that aren't here are filled with what it has of them.
    pub mounts: bool,
}

/// Where a cache lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CachePlace {
    /// In a registry, alone or in an image.
    Registry(Reference),
    /// In an OCI layout.
    Layout {
        /// The layout's directory.
        directory: PathBuf,
        /// Its tag.
        tag: String,
        /// The digest of its manifest, in place of the tag.
        digest: Option<Digest>,
    },
}

impl fmt::Display for CachePlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => f.write_str(&reference.familiar()),
            Self::Layout { directory, .. } => write!(f, "{}", directory.display()),
        }
    }
}

/// Reads documents of a cache.
#[derive(Clone, Debug)]
pub(super) enum Reader {
    Registry(Client, Repository),
    Layout(PathBuf),
}

impl Reader {
    /// Returns a reader of a place, and the document that everything begins with.
    pub(super) async fn open(place: &CachePlace, client: &Client) -> Result<(Self, Vec<u8>)> {
        match place {
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

    /// Reads a manifest that another document names.
    pub(super) async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>> {
        match self {
            Self::Registry(client, repository) => {
                Ok(client.manifest(repository, digest).await?.bytes)
            }
            Self::Layout(_) => self.blob(digest, DOCUMENT_LIMIT).await,
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
        }
    }

    /// Returns where blobs of layers are.
    pub(super) fn origin(&self) -> Origin {
        Origin::Cache(Box::new(match self {
            Self::Registry(_, repository) => Origin::Registry(repository.to_string()),
            Self::Layout(directory) => Origin::Layout(directory.clone()),
        }))
    }
}
