//! What takes how much room.
//!
//! Nothing is walked for it: layers and blobs have their room in the index, measured when they were
//! stored, cache mounts and volumes since somebody last used them. What is left is a few files and
//! directories whose own blocks are asked for. So the account takes as long for a large store as for
//! a small one, and is what `du` says: every file once, in blocks.
//!
//! What images and the cache both hold counts with the images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use kiln_oci::Digest;

use crate::cache::CacheKind;
use crate::error::{Error, Result};
use crate::inventory::{ImageReach, Inventory, Reach};
use crate::layout::{ANCHOR, MOUNT_POINTS};
use crate::measure::{blocks_of, measure};
use crate::places::{self, directories};
use crate::store::{Inner, Store};
use crate::{cache_mounts, ingest, tree_sizes, volumes};

/// What takes how much room, in bytes of disk blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// The images, newest first, those of several names once.
    pub images: Vec<ImageUsage>,
    /// What all images take together, and what of it no container and no build holds.
    pub images_bytes: (u64, u64),
    /// The parts of the cache, those used last first.
    pub cache: Vec<CacheUsage>,
    /// What the cache takes, and what of it can be freed.
    pub cache_bytes: (u64, u64),
    /// The volumes, by name.
    pub volumes: Vec<VolumeUsage>,
    /// How many builds the history has, and what their logs take.
    pub history: (u64, u64),
    /// What the index and the store's own directories and files take.
    pub index_bytes: u64,
    /// What is unfinished.
    pub temporary_bytes: u64,
}

/// An image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// The digest of its manifest or index.
    pub digest: Digest,
    /// What it takes.
    pub bytes: u64,
    /// What of it other images take, too.
    pub shared_bytes: u64,
    /// Whether a container or a build holds it.
    pub is_used: bool,
}

/// A part of the cache: a layer or a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUsage {
    /// Its ID.
    pub id: String,
    /// The layer that it stands on.
    pub parent: Option<String>,
    /// What it is.
    pub kind: CacheKind,
    /// What it was stored with, as it is; the ID of a cache mount.
    pub description: String,
    /// What it takes.
    pub bytes: u64,
    /// When it was made, nanoseconds since 1970.
    pub created_at: i64,
    /// When it was last used.
    pub used_at: i64,
    /// Whether somebody holds it.
    pub is_used: bool,
    /// Whether an image holds it; then its room counts with the image.
    pub is_shared: bool,
}

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Its name.
    pub name: String,
    /// What it takes.
    pub bytes: u64,
    /// Whether a container uses it.
    pub is_used: bool,
}

impl DiskUsage {
    /// Returns what everything takes together.
    pub fn total(&self) -> u64 {
        let volumes: u64 = self.volumes.iter().map(|volume| volume.bytes).sum();
        self.images_bytes.0
            + self.cache_bytes.0
            + volumes
            + self.history.1
            + self.index_bytes
            + self.temporary_bytes
    }
}

impl Store {
    /// Tells what takes how much room.
    ///
    /// # Errors
    /// Fails where something can't be looked at.
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        let inner = self.inner();
        inner.flush_used()?;
        tree_sizes::measure_unknown(inner)?;
        let images = ImageReach::of(self)?;
        let places = places::measured(inner)?;
        let inventory = inner
            .index
            .read_all("take stock", |connection| Inventory::take(connection, &images))?;
        let mut usage = DiskUsage::default();
        let parts = Parts::of(&inventory, &images);
        usage.add_images(&inventory, &images, &parts);
        usage.add_layers(&inventory, &parts);
        for place in &places {
            if let Some(name) = place.path.strip_prefix(volumes::PREFIX) {
                let (name, bytes) = (name.to_owned(), place.bytes);
                let is_used = self.volumes().is_used(&name)?;
                usage.volumes.push(VolumeUsage { name, bytes, is_used });
                continue;
            }
            let is_used = cache_mounts::is_used(inner, &place.path)?;
            usage.cache_bytes.0 += place.bytes;
            usage.cache_bytes.1 += if is_used { 0 } else { place.bytes };
            usage.cache.push(CacheUsage {
                id: cache_mounts::short_id(&place.path),
                parent: None,
                kind: CacheKind::CacheMount,
                description: cache_mounts::id_of(inner, &place.path),
                bytes: place.bytes,
                created_at: place.created_at,
                used_at: place.used_at,
                is_used,
                is_shared: false,
            });
        }
        usage.cache.sort_by_key(|part| std::cmp::Reverse(part.used_at));
        let builds = self.builds().count()?;
        usage.history = (builds, files_in(&inner.root.join("builds"))?);
        usage.index_bytes = own_bytes(inner)?;
        usage.temporary_bytes = unfinished_bytes(inner)?
            + files_in(&inner.root.join("ingest"))?
            + blocks_of(&inner.root.join("ingest"))?;
        Ok(usage)
    }
}

