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

use kiln_store::{LayerId, Store};
use kiln_tree::ArchiveLimits;
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::budget;
use crate::compression::Packing;
use crate::error::Result;
use crate::output::Output;
use crate::pack::{Packer, locate_layer};
use crate::progress::{BlobFetcher, Progress};

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
    pub fetcher: Box<dyn BlobFetcher>,
    /// The build's progress. Packing stops when it is cancelled.
    pub progress: Box<dyn Progress>,
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
    /// Creates a packer for these outputs. Returns `None` if no output needs blobs.
    pub fn new(outputs: &[Output], context: AheadContext) -> Option<Self> {
        let of_blobs: Vec<&Output> = outputs.iter().filter(|output| output.is_image()).collect();
        let mut packings = Vec::new();
        for output in &of_blobs {
            if !packings.contains(&output.packing) {
                packings.push(output.packing);
            }
        }
        let is_lazy = of_blobs.iter().all(|output| output.is_elsewhere());
        let is_over = AtomicBool::new(false);
        let work = Arc::new(Work { context, packings, is_lazy, is_over });
        (!of_blobs.is_empty()).then(|| Self { work, driver: Mutex::default() })
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
                if self.is_over.load(Ordering::Relaxed) || self.context.progress.cancelled() {
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
        let packer = Packer {
            store,
            packing,
            limits: *limits,
            fetcher: fetcher.as_ref(),
            progress: progress.as_ref(),
        };
        packer.try_pack(layer)
    }
}

/// Creates the pool of background threads.
fn pool() -> std::result::Result<ThreadPool, rayon::ThreadPoolBuildError> {
    let begin = |_| {
        budget::enter_background();
        // If the kernel refuses, the layers are packed at normal priority.
        let _ = rustix::process::setpriority_process(None, NICENESS);
    };
    ThreadPoolBuilder::new()
        .num_threads(rayon::current_num_threads())
        .thread_name(|number| format!("kiln-ahead-{number}"))
        .start_handler(begin)
        .build()
}

#[cfg(test)]
mod tests {
    use kiln_store::LayerBlob;

    use super::*;
    use crate::compression::Compression;
    use crate::progress::Silent;

    struct NoFetcher;

    impl BlobFetcher for NoFetcher {
        fn fetch(&self, _: &LayerBlob) -> std::result::Result<(), Failure> {
            Err("nothing is fetched here".into())
        }

        fn unpack(&self, _: &LayerId) -> std::result::Result<(), Failure> {
            Err("nothing is unpacked here".into())
        }
    }

    type Failure = Box<dyn std::error::Error + Send + Sync>;

    fn layer(store: &Store, name: &str, below: Option<&LayerId>) -> LayerId {
        let tree = store.layers().begin().unwrap();
        std::fs::write(tree.fs().join(name), name.repeat(100_000)).unwrap();
        store.layers().commit(tree, below).unwrap()
    }

    fn ahead(store: &Store, outputs: &[&str], progress: Box<dyn Progress>) -> Option<PackAhead> {
        let parse = |text: &&str| Output::parse(text).unwrap();
        let outputs: Vec<Output> = outputs.iter().map(parse).collect();
        let (store, limits) = (store.clone(), ArchiveLimits::default());
        let context = AheadContext { store, limits, fetcher: Box::new(NoFetcher), progress };
        PackAhead::new(&outputs, context)
    }

    #[test]
    fn chains_are_packed_as_each_output_wants_them() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let outputs = ["type=oci,dest=/x", "type=image,compression=zstd", "type=docker,dest=/y"];
        let ahead = ahead(&store, &outputs, Box::new(Silent)).unwrap();
        let base = layer(&store, "base", None);
        let top = layer(&store, "top", Some(&base));
        ahead.add(&top);
        while store.layers().blobs(&top).unwrap().len() < 2 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        ahead.finish();
        for id in [&base, &top] {
            let blobs = store.layers().blobs(id).unwrap();
            let mut found: Vec<_> =
                blobs.iter().filter_map(|blob| Compression::of(&blob.media_type)).collect();
            found.sort_unstable();
            assert_eq!(found, [Compression::Gzip, Compression::Zstd]);
        }
        // The export packs layers that are added after `close`.
        let late = layer(&store, "late", Some(&top));
        ahead.add(&late);
        ahead.finish();
        assert!(store.layers().blobs(&late).unwrap().is_empty());
    }

    #[test]
    fn nothing_is_packed_for_files_or_for_a_build_that_stops() {
        struct Stopped;
        impl Progress for Stopped {
            fn status(&self, _: &str, _: u64, _: Option<u64>, _: bool) {}
            fn cancelled(&self) -> bool {
                true
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        assert!(ahead(&store, &["type=local,dest=/x", "-"], Box::new(Silent)).is_none());
        let ahead = ahead(&store, &["type=oci,dest=/x"], Box::new(Stopped)).unwrap();
        let top = layer(&store, "top", None);
        ahead.add(&top);
        ahead.finish();
        assert!(store.layers().blobs(&top).unwrap().is_empty());
    }
}
