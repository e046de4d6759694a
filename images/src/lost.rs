//! The blobs that caches list but can't provide.
//!
//! A layer of a cache is downloaded when a step needs it, long after the import of the cache. If
//! the blob is missing or differs from the cache's description, that step fails. The store then
//! drops all cache records about the blob, and the blob is noted here. The caller of the build
//! checks the notes and builds again: without the cached layer, the steps that create it run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_oci::Digest;

/// The number of lost blobs after which a cache isn't used any more.
const PATIENCE: usize = 8;

/// A blob that a cache lists but can't provide.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBlob {
    /// The digest of the blob.
    pub digest: Digest,
    /// The location of the cache: a repository or the directory of a layout.
    pub place: String,
    /// The reason why the blob can't be used.
    pub problem: String,
}

/// The lost blobs that this process has noticed.
#[derive(Debug, Default)]
pub struct LostBlobs(Mutex<BTreeMap<(String, Digest), LostRecord>>);

#[derive(Debug)]
struct LostRecord {
    blob: LostBlob,
    told: bool,
}

impl LostBlobs {
    /// Adds a lost blob.
    pub(crate) fn note(&self, blob: LostBlob) {
        let promise = (blob.place.clone(), blob.digest);
        self.all().entry(promise).or_insert(LostRecord { blob, told: false });
    }

    /// Returns the blobs that were added since the last call.
    pub(crate) fn take(&self) -> Vec<LostBlob> {
        let mut lost = self.all();
        let new = lost.values_mut().filter(|noted| !noted.told);
        let tell = |noted: &mut LostRecord| {
            noted.told = true;
            noted.blob.clone()
        };
        new.map(tell).collect()
    }

    /// Returns `true` if a cache may still provide a blob.
    pub fn is_believed(&self, place: &str, digest: &Digest) -> bool {
        let lost = self.all();
        let broken = || lost.values().filter(|noted| noted.blob.place == place).count();
        !lost.contains_key(&(place.to_owned(), *digest)) && broken() < PATIENCE
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, Digest), LostRecord>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_has_an_end() {
        let lost = LostBlobs::default();
        let digest = |number: usize| Digest::of(&[number as u8]);
        let blob = |number| LostBlob {
            digest: digest(number),
            place: "cache".to_owned(),
            problem: String::new(),
        };
        lost.note(blob(0));
        assert!(!lost.is_believed("cache", &digest(0)) && lost.is_believed("other", &digest(0)));
        assert!(lost.is_believed("cache", &digest(99)));
        assert_eq!(lost.take(), [blob(0)]);
        (0..PATIENCE).for_each(|number| lost.note(blob(number)));
        assert_eq!(lost.take().len(), PATIENCE - 1, "each is told of once");
        assert!(!lost.is_believed("cache", &digest(99)) && lost.is_believed("other", &digest(99)));
    }
}
