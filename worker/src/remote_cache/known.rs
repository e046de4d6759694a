//! The known results of a graph, for export as a cache.

use std::collections::BTreeSet;

use kiln_oci::Digest;
use kiln_oci::cache::CacheLink;
use kiln_solver::{Cache, CacheError, KeyRecord, VertexKeys};
use kiln_store::LayerId;

use super::RemoteCache;
use crate::output::Output;

/// The result of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownResult {
    /// The canonical key of the step.
    pub key: Digest,
    /// The uppermost layer of each output. `None` for an empty file system.
    pub outputs: Vec<Option<LayerId>>,
    /// The step's run time in milliseconds, or 0 if it is unknown.
    pub duration_ms: u64,
}

/// The known results of a graph.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownResults {
    /// The results in the graph's order.
    pub results: Vec<KnownResult>,
    /// The links from definition keys to the keys of results, sorted.
    pub links: Vec<CacheLink>,
}

impl RemoteCache {
    /// Returns the results of a solved graph's vertices that the store or a remote cache has, even
    /// if this build didn't need them. Vertices whose keys belong to one build are left out.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub async fn known(&self, vertices: &[Option<VertexKeys>]) -> Result<KnownResults, CacheError> {
        let mut known = KnownResults::default();
        let (mut seen, mut links) = (BTreeSet::new(), BTreeSet::new());
        for keys in vertices.iter().flatten() {
            let key = keys.canonical.0;
            links.extend(
                keys.definition
                    .map(|definition| CacheLink { definition: definition.0, canonical: key }),
            );
            if !seen.insert(key) {
                continue;
            }
            let Some(outputs) = self.load(&keys.canonical).await? else { continue };
            let layer = |output: &Output| Some(output.layer()?.cloned());
            let layers: Option<Vec<_>> = outputs.iter().map(layer).collect();
            let Some(outputs) = layers else { continue };
            let duration_ms = self.duration(&key)?;
            known.results.push(KnownResult { key, outputs, duration_ms });
        }
        known.links = links.into_iter().collect();
        Ok(known)
    }

    fn duration(&self, key: &Digest) -> Result<u64, CacheError> {
        let description = self.store.cache().description(key).map_err(CacheError::new)?;
        let record = description.and_then(|text| serde_json::from_str::<KeyRecord>(&text).ok());
        Ok(record.map_or(0, |record| record.duration_ms))
    }
}
