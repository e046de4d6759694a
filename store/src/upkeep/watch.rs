//! Watches on the output of programs, for stores with a cap.
//!
//! A program writes without asking for room. So while it runs, a thread measures the growth of its
//! directories, claims it (`room::cap`), and keeps headroom free. If the store exceeds its cap
//! nevertheless, the program must be stopped.
//!
//! A measurement is a walk, and directories may be large. Every few milliseconds, the thread
//! queries the used space of the file system, which is cheap. It walks only if that has grown
//! considerably, or after a pause whose length depends on the duration of the last walk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Upkeep;
use crate::cache::mounts::CacheMountGuard;
use crate::content::volumes::VolumeGuard;
use crate::error::Error;
use crate::layers::pending::PendingTree;
use crate::room::Room;
use crate::room::cap::Claim;
use crate::room::measure::measure;

/// The interval between queries of the file system.
const TICK: Duration = Duration::from_millis(10);
/// The time that it takes to detect a lack of room and to stop a program.
const AHEAD: Duration = Duration::from_millis(30);
/// The longest time without a walk if the file system doesn't grow.
const QUIET: Duration = Duration::from_millis(250);
/// The minimal ratio between the pause after a walk and the walk's duration.
const RATIO: u32 = 20;

/// A growing directory, and the claim on its growth.
#[derive(Clone, Debug)]
pub struct WatchedDirectory {
    path: PathBuf,
    /// The size in bytes at the beginning.
    base: u64,
    claim: Arc<Claim>,
}

/// A watch on directories, which ends when it is dropped.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    ended: Mutex<bool>,
    wake: Condvar,
    is_over: AtomicBool,
}

impl PendingTree {
    /// Returns the tree as a growing directory.
    pub fn growing(&self) -> WatchedDirectory {
        WatchedDirectory { path: self.dir().to_owned(), base: 0, claim: Arc::clone(self.claim()) }
    }
}

impl CacheMountGuard {
    /// Returns the cache mount as a growing directory.
    pub fn growing(&self) -> WatchedDirectory {
        let (path, base) = (self.dir().to_owned(), self.base());
        WatchedDirectory { path, base, claim: Arc::clone(self.claim()) }
    }
}

impl VolumeGuard {
    /// Returns the volume as a growing directory.
    pub fn growing(&self) -> WatchedDirectory {
        let (path, base) = (self.path().to_owned(), self.base());
        WatchedDirectory { path, base, claim: Arc::clone(self.claim()) }
    }
}

impl Upkeep {
    /// Returns a directory in this process's part of `tmp/` as a growing directory.
    pub(crate) fn growing(&self, path: &Path) -> WatchedDirectory {
        let claim = Arc::new(self.room.claim());
        WatchedDirectory { path: path.to_owned(), base: 0, claim }
    }

    /// Watches directories to which a program is going to write. If there is no room for its
    /// output, calls `stop`, which must stop the program. Returns `None` if the store has no cap.
    pub(crate) fn watch(
        &self,
        growing: Vec<WatchedDirectory>,
        stop: impl Fn() + Send + 'static,
    ) -> Option<Watch> {
        self.room.cap().bytes()?;
        let (room, shared) = (Arc::clone(&self.room), Arc::new(Shared::default()));
        let seen = Arc::clone(&shared);
        let body = move || look_on(&room, &seen, &growing, &stop);
        let thread = std::thread::Builder::new().name("kiln-watch".to_owned()).spawn(body);
        // Without a thread, the output is claimed when it is stored.
        Some(Watch { shared, thread: thread.ok() })
    }

    /// Returns the error for a program that was stopped because of a lack of room.
    pub(crate) fn full(&self) -> Error {
        let cap = self.room.cap().bytes().unwrap_or_default();
        Error::Full { cap, needed: 0 }
    }
}

impl Watch {
    /// Returns `true` if the watch has called `stop`.
    pub fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Relaxed)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.shared.wake.notify_all();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// Waits for a moment. Returns `false` if the watch has ended.
    fn goes_on(&self) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return false;
        }
        let waited = self.wake.wait_timeout(ended, TICK);
        !*waited.map_or_else(|poisoned| poisoned.into_inner().0, |(ended, _)| ended)
    }
}

fn look_on(
    room: &Arc<Room>,
    shared: &Shared,
    growing: &[WatchedDirectory],
    stop: &(impl Fn() + Send),
) {
    let step = room.cap().headroom() / 8;
    let (mut full, mut walked, mut cost) = (0, Instant::now(), QUIET);
    while shared.goes_on() {
        let now = filled(room.root());
        let is_quiet = now < full + step;
        if is_quiet && walked.elapsed() < QUIET.max(cost * RATIO) {
            continue;
        }
        let begun = Instant::now();
        let grown = look(growing);
        // The number of bytes that the program writes before it can be stopped, at the current
        // rate.
        let since = walked.elapsed().max(TICK);
        let ahead = (grown as f64 * AHEAD.as_secs_f64() / since.as_secs_f64()) as u64;
        (full, walked, cost) = (now, Instant::now(), begun.elapsed());
        match room.cap().balance(room, ahead * 2) {
            // At the next measurement, it would be too late.
            Ok(free) if grown > 0 && free < ahead => {
                if !shared.is_over.swap(true, Ordering::Relaxed) {
                    stop();
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "can't keep room free"),
        }
    }
}

/// Claims the current sizes of directories. Returns the number of bytes by which they have grown.
fn look(growing: &[WatchedDirectory]) -> u64 {
    let mut grown = 0;
    for place in growing {
        // A directory that is being moved is measured the next time.
        let Ok(bytes) = measure(&place.path) else { continue };
        let bytes = bytes.saturating_sub(place.base);
        grown += bytes.saturating_sub(place.claim.bytes());
        place.claim.set(bytes);
    }
    grown
}

/// Returns the used space of the file system in bytes.
fn filled(path: &Path) -> u64 {
    rustix::fs::statvfs(path)
        .map_or(0, |stat| stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize)
}
