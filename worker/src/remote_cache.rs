//! Build caches in registries, images and directories.
//!
//! A [`RemoteCache`] is the solver's cache over kiln's store and any number of remote caches. The
//! store takes precedence. When the solver loads a result that only a remote cache has, the result
//! is recorded in the store: its layers are declared like those of a base image, with the locations
//! of their blobs. Nothing is downloaded before a layer is needed as a tree or a blob.
//!
//! The content of a cache is verified: all documents and blobs are digested on arrival, and a layer
//! must unpack to the diff ID that the cache lists. A missing or different blob is a cache miss
//! ([`kiln_images::LostBlob`]). Verification can't detect a record that gives a wrong result for a key; by naming a
//! cache, the user trusts its records. See `docs/reference/cache.md`.
//!
//! | module | content |
//! | --- | --- |
//! | [`source`] | the locations of caches, and the reading of their documents |
//! | [`layout`] | caches in directories |
//! | [`import`] | the parsing and checking of a cache |
//! | [`known`] | the results of a build, for export |
//! | [`mounts`] | cache mounts in a cache, and in a build |

pub(crate) mod import;
pub(crate) mod known;
pub(crate) mod source;

pub(crate) mod layout;
mod mounts;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_event::{Event, EventSender, Key};
use kiln_images::{Blobs, LostBlobs, Origin};
use kiln_oci::Digest;
use kiln_oci::cache::CacheLayer;
use kiln_solver::{Cache, CacheError, KeyRecord};
use kiln_store::{CachedLayer, KeyGuard, LayerBlob, LayerId, Store};

use crate::cache::StoreCache;
use crate::output::Output;

pub use self::import::ImportedCache;
pub use self::known::{KnownResult, KnownResults};
pub use self::source::{CachePlace, CacheSource};

/// The solver's cache over kiln's store and any number of remote caches.
#[derive(Debug)]
pub struct RemoteCache {
    local: StoreCache,
    store: Store,
    imports: Vec<ImportedCache>,
    lost: Arc<LostBlobs>,
    /// The sender of warnings about unusable parts of a cache.
    events: Option<EventSender>,
    /// The declared layers by import and number.
    declared: Mutex<HashMap<(usize, u32), LayerId>>,
    /// The missing blobs that a warning was sent for.
    told: Mutex<BTreeSet<Digest>>,
}

/// A result in a remote cache, by the numbers of the import and the record.
#[derive(Clone, Copy)]
struct Found {
    import: usize,
    record: usize,
}

impl RemoteCache {
    /// Creates a cache over the store's cache and remote caches. Earlier remote caches take
    /// precedence. `blobs` must belong to the same store and fetches the blobs of the remote
    /// caches.
    pub fn new(
        local: StoreCache,
        imports: Vec<ImportedCache>,
        blobs: &Blobs,
        events: Option<EventSender>,
    ) -> Self {
        Self {
            local,
            store: blobs.store.clone(),
            imports,
            lost: Arc::clone(&blobs.lost),
            events,
            declared: Mutex::default(),
            told: Mutex::default(),
        }
    }

    /// Returns `true` if there are no remote caches.
    pub fn is_local(&self) -> bool {
        self.imports.is_empty()
    }

    /// Finds a usable result in the remote caches.
    fn find(&self, key: &Digest) -> Option<Found> {
        self.imports.iter().enumerate().find_map(|(number, import)| {
            let record = *import.records.get(key)?;
            let tops = import.config.records[record].outputs.iter().flatten();
            let layers = import.layers_below(tops.copied())?;
            let usable = layers.into_iter().all(|at| self.is_usable(import, at));
            usable.then_some(Found { import: number, record })
        })
    }

    /// Returns `true` if the blob of a layer is expected to be available.
    fn is_usable(&self, import: &ImportedCache, number: u32) -> bool {
        let blob = &import.config.layers[number as usize].blob;
        let place = import.origin.strip_prefix(kiln_store::CACHE_ORIGIN).unwrap_or_default();
        if !self.lost.is_believed(place, &blob.digest) {
            return false;
        }
        let Origin::Layout(directory) = Origin::parse(place) else { return true };
        let is_there = self.store.content().size(&blob.digest).is_ok_and(|size| size.is_some())
            || layout::has_cached(&directory, &blob.digest, blob.size);
        if !is_there {
            self.tell_missing(import, &blob.digest);
        }
        is_there
    }

    fn tell_missing(&self, import: &ImportedCache, blob: &Digest) {
        let is_new = self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(*blob);
        if let Some(events) = self.events.as_ref().filter(|_| is_new) {
            let name = &import.name;
            let message = format!("cache {name}: blob {blob} is missing: it is left out");
            events.send(Event::Warning { id: None, message, cause: None });
        }
    }

