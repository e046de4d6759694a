//! The work on the store as a whole: recovery, garbage collection, pruning, checks, the account of
//! disk space, and watches on the output of programs.

pub(crate) mod check;
pub(crate) mod gc;
mod inventory;
pub(crate) mod prune;
pub(crate) mod recovery;
mod tree_sizes;
pub(crate) mod usage;
pub(crate) mod watch;

use std::sync::Arc;

use crate::builds::Builds;
use crate::cache::Uses;
use crate::content::Content;
use crate::content::images::Images;
use crate::content::volumes::Volumes;
use crate::db::Index;
use crate::error::Result;
use crate::layers::Layers;
use crate::room::{Keeper, Room};

/// The work on an open store.
#[derive(Clone, Debug)]
pub(crate) struct Upkeep {
    room: Arc<Room>,
    images: Images,
    layers: Layers,
    uses: Arc<Uses>,
}

impl Upkeep {
    /// Returns a handle for the work on a store, given its other handles.
    pub(crate) fn new(
        room: &Arc<Room>,
        images: &Images,
        layers: &Layers,
        uses: &Arc<Uses>,
    ) -> Self {
        let (room, uses) = (room.clone(), uses.clone());
        Self { room, images: images.clone(), layers: layers.clone(), uses }
    }

    /// Flushes everything that any process has stored so far to the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        recovery::sync(&self.room, &self.uses)
    }

    fn content(&self) -> Content {
        Content::new(&self.room)
    }

    fn volumes(&self) -> Volumes {
        Volumes::new(&self.room)
    }

    fn builds(&self) -> Builds {
        Builds::new(&self.room)
    }
}

/// The part of upkeep that the room calls to make room and to close the store.
#[derive(Debug)]
pub(crate) struct StoreKeeper {
    uses: Arc<Uses>,
}

impl StoreKeeper {
    pub(crate) fn new(uses: &Arc<Uses>) -> Self {
        Self { uses: uses.clone() }
    }
}

impl Keeper for StoreKeeper {
    fn flush(&self, index: &Index) -> Result<()> {
        self.uses.flush(index)
    }

    fn unrecorded_bytes(&self, room: &Room) -> Result<u64> {
        usage::unrecorded_bytes(room)
    }

    fn evict(&self, room: &Arc<Room>, least: u64, wanted: u64) -> Result<u64> {
        prune::evict(room, &self.uses, least, wanted)
    }
}
