//! The packed layers and mounts of a cache.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use kiln_event::Reporter;
use kiln_images::{PackedLayer, Packer, locate_layer, pack_stream};
use kiln_oci::cache::CacheBlob;
use kiln_oci::error::chain;
use kiln_store::{Layer, LayerId};
use kiln_tree::{Dir, Metadata, PackOptions, Whiteouts};

use super::CacheRequest;
use super::spec::{CacheTarget, CacheTo};
use crate::error::{Error, Result};
use crate::export::ExportContext;

/// The number of layers that are packed at once.
const LAYERS_AT_ONCE: usize = 4;

/// A layer of a cache.
pub(super) struct ChainLayer {
    /// The number of the layer below.
    pub(super) parent: Option<usize>,
    /// `true` if the layer came with a base image.
    pub(super) is_base: bool,
    /// The packed layer, or `None` if it is missing or damaged.
    pub(super) packed: Option<PackedLayer>,
    pub(super) blob: Option<CacheBlob>,
}

/// A cache mount of a cache.
pub(super) struct Mount {
    pub(super) id: String,
    pub(super) root: Metadata,
    pub(super) blob: CacheBlob,
}

/// The layers and mounts of a cache.
pub(super) struct Contents {
    /// The layers. Each comes after the layer below it.
    pub(super) layers: Vec<ChainLayer>,
    pub(super) mounts: Vec<Mount>,
    /// The layers and mounts that the cache lacks, each with the reason.
    pub(super) left_out: Vec<String>,
    numbers: HashMap<LayerId, usize>,
}

impl Contents {
    /// Packs all layers and mounts of a request. Results whose layers are gone are left out.
    pub(super) fn pack(
        request: &CacheRequest,
        to: &CacheTo,
        context: &ExportContext<'_>,
    ) -> Result<Self> {
        let mut contents = Self {
            layers: Vec::new(),
            mounts: Vec::new(),
            left_out: Vec::new(),
            numbers: HashMap::new(),
        };
        let mut layers: Vec<Layer> = Vec::new();
        for top in request.results.iter().flat_map(|result| result.outputs.iter().flatten()) {
            contents.number(top, &mut layers, context)?;
        }
        contents.pack_layers(&layers, to, context)?;
        for id in &request.mounts {
            match pack_mount(id, to, context) {
                Ok(mount) => contents.mounts.extend(mount),
                Err(error) if is_fatal(&error, context.progress) => return Err(error),
                Err(error) => {
                    contents.left_out.push(format!("cache mount {id}: {}", chain(&error)));
                }
            }
        }
        Ok(contents)
    }

    /// Assigns numbers to the layers of a chain and appends the new ones to `layers`.
    fn number(
        &mut self,
        top: &LayerId,
        layers: &mut Vec<Layer>,
        context: &ExportContext<'_>,
    ) -> Result<()> {
        if self.numbers.contains_key(top) || !context.store.layers().hold([top])? {
            return Ok(());
        }
        let mut parent = None;
        for layer in context.store.layers().chain(top)? {
            let next = layers.len();
            let number = *self.numbers.entry(layer.id.clone()).or_insert(next);
            if number == next {
                let blobs = context.store.layers().blobs(&layer.id)?;
                let is_base = blobs.iter().any(kiln_store::LayerBlob::came_with_an_image);
                self.layers.push(ChainLayer { parent, is_base, packed: None, blob: None });
                layers.push(layer);
            }
            parent = Some(number);
        }
        Ok(())
    }

    fn pack_layers(
        &mut self,
        layers: &[Layer],
        to: &CacheTo,
        context: &ExportContext<'_>,
    ) -> Result<()> {
        let packed = pack_all(layers, to, context)?;
        for (number, result) in packed.into_iter().enumerate() {
            match result {
                Ok(packed) => {
                    self.layers[number].blob = Some(CacheBlob {
                        media_type: packed.compression.media_type(true).to_owned(),
                        digest: packed.digest,
                        size: packed.size,
                    });
                    self.layers[number].packed = Some(packed);
                }
                Err(error) => {
                    let layer = &layers[number];
                    let name =
                        layer.diff_id.map_or_else(|| layer.id.to_string(), |id| id.to_string());
                    self.left_out.push(format!("layer {name}: {}", chain(&error)));
                }
            }
        }
        Ok(())
    }

