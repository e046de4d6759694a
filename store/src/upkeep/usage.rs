//! The account of disk space.
//!
//! It needs no walk. The index has the sizes of layers and blobs, measured when they were stored,
//! and the sizes of cache mounts and volumes, measured after their last use. Only the blocks of
//! some remaining files and directories are queried. So the account takes as long for a large store
//! as for a small one, and agrees with `du`: it counts every file once, in blocks.
//!
//! Data that both images and the cache hold counts with the images.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use kiln_oci::Digest;

use super::inventory::{ImageReach, Inventory, Reach};
use super::{Upkeep, tree_sizes};
use crate::cache::{CacheKind, mounts};
use crate::content::{ingest, volumes};
use crate::error::{Error, Result};
use crate::room::Room;
use crate::room::layout::{ANCHOR, BLOBS, HISTORY, MOUNT_POINTS, TREES};
use crate::room::measure::{blocks_of, measure};
use crate::room::places::{self, directories};

/// The disk space of a store by part, in bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskUsage {
    /// The images, newest first. An image with several names is listed once.
    pub images: Vec<ImageUsage>,
    /// The size of all images together, and the part of it that no container or build holds.
    pub images_bytes: (u64, u64),
    /// The parts of the cache, the most recently used first.
    pub cache: Vec<CacheUsage>,
    /// The size of the cache, and the part of it that can be freed.
    pub cache_bytes: (u64, u64),
    /// The volumes, sorted by name.
    pub volumes: Vec<VolumeUsage>,
    /// The number of recorded builds, and the size of their logs and of a server's history.
    pub builds: (u64, u64),
    /// The size of the index and of the store's own directories and files.
    pub index_bytes: u64,
    /// The size of unfinished data.
    pub temporary_bytes: u64,
}

/// The disk space of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageUsage {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// The size in bytes, including shared data.
    pub bytes: u64,
    /// The size in bytes of the data that other images share.
    pub shared_bytes: u64,
    /// `true` if a container or a build holds the image.
    pub is_used: bool,
}

/// The disk space of a part of the cache: a layer or a cache mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheUsage {
    /// The ID of the layer or cache mount.
    pub id: String,
    /// The ID of the layer below.
    pub parent: Option<String>,
    /// The kind of the part.
    pub kind: CacheKind,
    /// The description that was stored with the record, or the ID of a cache mount.
    pub description: String,
    /// The size in bytes.
    pub bytes: u64,
    /// The creation time, in nanoseconds since 1970.
    pub created_at: i64,
    /// The time of the last use, in nanoseconds since 1970.
    pub used_at: i64,
    /// `true` if a process holds the part.
    pub is_used: bool,
    /// `true` if an image holds the part. Its size then counts with the image.
    pub is_shared: bool,
}

/// The disk space of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeUsage {
    /// The name of the volume.
    pub name: String,
    /// The size in bytes.
    pub bytes: u64,
    /// `true` if a container uses the volume.
    pub is_used: bool,
}

impl DiskUsage {
    /// Returns the total disk space in bytes.
    pub fn total(&self) -> u64 {
        let volumes: u64 = self.volumes.iter().map(|volume| volume.bytes).sum();
        self.images_bytes.0
            + self.cache_bytes.0
            + volumes
            + self.builds.1
            + self.index_bytes
            + self.temporary_bytes
    }
}

impl Upkeep {
    /// Returns the disk space of the store by part.
    pub(crate) fn disk_usage(&self) -> Result<DiskUsage> {
        let room = &self.room;
        self.uses.flush(room.index())?;
        tree_sizes::measure_unknown(room)?;
        let images = ImageReach::of(room)?;
        let places = places::measured(room)?;
        let inventory = room
            .index()
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
            let is_used = mounts::is_used(room, &place.path)?;
            usage.cache_bytes.0 += place.bytes;
            usage.cache_bytes.1 += if is_used { 0 } else { place.bytes };
            usage.cache.push(CacheUsage {
                id: mounts::short_id(&place.path),
                parent: None,
                kind: CacheKind::CacheMount,
                description: mounts::id_of(room, &place.path),
                bytes: place.bytes,
                created_at: place.created_at,
                used_at: place.used_at,
                is_used,
                is_shared: false,
            });
        }
        usage.cache.sort_by_key(|part| std::cmp::Reverse(part.used_at));
        let builds = self.builds().count()?;
        usage.builds = (builds, build_bytes(room)?);
        usage.index_bytes = own_bytes(room)?;
        usage.temporary_bytes = unfinished_bytes(room)?
            + files_in(&room.root().join("ingest"))?
            + blocks_of(&room.root().join("ingest"))?;
        Ok(usage)
    }
}

/// The images to which each part belongs.
struct Parts {
    /// The blobs that images hold, as packed forms of their layers or directly.
    blobs: HashSet<Digest>,
    /// The layers and blobs of each image.
    images: BTreeMap<Digest, (Vec<usize>, HashSet<Digest>)>,
    /// The number of images that hold each layer and each blob.
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
        let mut layers: Vec<usize> = reach
            .chains
            .iter()
            .filter_map(|chain| by_chain.get(chain))
            .flatten()
            .copied()
            .collect();
        // A layer's tree may have a part that is the tree of another layer.
        let earlier = layers.iter().filter_map(|place| inventory.layers[*place].earlier);
        let earlier: Vec<usize> = earlier.collect();
        layers.extend(earlier);
        layers.sort_unstable();
        layers.dedup();
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
            // A layer shared with another image may be in use because of that image.
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

/// Returns the size of the processes' unfinished data, without this process's directory, which is
/// about to be removed.
fn unfinished_bytes(room: &Room) -> Result<u64> {
    let tmp = room.root().join("tmp");
    let mut bytes = blocks_of(&tmp)? + files_in(&tmp)?;
    for process in directories(&tmp)? {
        if process.file_name() != Some(room.process().name().as_ref()) {
            bytes += measure(&process)?;
        }
    }
    Ok(bytes)
}

/// Returns the size of everything without a row in the index.
pub(super) fn unrecorded_bytes(room: &Room) -> Result<u64> {
    Ok(own_bytes(room)? + build_bytes(room)? + idle_ingest(room)?)
}

/// Returns the size of the builds' logs and of a server's history.
fn build_bytes(room: &Room) -> Result<u64> {
    Ok(files_in(&room.root().join("builds"))? + measure(&room.root().join(HISTORY))?)
}

/// Returns the size of the index, and of the directories and files around everything else.
fn own_bytes(room: &Room) -> Result<u64> {
    let root = room.root();
    let mut bytes = blocks_of(root)? + files_in(root)?;
    for name in ["content", "content/blobs", BLOBS, TREES, "volumes"] {
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

/// Returns the size of the incomplete downloads that no process works on.
fn idle_ingest(room: &Room) -> Result<u64> {
    Ok(ingest::idle(room.root())?.iter().map(|(_, bytes)| bytes).sum())
}

/// Returns the size of the files directly in a directory.
fn files_in(path: &Path) -> Result<u64> {
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
