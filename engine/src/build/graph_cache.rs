//! External caches of builds whose graphs the caller makes.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use kiln_event::EventSender;
use kiln_exporter::{CacheExported, CacheRequest, CacheTo, ImageSource, inline_cache};
use kiln_images::BlobStore;
use kiln_oci::cache::INLINE_CACHE;
use kiln_oci::error::chain;
use kiln_solver::VertexKeys;
use kiln_store::LayerId;
use kiln_worker::{CacheSource, ImportedCache, RemoteCache};
use tokio::sync::OnceCell;

use super::cache_export::{keep_the_least, request};
use super::graph_build::GraphBuild;
use super::spec::OutputStream;
use super::step::Step;

/// The most attempts at an export if a cache that the build imported has lost blobs.
const ATTEMPTS: usize = 3;

/// The imported caches of a build.
#[derive(Debug, Default)]
pub(super) struct GraphCaches {
    imports: Mutex<Vec<Arc<Import>>>,
    /// The cache over the store and the imports, with the number of imports that it has.
    cache: tokio::sync::Mutex<Option<(usize, Arc<RemoteCache>)>>,
}

/// A cache that is imported once. It is `None` if it can't be read.
#[derive(Debug)]
struct Import {
    source: CacheSource,
    imported: OnceCell<Option<ImportedCache>>,
}

impl GraphCaches {
    /// Returns the caches of a build whose caches are imported already.
    pub(super) fn of(cache: Arc<RemoteCache>) -> Self {
        let cache = tokio::sync::Mutex::new(Some((0, cache)));
        Self { imports: Mutex::default(), cache }
    }
}

impl GraphBuild {
    /// Registers a store of blobs of the caller, which sources and caches of the build name.
    pub fn add_store(&self, name: &str, store: Arc<dyn BlobStore>) {
        self.tools.resolver.stores().add(name, store);
    }

    /// Imports a cache for the graphs that are solved later, of all platforms. A cache that can't be read is skipped:
    /// the build runs without it. Does nothing for a cache that is imported already.
    pub async fn import(&self, source: &CacheSource, events: &EventSender) {
        let import = {
            let mut imports = self.caches.imports.lock().unwrap_or_else(PoisonError::into_inner);
            let known = imports.iter().find(|import| import.source == *source).cloned();
            known.unwrap_or_else(|| {
                let import = Import { source: source.clone(), imported: OnceCell::new() };
                let import = Arc::new(import);
                imports.push(Arc::clone(&import));
                import
            })
        };
        let read = || async {
            let name = format!("importing cache manifest from {}", source.place);
            let step = Step::begin(events, name);
            let images = &self.tools.resolver;
            let read = tokio::select! {
                read = ImportedCache::read(images, source, None, None) => read,
                () = self.cancel.cancelled() => {
                    step.cancel();
                    return None;
                }
            };
            step.end(read.map_err(|error| chain(&error))).ok()
        };
        import.imported.get_or_init(read).await;
    }

    /// Returns the cache over the store and the imports.
    pub(super) async fn cache(&self) -> Arc<RemoteCache> {
        let mut cache = self.caches.cache.lock().await;
        let imports = self.caches.imports.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let imports: Vec<ImportedCache> =
            imports.iter().filter_map(|import| import.imported.get().cloned().flatten()).collect();
        if let Some((number, cache)) = &*cache
            && *number == imports.len()
        {
            return Arc::clone(cache);
        }
        let (number, blobs) = (imports.len(), self.tools.resolver.blobs());
        let new = Arc::new(RemoteCache::new(self.tools.cache(), imports, &blobs, None));
        *cache = Some((number, Arc::clone(&new)));
        new
    }

    /// Returns `true` if a retry may succeed: a cache has lost blobs that it listed, and the retry
    /// doesn't use them.
    pub(super) fn has_lost_blobs(&self) -> bool {
        let lost = self.tools.resolver.blobs().take_lost();
        for blob in &lost {
            tracing::warn!(place = blob.place, blob = %blob.digest, problem = blob.problem,
                "a cache has lost a blob");
        }
        !lost.is_empty() && !self.cancel.is_cancelled()
    }

    /// Returns the known results of graphs with these keys, as the input of a cache export.
    async fn known(&self, keys: &[Option<VertexKeys>]) -> Result<CacheRequest> {
        let known = self.cache().await.known(keys).await.map_err(|error| anyhow!(error))?;
        Ok(request(known))
    }

    /// Removes the cache records that images have inherited from their bases. With `is_wanted`, the
    /// configs get the records of the images' layers. `keys` are those of the images' graphs.
    ///
    /// # Errors
    /// Fails if the store can't be read.
    pub async fn inline(
        &self,
        images: &mut [ImageSource],
        keys: &[Option<VertexKeys>],
        is_wanted: bool,
    ) -> Result<()> {
        let request = if is_wanted { Some(self.known(keys).await?) } else { None };
        for image in images {
            image.config.other.remove(INLINE_CACHE);
            let Some(request) = &request else { continue };
            let inline = inline_cache(&self.tools.store, image.layer.as_ref(), request);
            let inline = serde_json::to_value(inline.context("list the cached layers")?)?;
            image.config.other.insert(INLINE_CACHE.to_owned(), inline);
        }
        Ok(())
    }

    /// Exports a cache. `keys` are those of the result's graphs, and `tops` the uppermost layers of
    /// the result. Does nothing if nothing can be cached.
    ///
    /// # Errors
    /// Fails if the cache can't be written.
    pub async fn export_cache(
        &self,
        to: &CacheTo,
        keys: &[Option<VertexKeys>],
        tops: &[LayerId],
        events: &EventSender,
    ) -> Result<CacheExported> {
        let mut attempt = 1;
        loop {
            let mut request = self.known(keys).await?;
            if !to.is_max {
                keep_the_least(&self.tools.store, &mut request, tops)?;
            }
            if request.results.is_empty() {
                return Ok(CacheExported::default());
            }
            let exporting = self.exporting(OutputStream::default(), events.clone());
            match exporting.export_cache(request, to.clone()).await {
                Err(_) if attempt < ATTEMPTS && self.has_lost_blobs() => attempt += 1,
                ended => return ended,
            }
        }
    }
}
