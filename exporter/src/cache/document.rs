//! The config and the manifest of a cache.

use std::collections::HashSet;

use kiln_images::Compression;
use kiln_oci::cache::{
    CACHE_VERSION, CacheBlob, CacheConfig, CacheLayer, CacheMountContent, CacheRecord,
};
use kiln_oci::{Descriptor, Document, ImageIndex, ImageManifest, media_type};

use super::CacheRequest;
use super::contents::{ChainLayer, Contents};
use super::spec::CacheTo;
use crate::assemble::json;
use crate::error::Result;

/// The documents of a cache.
pub(super) struct Documents {
    pub(super) config: Document,
    /// The manifest, or the index that replaces it.
    pub(super) manifest: Document,
}

impl Documents {
    pub(super) fn new(request: &CacheRequest, contents: &Contents, to: &CacheTo) -> Result<Self> {
        let config = json(&config(request, contents))?;
        let config = Document::new(media_type::CACHE_CONFIG, config);
        let oci = to.oci_types;
        let blob = |blob: &CacheBlob| {
            let compression = Compression::of(&blob.media_type);
            let media_type = compression.map_or(blob.media_type.as_str(), |it| it.media_type(oci));
            Descriptor::new(media_type, &blob.digest, blob.size)
        };
        let mut blobs: Vec<Descriptor> = contents.blobs().into_iter().map(blob).collect();
        let descriptor = config.descriptor.clone();
        let (media_type, manifest) = if to.image_manifest {
            let media_type = media_type::OCI_MANIFEST;
            (media_type, json(&ImageManifest::new(media_type, descriptor, blobs))?)
        } else {
            blobs.push(descriptor);
            let media_type =
                if oci { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
            (media_type, json(&ImageIndex::new(media_type, blobs))?)
        };
        let manifest = Document::listing("manifest of the cache", media_type, manifest)?;
        Ok(Self { config, manifest })
    }
}

/// Returns the config of a cache. Missing layers are left out, and all layers above them.
fn config(request: &CacheRequest, contents: &Contents) -> CacheConfig {
    let mut numbers: Vec<Option<u32>> = Vec::with_capacity(contents.layers.len());
    let mut layers = Vec::new();
    for layer in &contents.layers {
        let below = layer.parent.map(|parent| numbers[parent]);
        let told = match below {
            Some(None) => None,
            below => describe(layer, below.flatten()),
        };
        numbers.push(told.as_ref().map(|_| layers.len() as u32));
        layers.extend(told);
    }
    let mut records = Vec::with_capacity(request.results.len());
    for result in &request.results {
        let number = |output: &Option<_>| match output {
            None => Some(None),
            Some(layer) => contents.number_of(layer).map(|number| numbers[number]),
        };
        let outputs: Option<Vec<Option<u32>>> = result.outputs.iter().map(number).collect();
        let Some(outputs) = outputs else { continue };
        records.push(CacheRecord { key: result.key, outputs, duration_ms: result.duration_ms });
    }
    let mut seen = HashSet::new();
    records.retain(|record| seen.insert(record.key));
    let mounts = contents.mounts.iter().map(|mount| CacheMountContent {
        id: mount.id.clone(),
        mode: mount.root.mode,
        uid: mount.root.owner.uid,
        gid: mount.root.owner.gid,
        blob: mount.blob.clone(),
    });
    let (mounts, links) = (mounts.collect(), request.links.clone());
    CacheConfig { version: CACHE_VERSION, layers, records, links, mounts }
}

fn describe(layer: &ChainLayer, parent: Option<u32>) -> Option<CacheLayer> {
    let (packed, blob) = (layer.packed.as_ref()?, layer.blob.clone()?);
    let (diff_id, created_at, base) = (packed.diff_id, packed.created_at, layer.is_base);
    Some(CacheLayer { parent, diff_id, created_at, base, blob })
}
