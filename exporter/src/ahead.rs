//! Packing while the build still runs.
//!
//! A layer that an output will need is packed as soon as it is there, so that at the end of the
//! build little is left to do. One thread takes the layers in the order in which they came; what it
//! compresses is spread over a pool of its own, as wide as the one that works on what the build
//! waits for, but of a lower priority: steps of the build come first, and where processors are idle
//! nothing is lost. What all pools have under way is counted as one (see `budget`).
//!
//! Nothing depends on it. A layer that isn't packed when the export begins is packed then, one that
//! is being packed is waited for, and what fails here is tried again there, and told.

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
use crate::pack::{Packer, locate_layer};
use crate::progress::{BlobFetcher, Progress};
use crate::spec::Output;

/// How much lower the priority is: about a third of the processor where a step wants all of it.
const NICENESS: i32 = 5;

/// What packing ahead works with.
pub struct AheadContext {
    /// Where layers are, and blobs go.
    pub store: Store,
    /// How much a blob may become that is compressed anew.
    pub limits: ArchiveLimits,
    /// Gets layers of base images.
    pub fetcher: Box<dyn BlobFetcher>,
    /// Tells when to stop.
    pub progress: Box<dyn Progress>,
}

/// Packs layers in the background. Nothing runs before the first layer is added.
pub struct PackAhead {
    work: Arc<Work>,
    driver: Mutex<Option<Driver>>,
}

struct Work {
    context: AheadContext,
    /// Each way in which layers will be wanted.
    packings: Vec<Packing>,
    /// Whether layers of base images are left where they are.
    is_lazy: bool,
    is_over: AtomicBool,
}

struct Driver {
    /// `None` once there is nothing to come.
    layers: Option<Sender<LayerId>>,
    thread: JoinHandle<()>,
}

impl fmt::Debug for PackAhead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackAhead").field("packings", &self.work.packings).finish_non_exhaustive()
    }
}

impl PackAhead {
    /// Returns what packs as these outputs will want it; `None` where none of them wants blobs.
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

    /// Has a layer packed, and those below it. Returns at once.
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
            // Without a thread more, all is packed at the end.
            let Ok(thread) = started else { return };
            *driver = Some(Driver { layers: Some(sender), thread });
        }
        let sender = driver.as_ref().and_then(|driver| driver.layers.as_ref());
        let _ = sender.map(|sender| sender.send(top.clone()));
    }

    /// Begins nothing more: whoever exports does what is left, with all priority.
    pub fn close(&self) {
        self.work.is_over.store(true, Ordering::Relaxed);
        let mut driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(driver) = &mut *driver {
            driver.layers = None;
        }
    }

    /// Begins nothing more, and waits for what was begun. Blocks the thread.
    pub fn finish(&self) {
        self.close();
        let driver = self.driver.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(driver) = driver {
            // A panic there has cost nothing but time.
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

    /// Packs what hasn't been seen of a chain, base first.
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

/// Makes the threads of the background.
fn pool() -> std::result::Result<ThreadPool, rayon::ThreadPoolBuildError> {
    let begin = |_| {
        budget::enter_background();
        // Where it is refused, layers are packed with the same priority as all else.
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

    struct Nobody;

    impl BlobFetcher for Nobody {
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
        let context = AheadContext { store, limits, fetcher: Box::new(Nobody), progress };
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
        // What comes too late is left to the export.
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