    /// Records a result of a remote cache in the store.
    fn take_over(&self, key: &Digest, found: Found) -> kiln_store::Result<Vec<Output>> {
        let import = &self.imports[found.import];
        let record = &import.config.records[found.record];
        let mut layers = Vec::with_capacity(record.outputs.len());
        for output in &record.outputs {
            let layer = output.map(|top| self.declare(found.import, top)).transpose()?;
            layers.push(layer.flatten());
        }
        let told = KeyRecord { duration_ms: record.duration_ms, ..KeyRecord::default() };
        let description = serde_json::to_string(&told).unwrap_or_default();
        self.store.cache().put(key, &layers, &description)?;
        Ok(layers.into_iter().map(Output::Layer).collect())
    }

    /// Declares a layer of a cache, and the layers below it, to the store. Returns the layer.
    fn declare(&self, number: usize, top: u32) -> kiln_store::Result<Option<LayerId>> {
        let import = &self.imports[number];
        let (mut below, mut missing) = (None, Vec::new());
        for at in import.chain(top) {
            let known = self.declared().get(&(number, at)).cloned();
            // The layers below an existing layer exist, too.
            if let Some(layer) = known
                && self.store.layers().exists(&layer)?
            {
                below = Some(layer);
                break;
            }
            missing.push(at);
        }
        for at in missing.into_iter().rev() {
            let layer = import.layer(&import.config.layers[at as usize]);
            let layer = self.store.layers().declare_cached(below.as_ref(), &layer)?;
            self.declared().insert((number, at), layer.clone());
            below = Some(layer);
        }
        Ok(below)
    }

    fn declared(&self) -> std::sync::MutexGuard<'_, HashMap<(usize, u32), LayerId>> {
        self.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ImportedCache {
    /// Returns the number of a layer and of those below it, from top to bottom. Imported chains are
    /// finite.
    fn chain(&self, top: u32) -> impl Iterator<Item = u32> {
        let below = |number: &u32| self.config.layers.get(*number as usize)?.parent;
        std::iter::successors(Some(top), below)
    }

    /// Returns the numbers of layers and of all layers below them, without duplicates. Returns
    /// `None` if there are more than a result may have.
    fn layers_below(&self, tops: impl Iterator<Item = u32>) -> Option<BTreeSet<u32>> {
        let mut layers = BTreeSet::new();
        for top in tops {
            let new = self.chain(top).take_while(|at| layers.insert(*at)).count();
            if new > 0 && layers.len() > import::MOST {
                return None;
            }
        }
        Some(layers)
    }

    /// Converts a layer to the store's type.
    fn layer(&self, layer: &CacheLayer) -> CachedLayer {
        CachedLayer {
            diff_id: layer.diff_id,
            created_at: layer.created_at,
            base: layer.base,
            blob: LayerBlob {
                media_type: layer.blob.media_type.clone(),
                digest: layer.blob.digest,
                size: layer.blob.size,
                origin: Some(self.origin.clone()),
            },
        }
    }
}

impl Cache for RemoteCache {
    type Output = Output;
    type Guard = KeyGuard;

    fn canonical(&self, definition: &Key) -> Result<Option<Key>, CacheError> {
        if let Some(known) = self.local.canonical(definition)? {
            return Ok(Some(known));
        }
        let linked = || self.imports.iter().filter_map(|it| it.links.get(&definition.0).copied());
        // A link to a usable result takes precedence.
        let found = linked().find(|canonical| self.find(canonical).is_some());
        let Some(canonical) = found.or_else(|| linked().next()).map(Key) else { return Ok(None) };
        self.local.link(definition, &canonical)?;
        Ok(Some(canonical))
    }

    fn link(&self, definition: &Key, canonical: &Key) -> Result<(), CacheError> {
        self.local.link(definition, canonical)
    }

    async fn load(&self, key: &Key) -> Result<Option<Vec<Output>>, CacheError> {
        if let Some(known) = self.local.load(key).await? {
            return Ok(Some(known));
        }
        let found = self.find(&key.0);
        found.map(|found| self.take_over(&key.0, found)).transpose().map_err(CacheError::new)
    }

    async fn save(
        &self,
        key: &Key,
        outputs: &[Output],
        record: &KeyRecord,
    ) -> Result<(), CacheError> {
        self.local.save(key, outputs, record).await
    }

    async fn lock(&self, key: &Key) -> Result<KeyGuard, CacheError> {
        self.local.lock(key).await
    }

    fn durations(&self, kinds: &[Digest]) -> Result<Vec<Option<Duration>>, CacheError> {
        self.local.durations(kinds)
    }

    fn note_durations(&self, took: &[(Digest, Duration)]) -> Result<(), CacheError> {
        self.local.note_durations(took)
    }
}

#[cfg(test)]
mod tests;
