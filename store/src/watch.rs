//! Watching what programs write, where the store has a cap.
//!
//! A program writes as it likes, and nobody is asked. So while it runs, a thread looks how much its
//! directories have grown, claims that ([`crate::room`]), and keeps headroom free for what comes
//! next. Where the store takes more than it may all the same, the program has to be stopped.
//!
//! A look is a walk, and directories may be large. Every few milliseconds the thread asks the file
//! system how full it is, which costs nothing, and walks only where that has grown enough to matter,
//! or a while has gone by: a longer one after a longer walk.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::cache_mounts::CacheMountGuard;
use crate::measure::measure;
use crate::pending::PendingTree;
use crate::room::Claim;
use crate::store::{Inner, Store};
use crate::volumes::VolumeGuard;

/// How often the file system is asked.
const TICK: Duration = Duration::from_millis(10);
/// How long it takes to see that there is no room, and to stop a program.
const AHEAD: Duration = Duration::from_millis(30);
/// How long a walk is put off where the file system doesn't grow.
const QUIET: Duration = Duration::from_millis(250);
/// How much longer than a walk takes the next one is put off.
const RATIO: u32 = 20;

/// A directory that grows.
#[derive(Clone, Debug)]
pub struct Growing {
    path: PathBuf,
    /// What it took before.
    base: u64,
    claim: Arc<Claim>,
}

/// Watches directories until it is dropped.
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
    /// Returns the tree as something that grows.
    pub fn growing(&self) -> Growing {
        Growing { path: self.dir().to_owned(), base: 0, claim: Arc::clone(self.claim()) }
    }
}

impl CacheMountGuard {
    /// Returns the directory as something that grows.
    pub fn growing(&self) -> Growing {
        let (path, base) = (self.dir().to_owned(), self.base());
        Growing { path, base, claim: Arc::clone(self.claim()) }
    }
}

impl VolumeGuard {
    /// Returns the volume as something that grows.
    pub fn growing(&self) -> Growing {
        let (path, base) = (self.path().to_owned(), self.base());
        Growing { path, base, claim: Arc::clone(self.claim()) }
    }
}

impl Store {
    /// Returns a directory of this process's part of `tmp/` as something that grows.
    pub fn growing(&self, path: &Path) -> Growing {
        let claim = Arc::new(Claim::new(&self.inner().room));
        Growing { path: path.to_owned(), base: 0, claim }
    }

    /// Watches directories that a program is going to write to. Where there is no room for what it
    /// writes, `stop` is called, and has to see to it that it stops. `None` where there is no cap.
    pub fn watch(&self, growing: Vec<Growing>, stop: impl Fn() + Send + 'static) -> Option<Watch> {
        self.inner().room.cap()?;
        let (inner, shared) = (Arc::clone(self.inner()), Arc::new(Shared::default()));
        let seen = Arc::clone(&shared);
        let body = move || look_on(&inner, &seen, &growing, &stop);
        let thread = std::thread::Builder::new().name("kiln-watch".to_owned()).spawn(body);
        // Without a thread what is written is claimed when it is stored.
        Some(Watch { shared, thread: thread.ok() })
    }

    /// Returns the error that there is no room, for what was stopped because of it.
    pub fn full(&self) -> crate::Error {
        let cap = self.inner().room.cap().unwrap_or_default();
        crate::Error::Full { cap, needed: 0 }
    }
}

impl Watch {
    /// Tells whether it has asked to stop.
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
    /// Waits a moment, and tells whether to go on.
    fn goes_on(&self) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return false;
        }
        let waited = self.wake.wait_timeout(ended, TICK);
        !*waited.map_or_else(|poisoned| poisoned.into_inner().0, |(ended, _)| ended)
    }
}

fn look_on(inner: &Arc<Inner>, shared: &Shared, growing: &[Growing], stop: &(impl Fn() + Send)) {
    let step = inner.room.headroom() / 8;
    let (mut full, mut walked, mut cost) = (0, Instant::now(), QUIET);
    while shared.goes_on() {
        let now = filled(&inner.root);
        let is_quiet = now < full + step;
        if is_quiet && walked.elapsed() < QUIET.max(cost * RATIO) {
            continue;
        }
        let begun = Instant::now();
        let grown = look(growing);
        // What will be written until it can be stopped, should it go on like this.
        let since = walked.elapsed().max(TICK);
        let ahead = (grown as f64 * AHEAD.as_secs_f64() / since.as_secs_f64()) as u64;
        (full, walked, cost) = (now, Instant::now(), begun.elapsed());
        match inner.room.balance(inner, ahead * 2) {
            // By the next look it would be too late.
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

/// Claims what directories take now, and returns how many bytes they have grown by.
fn look(growing: &[Growing]) -> u64 {
    let mut grown = 0;
    for place in growing {
        // What moves just now is seen the next time.
        let Ok(bytes) = measure(&place.path) else { continue };
        let bytes = bytes.saturating_sub(place.base);
        grown += bytes.saturating_sub(place.claim.bytes());
        place.claim.set(bytes);
    }
    grown
}

/// Returns how many bytes of the file system are in use.
fn filled(path: &Path) -> u64 {
    rustix::fs::statvfs(path)
        .map_or(0, |stat| stat.f_blocks.saturating_sub(stat.f_bfree) * stat.f_frsize)
}
