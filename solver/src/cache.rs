//! The port to what is known already.

use std::future::Future;
use std::time::Duration;

use kiln_oci::Digest;

use crate::key::Key;

/// Keeps results by key, beyond the process. Implemented by the worker over the store.
pub trait Cache: Send + Sync + 'static {
    /// The executor's output.
    type Output;
    /// Held while a key is worked on; freed when dropped, and when the process dies.
    type Guard: Send + 'static;

    /// Returns the canonical key that a definition key was linked to.
    fn canonical(&self, definition: &Key) -> Result<Option<Key>, CacheError>;

    /// Links a definition key to a canonical key.
    fn link(&self, definition: &Key, canonical: &Key) -> Result<(), CacheError>;

    /// Returns the result stored under a canonical key, and keeps it from being collected as long
    /// as it is held. `None` where there is none, or where part of it is gone.
    fn load(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Vec<Self::Output>>, CacheError>> + Send;

    /// Stores a result under its canonical key.
    fn save(
        &self,
        key: &Key,
        outputs: &[Self::Output],
        record: &KeyRecord,
    ) -> impl Future<Output = Result<(), CacheError>> + Send;

    /// Waits until nobody else, in this process or another, works on `key`.
    fn lock(&self, key: &Key) -> impl Future<Output = Result<Self::Guard, CacheError>> + Send;

    /// Returns how long steps took before, in the order of `kinds`: a kind is what steps have in
    /// common that do the same with whatever inputs. `None` where nobody knows.
    fn durations(&self, kinds: &[Digest]) -> Result<Vec<Option<Duration>>, CacheError>;

    /// Remembers how long steps of these kinds took.
    fn note_durations(&self, took: &[(Digest, Duration)]) -> Result<(), CacheError>;
}

/// What is said about a result. What its key was made of is told by [`crate::Event::Keyed`], whether
/// there is a result or not.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyRecord {
    /// The step's name.
    pub name: String,
    /// The op's digest.
    pub op: String,
    /// For each input: its canonical key, or its content digest.
    pub inputs: Vec<String>,
    /// How long the step ran, in milliseconds.
    pub duration_ms: u64,
}

/// Why the cache can't answer.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct CacheError(#[from] pub Box<dyn std::error::Error + Send + Sync>);
