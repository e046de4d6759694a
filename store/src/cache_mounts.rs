//! Cache mounts: directories that outlive builds.

use std::path::Path;

use crate::error::Result;

/// Who may use a cache mount at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Anybody.
    Shared,
    /// Nobody: a second user gets another directory.
    Private,
    /// Nobody: a second user waits.
    Locked,
}

/// The cache mounts.
#[derive(Clone, Debug)]
pub struct CacheMounts {}

/// A cache mount in use.
#[derive(Debug)]
pub struct CacheMountGuard {}

impl CacheMounts {
    /// Takes the directory of cache mount `id`, made empty where there is none. Blocks the thread
    /// where it is locked. The flag tells whether the directory is new.
    pub fn acquire(&self, id: &str, sharing: Sharing) -> Result<(CacheMountGuard, bool)> {
        let _ = (id, sharing);
        todo!()
    }
}

impl CacheMountGuard {
    /// Returns the directory.
    pub fn path(&self) -> &Path {
        todo!()
    }
}
