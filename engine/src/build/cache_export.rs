//! Export of the build cache for other stores: `--cache-to`.

use std::collections::BTreeSet;

use anyhow::{Context, Result, anyhow};
use kiln_event::{Cause, Event};
use kiln_exporter::{
    CacheExported, CacheRequest, CacheTarget, CacheTo, CachedResult, ImageSource, inline_cache,
};
use kiln_llb::Graph;
use kiln_oci::cache::INLINE_CACHE;
use kiln_oci::error::chain;
use kiln_solver::VertexKeys;
use kiln_store::{LayerId, Store};
use kiln_worker::{KnownResults, RemoteCache};

use super::session::Session;

/// The most attempts at an export if a cache that the build imported has lost blobs.
const ATTEMPTS: usize = 3;

/// The results of a build's steps, as far as the cache has them.
pub(super) struct Cacheable<'a> {
    /// The graph; `None` for images without files.
    pub(super) graph: Option<&'a Graph>,
    /// The cache keys of the graph's vertices.
    pub(super) keys: &'a [Option<VertexKeys>],
    /// The cache that holds the results.
    pub(super) cache: &'a RemoteCache,
}

impl Session<'_> {
    /// Embeds the cache records of an image's layers in its config if the user requests it. Removes
    /// the records that the image inherited from its base.
    pub(super) async fn inline(
        &self,
        images: &mut [ImageSource],
        made: &Cacheable<'_>,
    ) -> Result<()> {
        for image in &mut *images {
            image.config.other.remove(INLINE_CACHE);
        }
        if !self.request.caches.is_inline() {
            return Ok(());
        }
        let request = request(made.cache.known(made.keys).await.map_err(|error| anyhow!(error))?);
        for image in images {
            let inline = inline_cache(&self.tools.store, image.layer.as_ref(), &request);
            let inline = serde_json::to_value(inline.context("tell what is cached in the image")?)?;
            image.config.other.insert(INLINE_CACHE.to_owned(), inline);
        }
        Ok(())
    }

    /// Exports the requested caches. `tops` are the top layers of the images.
    pub(super) async fn export_caches(&self, made: &Cacheable<'_>, tops: &[LayerId]) -> Result<()> {
        for to in self.request.caches.to.iter().filter(|to| to.target != CacheTarget::Inline) {
            match self.export_cache(to, made, tops).await {
                Ok(exported) => {
                    for problem in exported.left_out {
                        self.warn(&format!("not in the exported cache: {problem}"));
                    }
                }
                Err(error) if to.ignore_error && !self.cancel.is_cancelled() => {
                    let message = format!("the cache is not exported: {}", chain(error.as_ref()));
                    let cause = Some(Cause::new(error));
                    self.events.send(Event::Warning { id: None, message, cause });
                }
                Err(error) => return Err(error.context("export the cache")),
            }
        }
        Ok(())
    }

    async fn export_cache(
        &self,
        to: &CacheTo,
        made: &Cacheable<'_>,
        tops: &[LayerId],
    ) -> Result<CacheExported> {
        let mut attempt = 1;
        loop {
            let known = made.cache.known(made.keys).await.map_err(|error| anyhow!(error))?;
            let mut request = request(known);
            if !to.is_max {
                keep_the_least(&self.tools.store, &mut request, tops)?;
            }
            if let (true, Some(graph)) = (to.mounts, made.graph) {
                let used = self.tools.worker.used_mounts(graph, made.keys, made.cache).await;
                request.mounts = used.context("look for cache mounts")?;
            }
            match self.exporting().export_cache(request, to.clone()).await {
                Err(_) if attempt < ATTEMPTS && self.may_try_again() => attempt += 1,
                ended => return ended,
            }
        }
    }
}

/// Drops the results of which no output is a layer of the images. A step may have other outputs,
/// such as the root file system of a step whose mount is the result.
pub(super) fn keep_the_least(
    store: &Store,
    request: &mut CacheRequest,
    tops: &[LayerId],
) -> Result<()> {
    let mut layers = BTreeSet::new();
    for top in tops {
        layers.extend(store.layers().chain(top)?.into_iter().map(|layer| layer.id));
    }
    request.results.retain(|result| {
        let mut outputs = result.outputs.iter().flatten().peekable();
        outputs.peek().is_none() || outputs.any(|output| layers.contains(output))
    });
    Ok(())
}

/// Returns the request to export known results.
pub(super) fn request(known: KnownResults) -> CacheRequest {
    let result = |result: kiln_worker::KnownResult| CachedResult {
        key: result.key,
        outputs: result.outputs,
        duration_ms: result.duration_ms,
    };
    let results = known.results.into_iter().map(result).collect();
    CacheRequest { results, links: known.links, mounts: Vec::new() }
}
