//! What caches have promised and couldn't keep.
//!
//! A layer of a cache is downloaded when somebody needs it, long after the cache was believed. Where
//! it then can't be had, or isn't what the cache says, the step that needed it fails; but what was
//! said of the layer is dropped from the store, and noted here. Whoever started the build sees the
//! note and builds once more: without the layer, the steps that made it run.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_oci::Digest;

/// How many broken promises make all others of the same cache worth nothing.
const PATIENCE: usize = 8;

/// A blob that a cache has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LostBlob {
    /// The blob.
    pub digest: Digest,
    /// The cache: a repository or a layout's directory.
    pub place: String,
    /// Why it can't be used.
    pub problem: String,
}

/// The blobs that caches have promised in vain to this process.
#[derive(Debug, Default)]
pub(crate) struct LostBlobs(Mutex<BTreeMap<(String, Digest), Noted>>);

#[derive(Debug)]
struct Noted {
    blob: LostBlob,
    told: bool,
}

impl LostBlobs {
    /// Notes a broken promise.
    pub(crate) fn note(&self, blob: LostBlob) {
        let promise = (blob.place.clone(), blob.digest);
        self.all().entry(promise).or_insert(Noted { blob, told: false });
    }

    /// Returns what was noted since the last time.
    pub(crate) fn take(&self) -> Vec<LostBlob> {
        let mut lost = self.all();
        let new = lost.values_mut().filter(|noted| !noted.told);
        let tell = |noted: &mut Noted| {
            noted.told = true;
            noted.blob.clone()
        };
        new.map(tell).collect()
    }

    /// Tells whether a cache still may promise a blob.
    pub(crate) fn is_believed(&self, place: &str, digest: &Digest) -> bool {
        let lost = self.all();
        let broken = || lost.values().filter(|noted| noted.blob.place == place).count();
        !lost.contains_key(&(place.to_owned(), *digest)) && broken() < PATIENCE
    }

    fn all(&self) -> std::sync::MutexGuard<'_, BTreeMap<(String, Digest), Noted>> {
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
