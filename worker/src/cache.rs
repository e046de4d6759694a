//! The solver's cache over kiln's store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kiln_event::Key;
use kiln_images::{Origin, open_blob};
use kiln_oci::Digest;
use kiln_solver::{Cache, CacheError, KeyRecord};
use kiln_store::{KeyGuard, LayerId, Store};

use crate::output::Output;

/// The solver's cache over kiln's store. The results that it returns are protected from garbage
/// collection until the store is closed.
#[derive(Clone)]
pub struct StoreCache {
    store: Store,
    redact: Option<Redact>,
}

/// A function that removes sensitive parts from a text.
pub type Redact = Arc<dyn Fn(&str) -> String + Send + Sync>;

impl fmt::Debug for StoreCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreCache").finish_non_exhaustive()
    }
}

impl StoreCache {
    /// Creates a cache over a store.
    pub fn new(store: Store) -> Self {
        Self { store, redact: None }
    }

    /// Sets a function that redacts the names of steps before they are stored. A name may contain
    /// the values of variables.
    #[must_use]
    pub fn redacted(self, redact: Redact) -> Self {
        Self { redact: Some(redact), ..self }
    }

    /// Returns the layers of a record. Returns `None` if a part of them is missing.
    fn layers(&self, key: &Digest) -> Result<Option<Vec<Option<LayerId>>>, kiln_store::Error> {
        let Some(layers) = self.store.cache().get(key)? else {
            return Ok(None);
        };
        for layer in layers.iter().flatten() {
            if !self.can_be_had(layer)? {
                return Ok(None);
            }
        }
        Ok(Some(layers))
    }

    /// Returns `true` if every layer of a chain has a tree or an available blob. A declared layer
    /// may have lost the OCI layout that holds its blob.
    fn can_be_had(&self, top: &LayerId) -> Result<bool, kiln_store::Error> {
        let chain = match self.store.layers().chain(top) {
            // A layer below is missing, so this one is unusable.
            Err(kiln_store::Error::Missing { .. }) => return Ok(false),
            chain => chain?,
        };
        for layer in chain {
            if layer.has_tree {
                continue;
            }
            let mut found = false;
            for blob in self.store.layers().blobs(&layer.id)? {
                found |= self.store.content().size(&blob.digest)?.is_some();
                found |=
                    blob.origin.is_some_and(|origin| is_at(&Origin::parse(&origin), &blob.digest));
            }
            if !found {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Returns `true` if a blob may still be available at its origin.
fn is_at(origin: &Origin, digest: &Digest) -> bool {
    match origin {
        Origin::Layout(directory) => open_blob(directory, digest).is_ok_and(|blob| blob.is_some()),
        Origin::Registry(_) => true,
        Origin::Cache(place) => is_at(place, digest),
        // A build that has the client's store finds the layer again by the cache that lists it.
        Origin::Store | Origin::Client(_) => false,
    }
}

impl Cache for StoreCache {
    type Output = Output;
    type Guard = KeyGuard;

    fn canonical(&self, definition: &Key) -> Result<Option<Key>, CacheError> {
        Ok(self.store.cache().canonical(&definition.0).map_err(CacheError::new)?.map(Key))
    }

    fn link(&self, definition: &Key, canonical: &Key) -> Result<(), CacheError> {
        self.store.cache().link(&definition.0, &canonical.0).map_err(CacheError::new)
    }

    async fn load(&self, key: &Key) -> Result<Option<Vec<Output>>, CacheError> {
        let layers = self.layers(&key.0).map_err(CacheError::new)?;
        Ok(layers.map(|layers| layers.into_iter().map(Output::Layer).collect()))
    }

    async fn save(
        &self,
        key: &Key,
        outputs: &[Output],
        record: &KeyRecord,
    ) -> Result<(), CacheError> {
        let mut layers = Vec::with_capacity(outputs.len());
        for output in outputs {
            match output {
                Output::Layer(layer) => layers.push(layer.clone()),
                // A build context exists only during its build, so it can't be stored.
                Output::Local(_) => return Ok(()),
            }
        }
        let mut record = record.clone();
        if let Some(redact) = &self.redact {
            record.name = redact(&record.name);
        }
        let description = serde_json::to_string(&record).map_err(CacheError::new)?;
        self.store.cache().put(&key.0, &layers, &description).map_err(CacheError::new)
    }

    async fn lock(&self, key: &Key) -> Result<KeyGuard, CacheError> {
        kiln_images::lock(&self.store, &format!("solve-{key}")).await.map_err(CacheError::new)
    }

    fn durations(&self, kinds: &[Digest]) -> Result<Vec<Option<Duration>>, CacheError> {
        self.store.cache().step_durations(kinds).map_err(CacheError::new)
    }

    fn note_durations(&self, took: &[(Digest, Duration)]) -> Result<(), CacheError> {
        self.store.cache().note_step_durations(took).map_err(CacheError::new)
    }
}
