//! The port to the cache of results.

use std::future::Future;
use std::time::Duration;

use kiln_event::Key;
use kiln_oci::Digest;

/// A store of results by key that outlives the process. The worker implements it over kiln's store.
pub trait Cache: Send + Sync + 'static {
    /// The executor's output type.
    type Output;
    /// A lock on a key. The lock is released when the guard is dropped or the process dies.
    type Guard: Send + 'static;

    /// Returns the canonical key that a definition key is linked to.
    fn canonical(&self, definition: &Key) -> Result<Option<Key>, CacheError>;

    /// Links a definition key to a canonical key.
    fn link(&self, definition: &Key, canonical: &Key) -> Result<(), CacheError>;

    /// Returns the result stored under a canonical key and protects it from garbage collection
    /// while the caller holds it. Returns `None` if the result or a part of it is missing.
    fn load(
        &self,
        key: &Key,
    ) -> impl Future<Output = Result<Option<Vec<Self::Output>>, CacheError>> + Send;

    /// Stores a result under its canonical key, in place of an earlier one.
    fn save(
        &self,
        key: &Key,
        outputs: &[Self::Output],
        record: &KeyRecord,
    ) -> impl Future<Output = Result<(), CacheError>> + Send;

    /// Locks `key`. Waits while another task, in this process or another one, holds the lock.
    fn lock(&self, key: &Key) -> impl Future<Output = Result<Self::Guard, CacheError>> + Send;

    /// Returns how long steps took in earlier builds, in the order of `kinds`. Steps of one kind do
    /// the same work on different inputs. A duration is `None` if the history has no step of the
    /// kind.
    fn durations(&self, kinds: &[Digest]) -> Result<Vec<Option<Duration>>, CacheError>;

    /// Records how long steps of these kinds took.
    fn note_durations(&self, took: &[(Digest, Duration)]) -> Result<(), CacheError>;
}

/// The description that the cache stores beside a result. [`kiln_event::Event::Keyed`] lists the parts
/// of the key, with or without a stored result.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyRecord {
    /// The step's display name.
    pub name: String,
    /// The digest of the op, as `sha256:…`.
    pub op: String,
    /// The canonical key or the content digest of each input, in the op's order.
    pub inputs: Vec<String>,
    /// The step's run time in milliseconds.
    pub duration_ms: u64,
}

/// A failure to read or write the cache.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CacheError(#[from] pub Box<dyn std::error::Error + Send + Sync>);

impl CacheError {
    /// Wraps an error of the cache's storage.
    pub fn new(error: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(error))
    }
}
