//! The store as a whole.

use std::path::Path;
use std::sync::Arc;

use crate::cache::CacheIndex;
use crate::cache_mounts::CacheMounts;
use crate::content::Content;
use crate::error::Result;
use crate::images::Images;
use crate::layers::Layers;
use crate::lease::Lease;
use crate::lock::KeyGuard;
use crate::volumes::Volumes;

/// The store of a root directory. Cheap to clone; any number of processes may have it open.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {}

impl Store {
    /// Opens the store at `root`, makes it where there is none, and sweeps up what dead processes
    /// left in `tmp/`.
    ///
    /// # Errors
    /// Fails where the directory can't be made or read, or was written by a newer kiln.
    pub fn open(root: &Path) -> Result<Self> {
        let _ = root;
        todo!()
    }

    /// Returns the root directory.
    pub fn root(&self) -> &Path {
        let _ = &self.inner;
        todo!()
    }

    /// Returns the blobs.
    pub fn content(&self) -> Content {
        todo!()
    }

    /// Returns the layers.
    pub fn layers(&self) -> Layers {
        todo!()
    }

    /// Returns the images.
    pub fn images(&self) -> Images {
        todo!()
    }

    /// Returns the cache records.
    pub fn cache(&self) -> CacheIndex {
        todo!()
    }

    /// Returns the cache mounts.
    pub fn cache_mounts(&self) -> CacheMounts {
        todo!()
    }

    /// Returns the volumes.
    pub fn volumes(&self) -> Volumes {
        todo!()
    }

    /// Returns a new lease: what is added to it isn't collected while it lives.
    pub fn lease(&self) -> Result<Lease> {
        todo!()
    }

    /// Waits until nobody else, in this process or another, holds `key`. Blocks the thread.
    pub fn lock(&self, key: &str) -> Result<KeyGuard> {
        let _ = key;
        todo!()
    }

    /// Takes `key` if nobody holds it.
    pub fn try_lock(&self, key: &str) -> Result<Option<KeyGuard>> {
        let _ = key;
        todo!()
    }

    /// Returns a fresh directory in this process's part of `tmp/`; it goes with the process.
    pub fn temp_dir(&self) -> Result<std::path::PathBuf> {
        todo!()
    }
}
