//! The calls of this floor to those above it.

use std::fmt;
use std::sync::Arc;

use super::Room;
use crate::db::Index;
use crate::error::Result;

/// The part of the floors above in making room and in closing the store.
pub(crate) trait Keeper: fmt::Debug + Send + Sync {
    /// Writes what is kept in memory to the index, before the store is closed.
    fn flush(&self, index: &Index) -> Result<()>;

    /// Returns the disk space in bytes of everything without a row in the index.
    fn unrecorded_bytes(&self, room: &Room) -> Result<u64>;

    /// Frees `wanted` bytes, or as many as possible. Returns the number of bytes freed. Removes
    /// nothing from the cache if that wouldn't free at least `least` bytes.
    fn evict(&self, room: &Arc<Room>, least: u64, wanted: u64) -> Result<u64>;
}
