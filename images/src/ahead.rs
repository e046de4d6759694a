//! Packing while the build still runs.
//!
//! A layer that an output needs is packed as soon as its step is done, so that little work is left
//! at the end of the build. One thread takes the layers in the order of their arrival. It spreads
//! the compression over a thread pool of its own. That pool has as many threads as the pool of the
//! foreground, but a lower priority: the build's steps come first, and packing uses the processors
//! that they leave idle. All pools share one memory budget (see `budget`).
//!
//! The export doesn't depend on this module. It packs the layers that aren't packed yet, and waits
//! for those that are being packed. It also packs again the layers that failed here, and reports
//! their errors.

use std::collections::HashSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use kiln_event::Reporter;
use kiln_store::{LayerId, Store};
use kiln_tree::ArchiveLimits;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::compression::Packing;
use crate::error::Result;
use crate::fetcher::Fetcher;
use crate::pack::{Packer, locate_layer};

/// The nice value of the background threads. A step that uses all of a processor leaves them about
/// a quarter of it.
const NICENESS: i32 = 5;

/// The resources that packing ahead uses.
pub struct AheadContext {
    /// The store that holds the layers and receives the blobs.
    pub store: Store,
    /// The limits for layers that are decompressed and compressed again.
    pub limits: ArchiveLimits,
    /// The source of base images' layers.
    pub fetcher: Fetcher,
    /// The build's progress. Packing stops when it is cancelled.
    pub progress: Reporter,
}

/// A packer of layers in the background. It starts no thread before the first layer is added.
pub struct PackAhead {
    work: Arc<Work>,
    driver: Mutex<Option<Driver>>,
}

struct Work {
    context: AheadContext,
    /// The packings of all outputs, without duplicates.
    packings: Vec<Packing>,
    /// `true` if layers of base images with a known location are not downloaded.
    is_lazy: bool,
    is_over: AtomicBool,
}

struct Driver {
    /// The queue of layers. `None` after [`PackAhead::close`].
    layers: Option<Sender<LayerId>>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for PackAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackAhead").field("packings", &self.work.packings).finish_non_exhaustive()
    }
}

impl PackAhead {
    /// Creates a packer that makes a blob of each layer for each of `packings`. If `is_lazy`, it
    /// doesn't download layers of base images with a known location.
    pub fn new(packings: Vec<Packing>, is_lazy: bool, context: AheadContext) -> Self {
        let is_over = AtomicBool::new(false);
        let work = Arc::new(Work { context, packings, is_lazy, is_over });
        Self { work, driver: Mutex::default() }
    }

    /// Queues a layer and its ancestors for packing. Returns at once.
    pub fn add(&self, top: &LayerId) {
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if self.work.is_over.load(Ordering::Relaxed) {
            return;
        }
        if driver.is_none() {
            let (sender, receiver) = channel();
            let work = Arc::clone(&self.work);
            let body = move || work.run(&receiver);
            let started = std::thread::Builder::new().name("kiln-ahead".to_owned()).spawn(body);
            // Without the thread, the export packs all layers.
            let Ok(thread) = started else { return };
            *driver = Some(Driver { layers: Some(sender), thread });
        }
        let sender = driver.as_ref().and_then(|driver| driver.layers.as_ref());
        let _ = sender.map(|sender| sender.send(top.clone()));
    }

    /// Stops further packing. The export packs the remaining layers at normal priority.
    pub fn close(&self) {
        self.work.is_over.store(true, Ordering::Relaxed);
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = &mut *driver {
            driver.layers = None;
        }
    }

    /// Stops further packing and waits for the layer in progress. Blocks the thread.
    pub fn finish(&self) {
        self.close();
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver {
            // A panic of the thread loses only its work: the export packs the layers again.
            let _ = driver.thread.join();
        }
    }
}

impl Drop for PackAhead {
    fn drop(&mut self) {
        self.finish();
    }
}

impl Work {
    fn run(&self, layers: &Receiver<LayerId>) {
        let pool = match pool() {
            Ok(pool) => pool,
            Err(error) => return tracing::debug!(%error, "no threads to pack ahead"),
        };
        let mut seen = HashSet::new();
        for top in layers {
            let ended = pool.install(|| self.pack_chain(&top, &mut seen));
            if let Err(error) = ended {
                tracing::debug!(%error, layer = %top, "can't pack ahead");
            }
        }
    }

    /// Packs the layers of a chain that aren't in `seen`, base first.
    fn pack_chain(&self, top: &LayerId, seen: &mut HashSet<LayerId>) -> Result<()> {
        if seen.contains(top) {
            return Ok(());
        }
        for layer in self.context.store.layers().chain(top)? {
            if !seen.insert(layer.id.clone()) {
                continue;
            }
            for packing in &self.packings {
                if self.is_over.load(Ordering::Relaxed) || self.context.progress.is_cancelled() {
                    return Ok(());
                }
                self.pack(&layer.id, *packing)?;
            }
        }
        Ok(())
    }

    fn pack(&self, layer: &LayerId, packing: Packing) -> Result<()> {
        let AheadContext { store, limits, fetcher, progress } = &self.context;
        if self.is_lazy && locate_layer(store, layer, packing)?.is_some() {
            return Ok(());
        }
        let packer = Packer { store, packing, limits: *limits, fetcher, progress };
        packer.try_pack(layer)
    }
}

/// Creates the pool of background threads.
fn pool() -> std::result::Result<ThreadPool, rayon::ThreadPoolBuildError> {
    let begin = |_| {
        // If the kernel refuses, the layers are packed at normal priority.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    };
    ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(|number| format!("kiln-ahead-{number}"))
        .start_handler(begin)
        .build()
}