/// Which images each part belongs to.
struct Parts {
    /// The blobs that images hold, as packed forms of their layers or by themselves.
    blobs: HashSet<Digest>,
    /// For each image its layers and blobs.
    images: BTreeMap<Digest, (Vec<usize>, HashSet<Digest>)>,
    /// How many images hold each layer and blob.
    layer_holders: HashMap<usize, u32>,
    blob_holders: HashMap<Digest, u32>,
}

impl Parts {
    fn of(inventory: &Inventory, images: &ImageReach) -> Self {
        let mut by_chain: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (place, node) in inventory.layers.iter().enumerate() {
            if let Some(chain) = node.chain {
                by_chain.entry(chain).or_default().push(place);
            }
        }
        let mut parts = Self {
            blobs: HashSet::new(),
            images: BTreeMap::new(),
            layer_holders: HashMap::new(),
            blob_holders: HashMap::new(),
        };
        for (digest, reach) in &images.reaches {
            parts.add(inventory, digest, reach, &by_chain);
        }
        parts
    }

    fn add(
        &mut self,
        inventory: &Inventory,
        digest: &Digest,
        reach: &Reach,
        by_chain: &HashMap<Digest, Vec<usize>>,
    ) {
        let layers: Vec<usize> = reach
            .chains
            .iter()
            .filter_map(|chain| by_chain.get(chain))
            .flatten()
            .copied()
            .collect();
        let packed = layers.iter().flat_map(|place| &inventory.layers[*place].blobs);
        let blobs: HashSet<Digest> = reach.blobs.iter().chain(packed).copied().collect();
        for place in &layers {
            *self.layer_holders.entry(*place).or_default() += 1;
        }
        for blob in &blobs {
            *self.blob_holders.entry(*blob).or_default() += 1;
        }
        self.blobs.extend(&blobs);
        self.images.insert(*digest, (layers, blobs));
    }
}

impl DiskUsage {
    fn add_images(&mut self, inventory: &Inventory, images: &ImageReach, parts: &Parts) {
        let blob_bytes = |blob: &Digest| inventory.blobs.get(blob).copied().unwrap_or_default();
        let (mut used_layers, mut used_blobs) = (HashSet::new(), HashSet::new());
        for row in &images.rows {
            if self.images.iter().any(|known| known.digest == row.digest) {
                continue;
            }
            let Some((layers, blobs)) = parts.images.get(&row.digest) else { continue };
            // What it has in common with another image may be used by who uses that one.
            let below: HashSet<usize> =
                layers.iter().filter_map(|place| inventory.layers[*place].parent).collect();
            let mut tops = layers.iter().filter(|place| !below.contains(place));
            let is_used = tops.any(|place| inventory.layers[*place].is_leased);
            let mut image = ImageUsage { digest: row.digest, bytes: 0, shared_bytes: 0, is_used };
            for place in layers {
                let bytes = inventory.layers[*place].tree_bytes;
                image.bytes += bytes;
                image.shared_bytes += if parts.layer_holders[place] > 1 { bytes } else { 0 };
            }
            for blob in blobs {
                let bytes = blob_bytes(blob);
                image.bytes += bytes;
                image.shared_bytes += if parts.blob_holders[blob] > 1 { bytes } else { 0 };
            }
            if is_used {
                used_layers.extend(layers.iter().copied());
                used_blobs.extend(blobs.iter().copied());
            }
            self.images.push(image);
        }
        let trees = |place: &usize| inventory.layers[*place].tree_bytes;
        let all = parts.layer_holders.keys().map(trees).sum::<u64>()
            + parts.blobs.iter().map(blob_bytes).sum::<u64>();
        let used = used_layers.iter().map(trees).sum::<u64>()
            + used_blobs.iter().map(blob_bytes).sum::<u64>();
        self.images_bytes = (all, all - used);
    }

