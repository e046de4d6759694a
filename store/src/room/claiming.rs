//! Claims on room for data that copies and unpacking write.

use std::io;
use std::sync::Arc;

use super::Room;
use super::cap::Claim;

/// A claim on room in the store for data that is written below a directory.
#[derive(Debug)]
pub(crate) struct Claiming {
    room: Arc<Room>,
    claim: Arc<Claim>,
}

impl Claiming {
    pub(crate) fn new(room: &Arc<Room>, claim: &Arc<Claim>) -> Self {
        Self { room: room.clone(), claim: claim.clone() }
    }
}

impl kiln_tree::Room for Claiming {
    fn take(&self, bytes: u64) -> io::Result<()> {
        self.claim.add(&self.room, bytes).map_err(io::Error::other)
    }
}
