//! Build caches that travel: what a build knows, in a directory or a registry.
//!
//! A cache is a manifest whose config lists layers, results, links between keys and cache mounts
//! ([`kiln_oci::cache`], `docs/reference/cache.md`), and whose layers are the blobs of these. Layers are packed
//! as those of images are, several at once: one that has a blob with the wanted compression is not
//! packed again, and one of a base image stays as it came. What goes to a registry and is at one
//! already is mounted there, and not fetched.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`spec`] | caches out of what is typed after `--cache-to` and `--cache-from` |
//! | `contents` | which layers and mounts a cache has, packed |
//! | `document` | its config and manifest |
//! | `directory` | writing it into a directory |
//! | `inline` | what an image says of its own layers |

pub mod spec;

mod contents;
mod directory;
mod document;
mod inline;

use bytes::Bytes;
use kiln_oci::cache::CacheLink;
use kiln_oci::{Digest, media_type};
use kiln_registry::Repository;
use kiln_store::LayerId;

use self::contents::Contents;
use self::document::Documents;
use self::spec::{CacheTarget, CacheTo};
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::push::{Document, Freight, PushContext, Shipment, push};
use crate::registry::Told;

pub use self::inline::inline_cache;

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResult {
    /// The key that it is stored under.
    pub key: Digest,
    /// For each output its uppermost layer; `None` for an empty file system.
    pub outputs: Vec<Option<LayerId>>,
    /// How long the step took, in milliseconds; 0 where nobody knows.
    pub duration_ms: u64,
}

/// What is to be in a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRequest {
    /// Results of steps.
    pub results: Vec<CachedResult>,
    /// Keys that lead to keys of results.
    pub links: Vec<CacheLink>,
    /// Keys of cache mounts.
    pub mounts: Vec<String>,
}

/// A cache that was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheExported {
    /// The digest of its manifest, or of its index.
    pub digest: Option<Digest>,
    /// What could not be had and isn't in it, and why.
    pub left_out: Vec<String>,
}

/// Writes a cache into a directory or a registry. An inline cache is the images' matter.
///
/// # Errors
/// Fails where the target can't be written, and where something can't be packed for want of room.
pub fn export_cache(
    request: &CacheRequest,
    to: &CacheTo,
    context: &ExportContext<'_>,
) -> Result<CacheExported> {
    let progress = context.progress;
    progress.status("preparing build cache for export", 0, None, false);
    let contents = Contents::pack(request, to, context)?;
    let documents = Documents::new(request, &contents, to)?;
    progress.status("preparing build cache for export", 0, None, true);
    match &to.target {
        CacheTarget::Local { dest, tag } => {
            progress.status("writing cache to directory", 0, None, false);
            directory::write(&contents, &documents, dest, tag, context)?;
            progress.status("writing cache to directory", 0, None, true);
        }
        CacheTarget::Registry { reference } => {
            let problem =
                || Error::Unsupported("there is nobody to speak to registries".to_owned());
            let remote = context.remote.ok_or_else(problem)?;
            let observer = Told(progress);
            let (store, fetcher) = (context.store, context.fetcher);
            let context = PushContext { store, remote, fetcher, observer: &observer };
            let shipment = shipment(&contents, &documents);
            push(
                &shipment,
                &Repository::from(reference),
                std::slice::from_ref(reference),
                &context,
            )?;
        }
        CacheTarget::Inline => {}
    }
    let name = format!("writing cache manifest {}", documents.manifest.digest);
    progress.status(&name, 0, None, true);
    Ok(CacheExported { digest: Some(documents.manifest.digest), left_out: contents.left_out })
}

/// Returns what is to be in the repository.
fn shipment(contents: &Contents, documents: &Documents) -> Shipment {
    let mut shipment = Shipment::default();
    let mut add = |digest, size, media_type: &str, bytes: Option<Bytes>| {
        let (media_type, is_layer) = (media_type.to_owned(), bytes.is_none());
        if !shipment.freight.iter().any(|known| known.digest == digest) {
            shipment.freight.push(Freight { digest, size, media_type, bytes, is_layer });
        }
    };
    for blob in contents.blobs() {
        add(blob.digest, blob.size, &blob.media_type, None);
    }
    let config = &documents.config;
    let size = config.bytes.len() as u64;
    add(config.digest, size, media_type::CACHE_CONFIG, Some(Bytes::from(config.bytes.clone())));
    let Documents { manifest, .. } = documents;
    shipment.documents.push(Document {
        digest: manifest.digest,
        media_type: manifest.media_type.to_owned(),
        bytes: Bytes::from(manifest.bytes.clone()),
    });
    shipment
}
