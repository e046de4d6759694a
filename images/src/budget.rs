//! The budget of threads and memory that all packing of a process shares.
//!
//! | resource | limit |
//! | --- | --- |
//! | threads that hash and compress | rayon's: one per processor or the number in `--threads`; and as many low-priority threads for packing ahead |
//! | gzip blocks in progress | three per thread, at most 96, and one more for each layer in packing |
//! | large zstd streams | one in the foreground, one in the background |
//! | archives that are unpacked or listed | one per thread (see `snapshots`) |
//!
//! A block consists of 512 KiB of input and its compressed output. A layer always has one block
//! outside the budget, so that no layer waits for another one that waits as well. A zstd stream
//! with threads keeps several windows per thread, about 40 MB at the default level. A second stream
//! at once would compete for the same processors and take as much memory again.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::ThreadPoolBuilder;

use crate::error::{Error, Result};

/// The blocks per thread: one in compression, and others that wait for a thread or to be written.
const BLOCKS_OF_THREAD: usize = 3;
/// The maximum number of blocks, with any number of threads.
const MOST_BLOCKS: usize = 96;

static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static STREAMS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

thread_local! {
    static IN_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Sets the number of threads that hash and compress. The default is one per processor. Call this
/// before anything is hashed or packed.
///
/// # Errors
/// Fails if the threads have been started before, or can't be started.
pub fn use_threads(threads: usize) -> Result<()> {
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|error| Error::Invalid(format!("{threads} threads: {error}")))
}

/// Marks this thread as one that packs in the background.
pub(crate) fn enter_background() {
    IN_BACKGROUND.set(true);
}

/// A share of the budget for one block. Dropping it returns the share.
#[derive(Debug)]
pub(crate) struct BlockPermit(());

impl BlockPermit {
    /// Takes a share, or returns `None` if the budget is used up.
    pub(crate) fn try_new() -> Option<Self> {
        let most = (BLOCKS_OF_THREAD * rayon::current_num_threads()).min(MOST_BLOCKS);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = BLOCKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // `then_some` would create and drop a permit on failure, which returns a share that wasn't
        // taken.
        taken.is_ok().then(|| Self(()))
    }
}

impl Drop for BlockPermit {
    fn drop(&mut self) {
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns `true` if this thread packs in the background.
pub(crate) fn is_background() -> bool {
    IN_BACKGROUND.get()
}

/// Waits until no other large zstd stream of the same priority is in progress.
pub(crate) fn large_stream(is_background: bool) -> MutexGuard<'static, ()> {
    STREAMS[usize::from(is_background)].lock().unwrap_or_else(PoisonError::into_inner)
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
            taken.extend(BlockPermit::try_new());
        }
        assert!(taken.len() <= most, "{} of {most}", taken.len());
        drop(taken);
        assert!(BLOCKS.load(Ordering::Relaxed) <= most);
    }
}