    /// Returns the number of a layer if that layer and all layers below it are packed.
    pub(super) fn number_of(&self, layer: &LayerId) -> Option<usize> {
        let top = *self.numbers.get(layer)?;
        let mut at = Some(top);
        while let Some(number) = at {
            self.layers[number].packed.as_ref()?;
            at = self.layers[number].parent;
        }
        Some(top)
    }

    /// Returns all blobs without duplicates.
    pub(super) fn blobs(&self) -> Vec<&CacheBlob> {
        let mut seen = BTreeSet::new();
        let layers = self.layers.iter().filter_map(|layer| layer.blob.as_ref());
        let all = layers.chain(self.mounts.iter().map(|mount| &mount.blob));
        all.filter(|blob| seen.insert(blob.digest)).collect()
    }
}

/// Packs several layers at once and returns a result for each, in their order. Ends early with an
/// error that isn't the loss of a layer (see [`is_fatal`]).
fn pack_all(
    layers: &[Layer],
    to: &CacheTo,
    context: &ExportContext<'_>,
) -> Result<Vec<Result<PackedLayer>>> {
    let packer = Packer {
        store: context.store,
        packing: to.packing,
        limits: context.limits,
        fetcher: context.fetcher,
        progress: context.progress,
    };
    // A cache in a registry can use the blobs of registries without a download.
    let is_lazy = matches!(to.target, CacheTarget::Registry { .. });
    let (store, progress) = (context.store, context.progress);
    let pack = |layer: &Layer| {
        let far = if is_lazy { locate_layer(store, &layer.id, to.packing)? } else { None };
        Ok(far.map_or_else(|| packer.pack(&layer.id), Ok)?)
    };
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<PackedLayer>>>> =
        Mutex::new(layers.iter().map(|_| None).collect());
    let work = || {
        while let Some((number, layer)) = {
            let number = next.fetch_add(1, Ordering::Relaxed);
            layers.get(number).map(|layer| (number, layer))
        } {
            let result = pack(layer);
            if result.as_ref().is_err_and(|error| is_fatal(error, progress)) {
                next.store(layers.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..LAYERS_AT_ONCE.min(layers.len()) {
            scope.spawn(work);
        }
        work();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut packed = Vec::with_capacity(layers.len());
    let mut is_complete = true;
    for result in results {
        match result {
            Some(Err(error)) if is_fatal(&error, progress) => return Err(error),
            Some(result) => packed.push(result),
            None => is_complete = false,
        }
    }
    if is_complete { Ok(packed) } else { Err(Error::Cancelled) }
}

/// Returns `true` if the export can't go on without the layer or mount that caused the error.
fn is_fatal(error: &Error, progress: &Reporter) -> bool {
    use kiln_store::Error::{Damaged, DigestMismatch, Missing};
    let is_loss = match error {
        Error::Store(error) => {
            matches!(error, Missing { .. } | DigestMismatch { .. } | Damaged { .. })
        }
        Error::Images(kiln_images::Error::Fetch { .. }) | Error::Tree(_) => true,
        _ => false,
    };
    !is_loss || progress.is_cancelled()
}

/// Packs a cache mount. Returns `None` if it doesn't exist, and an error if another step uses it
/// exclusively.
fn pack_mount(id: &str, to: &CacheTo, context: &ExportContext<'_>) -> Result<Option<Mount>> {
    let mounts = context.store.cache_mounts();
    let Some(guard) = mounts.read(id)? else {
        if !mounts.is_known(id) {
            return Ok(None);
        }
        let what = "cache mount that nobody has for himself now,";
        return Err(kiln_store::Error::Missing { what, name: id.to_owned() }.into());
    };
    let dir = Dir::open(guard.path())?;
    let root = dir
        .metadata(Path::new("/"), true)?
        .ok_or_else(|| kiln_store::Error::Missing { what: "cache mount", name: id.to_owned() })?;
    let options = PackOptions { whiteouts: Whiteouts::None, clamp_mtime: None };
    // A cache whose mounts have longer paths could not be imported.
    let plan = kiln_tree::Plan::readable(&dir, options)?;
    let fill = &mut |sink: &mut dyn std::io::Write| plan.write(sink).map(drop);
    let (_, blob) = pack_stream(context.store, to.packing, context.progress, fill)?;
    let (media_type, digest, size) = (blob.media_type, blob.digest, blob.size);
    let blob = CacheBlob { media_type, digest, size };
    Ok(Some(Mount { id: id.to_owned(), root, blob }))
}
