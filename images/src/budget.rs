//! The budget of threads and memory that all packing of a process shares.
//!
//! | resource | limit |
//! | --- | --- |
//! | threads that hash and compress | rayon's: one per processor or the number in `--threads`; and as many low-priority threads for packing ahead |
//! | segments in progress | blocks of 512 KiB: six per thread, at most 192, and one more segment for each layer in packing |
//! | archives that are unpacked or listed | one per thread (see `snapshots`) |
//!
//! A block consists of 512 KiB of input and its compressed output. A segment has three of them on
//! average, and at most nine. A layer always has one segment outside the budget, so that no layer
//! waits for another one that waits as well.

use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::ThreadPoolBuilder;

use crate::error::{Error, Result};

/// The size of a block in bytes.
const BLOCK: usize = 512 << 10;
/// The blocks per thread: some in compression, and others that wait for a thread or to be written.
const BLOCKS_OF_THREAD: usize = 6;
/// The maximum number of blocks, with any number of threads.
const MOST_BLOCKS: usize = 192;

static BLOCKS: AtomicUsize = AtomicUsize::new(0);

/// Sets the number of threads that hash and compress. The default is one per processor. Call this
/// before anything is hashed or packed.
///
/// # Errors
/// Fails if the threads have been started before, or can't be started.
pub fn use_threads(threads: usize) -> Result<()> {
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|error| Error::Invalid(format!("{threads} threads: {error}")))
}

/// A share of the budget for a number of blocks. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct BlockPermit(usize);

impl BlockPermit {
    /// Takes a share for `bytes` bytes, or returns `None` if the budget is used up.
    pub(crate) fn try_new(bytes: usize) -> Option<Self> {
        let most = (BLOCKS_OF_THREAD * rayon::current_num_threads()).min(MOST_BLOCKS);
        let blocks = bytes.div_ceil(BLOCK).max(1);
        let more = |taken: usize| (taken + blocks <= most).then_some(taken + blocks);
        let taken = BLOCKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // `then_some` would create and drop a permit on failure, which returns a share that wasn't
        // taken.
        taken.is_ok().then(|| Self(blocks))
    }
}

impl Drop for BlockPermit {
    fn drop(&mut self) {
        BLOCKS.fetch_sub(self.0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_blocks_and_no_more() {
        let most = (BLOCKS_OF_THREAD * rayon::current_num_threads()).min(MOST_BLOCKS);
        // Other tests may hold shares, and return only their own.
        let mut taken = Vec::new();
        for _ in 0..10 * most {
            taken.extend(BlockPermit::try_new(BLOCK + 1));
        }
        assert!(2 * taken.len() <= most, "{} of {most}", taken.len());
        drop(taken);
        assert!(BLOCKS.load(Ordering::Relaxed) <= most);
    }
}
