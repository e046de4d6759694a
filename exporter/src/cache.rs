//! Portable build caches: a build's results in a directory or a registry.
//!
//! A cache is a manifest. The config lists layers, results, links between keys, and cache mounts
//! ([`kiln_oci::cache`], `docs/reference/cache.md`). The manifest's layers are the blobs of the
//! listed layers and mounts. They are packed like the layers of images, several at once. A layer
//! that already has a blob with the requested compression isn't packed again, and a layer of a base
//! image keeps its blob. A blob that goes to a registry and is in one already is mounted there,
//! without a download.
//!
//! | module | task |
//! | --- | --- |
//! | [`spec`] | parses the values of `--cache-to` and `--cache-from` |
//! | `contents` | packs the layers and mounts of a cache |
//! | `document` | creates the config and the manifest |
//! | `directory` | writes a cache into a directory |
//! | `inline` | describes an image's own layers in its config |

pub(crate) mod spec;

mod contents;
mod directory;
mod document;
mod inline;

use kiln_oci::cache::CacheLink;
use kiln_oci::{Descriptor, Digest};
use kiln_registry::Repository;
use kiln_store::LayerId;

use self::contents::Contents;
use self::document::Documents;
use self::spec::{CacheTarget, CacheTo};
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::push::{PushBlob, PushContext, Shipment, push};

pub use self::inline::inline_cache;

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedResult {
    /// The canonical key of the result.
    pub key: Digest,
    /// The uppermost layer of each output. `None` for an empty file system.
    pub outputs: Vec<Option<LayerId>>,
    /// The step's run time in milliseconds, or 0 if it is unknown.
    pub duration_ms: u64,
}

/// The results, links and mounts to export as a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheRequest {
    /// The results of steps.
    pub results: Vec<CachedResult>,
    /// The links from definition keys to the keys of results.
    pub links: Vec<CacheLink>,
    /// The IDs of cache mounts.
    pub mounts: Vec<String>,
}

/// The outcome of a cache export.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CacheExported {
    /// The digest of the manifest or index.
    pub digest: Option<Digest>,
    /// The descriptor of the manifest or index.
    pub manifest: Option<Descriptor>,
    /// The layers and mounts that the cache lacks, each with the reason.
    pub left_out: Vec<String>,
}

/// Writes a cache to a directory or a registry. The export of images writes an inline cache.
///
/// # Errors
/// Fails if the target can't be written, or if packing fails for a reason other than a missing or
/// damaged layer or mount.
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
            let (store, fetcher) = (context.store, context.fetcher);
            let context = PushContext { store, remote, fetcher, progress };
            let shipment = shipment(&contents, &documents);
            push(
                &shipment,
                &Repository::from(reference),
                std::slice::from_ref(reference),
                &context,
            )?;
        }
        CacheTarget::Receiver(sink) => {
            for blob in contents.blobs() {
                sink.blob(context.store, &blob.digest, blob.size)?;
            }
            sink.document(&documents.config)?;
            sink.document(&documents.manifest)?;
        }
        CacheTarget::Inline => {}
    }
    let name = format!("writing cache manifest {}", documents.manifest.digest);
    progress.status(&name, 0, None, true);
    Ok(CacheExported {
        digest: Some(documents.manifest.digest),
        manifest: Some(documents.manifest.descriptor),
        left_out: contents.left_out,
    })
}

/// Returns the blobs and documents to push.
fn shipment(contents: &Contents, documents: &Documents) -> Shipment {
    let mut shipment = Shipment::default();
    for blob in contents.blobs() {
        let (digest, size, media_type) = (blob.digest, blob.size, blob.media_type.clone());
        shipment.add(PushBlob { digest, size, media_type, bytes: None, is_layer: true });
    }
    shipment.add_blob(&documents.config);
    shipment.add_document(&documents.manifest);
    shipment
}
