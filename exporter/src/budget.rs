//! The budget of threads and memory that all packing of a process shares.
//!
//! | what | how much of it |
//! | --- | --- |
//! | threads that hash and compress | rayon's, one for each processor or as many as `--threads` says, and as many of lower priority for what isn't waited for |
//! | blocks of gzip under way | three for each thread, 96 at most, and one for each layer that is being packed |
//! | large streams of zstd | one that is waited for, one in the background |
//! | archives that are unpacked or listed | one for each thread (`worker`'s `snapshots`) |
//!
//! A block is 512 KiB that were read and what comes of them. A layer always has one block, so that
//! nobody waits for somebody who waits as well. zstd with threads keeps several windows for each of
//! them, about 40 MB at its usual level: a second stream at once would use the same processors, and
//! as much memory again.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rayon::ThreadPoolBuilder;

use crate::error::{Error, Result};

/// Blocks under way for each thread: one that is worked on, and some that wait for a thread or to be
/// written.
const BLOCKS_OF_THREAD: usize = 3;
/// The most blocks under way, whatever the number of threads.
const MOST_BLOCKS: usize = 96;

static BLOCKS: AtomicUsize = AtomicUsize::new(0);
static STREAMS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];

thread_local! {
    static IN_BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// Says how many threads hash and compress, in place of one for each processor. To be called before
/// anything is hashed or packed.
///
/// # Errors
/// Fails where something was, or the threads can't be started.
pub fn use_threads(threads: usize) -> Result<()> {
    let pool = ThreadPoolBuilder::new().num_threads(threads);
    pool.build_global().map_err(|error| Error::Unsupported(format!("{threads} threads: {error}")))
}

/// Says that this thread does what nobody waits for.
pub(crate) fn enter_background() {
    IN_BACKGROUND.set(true);
}

/// A block's place in the budget, given back when it is dropped.
#[derive(Debug)]
pub(crate) struct BlockPermit(());

impl BlockPermit {
    /// Returns a place, if there is one.
    pub(crate) fn try_new() -> Option<Self> {
        let most = (BLOCKS_OF_THREAD * rayon::current_num_threads()).min(MOST_BLOCKS);
        let more = |taken: usize| (taken < most).then_some(taken + 1);
        let taken = BLOCKS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        // Not one that is dropped at once: it would give back what nobody took.
        taken.is_ok().then(|| Self(()))
    }
}

impl Drop for BlockPermit {
    fn drop(&mut self) {
        BLOCKS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tells whether this thread does what nobody waits for.
pub(crate) fn is_background() -> bool {
    IN_BACKGROUND.get()
}

/// Waits until no other large stream is under way that matters as much.
pub(crate) fn large_stream(is_background: bool) -> MutexGuard<'static, ()> {
    STREAMS[usize::from(is_background)].lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_blocks_and_no_more() {
        let most = (BLOCKS_OF_THREAD * rayon::current_num_threads()).min(MOST_BLOCKS);
        // Other tests may have some of them, and give back none but their own.
        let mut taken = Vec::new();
        for _ in 0..10 * most {
            taken.extend(BlockPermit::try_new());
        }
        assert!(taken.len() <= most, "{} of {most}", taken.len());
        drop(taken);
        assert!(BLOCKS.load(Ordering::Relaxed) <= most);
    }
}