    fn add_layers(&mut self, inventory: &Inventory, parts: &Parts) {
        let mut counted: HashSet<Digest> = parts.blobs.clone();
        for (place, node) in inventory.layers.iter().enumerate() {
            let records = || node.records.iter().map(|record| &inventory.records[*record]);
            let is_shared = parts.layer_holders.contains_key(&place);
            let mut bytes = if is_shared { 0 } else { node.tree_bytes };
            for blob in &node.blobs {
                if counted.insert(*blob) {
                    bytes += inventory.blobs.get(blob).copied().unwrap_or_default();
                }
            }
            let last = records().max_by_key(|record| record.used_at);
            let (stored, kind) = last.map_or((None, CacheKind::Regular), |record| {
                (Some(record.description.clone()), record.kind)
            });
            self.cache_bytes.0 += bytes;
            self.cache_bytes.1 += if node.is_leased { 0 } else { bytes };
            self.cache.push(CacheUsage {
                id: node.id.clone(),
                parent: node.parent.map(|parent| inventory.layers[parent].id.clone()),
                kind,
                description: stored.or_else(|| node.description.clone()).unwrap_or_default(),
                bytes,
                created_at: node.created_at,
                used_at: last.map_or(node.created_at, |record| record.used_at),
                is_used: node.is_leased,
                is_shared,
            });
        }
        for (blob, bytes) in &inventory.blobs {
            if !counted.contains(blob) {
                self.cache_bytes.0 += bytes;
                let is_pinned = inventory.pinned_blobs.contains(blob);
                self.cache_bytes.1 += if is_pinned { 0 } else { *bytes };
            }
        }
    }
}

/// Returns what processes have in work; the directory of this one, which is gone in a moment, left out.
fn unfinished_bytes(inner: &Inner) -> Result<u64> {
    let tmp = inner.root.join("tmp");
    let mut bytes = blocks_of(&tmp)? + files_in(&tmp)?;
    for process in directories(&tmp)? {
        if process.file_name() != Some(inner.process.name().as_ref()) {
            bytes += measure(&process)?;
        }
    }
    Ok(bytes)
}

/// Returns what the index takes, and the directories and files that hold everything else.
pub(crate) fn own_bytes(inner: &Inner) -> Result<u64> {
    let root = &inner.root;
    let mut bytes = blocks_of(root)? + files_in(root)?;
    for name in ["content", "content/blobs", "content/blobs/sha256", "snapshots", "volumes"] {
        bytes += blocks_of(&root.join(name))?;
    }
    for name in ["mounts", "builds", ANCHOR] {
        bytes += blocks_of(&root.join(name))?;
    }
    bytes += files_in(&root.join("content"))? + measure(&root.join(MOUNT_POINTS))?;
    for mount in directories(&root.join("mounts"))? {
        bytes += blocks_of(&mount)? + files_in(&mount)?;
    }
    Ok(bytes)
}

/// Returns what unfinished downloads take that nobody works on.
pub(crate) fn idle_ingest(inner: &Inner) -> Result<u64> {
    Ok(ingest::idle(&inner.root)?.iter().map(|(_, bytes)| bytes).sum())
}

/// Returns what the files in a directory take, those below it left out.
pub(crate) fn files_in(path: &Path) -> Result<u64> {
    let entries = match std::fs::read_dir(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
        entries => entries.map_err(Error::io("read", path))?,
    };
    let mut bytes = 0;
    for entry in entries {
        let entry = entry.map_err(Error::io("read", path))?;
        if entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            bytes += blocks_of(&entry.path())?;
        }
    }
    Ok(bytes)
}
