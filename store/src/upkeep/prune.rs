//! Pruning: removal of unused parts of the cache.
//!
//! Garbage is removed first. Then layers without layers above them are removed, the least recently
//! used first, followed by the layers below them in turn. Cache mounts come last, in the same
//! order. Images, data held by living processes, and locked cache mounts are never touched.
//!
//! The cache records of a layer are removed with it. If an image holds the layer too, removing the
//! record frees no space, and happens only if everything is to be removed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;
use std::sync::Arc;

use super::gc::collect_with;
use super::inventory::Inventory;
use super::{Upkeep, tree_sizes};
use crate::cache::{CacheKind, Uses, file_digests, mounts};
use crate::content::{ingest, volumes};
use crate::error::{Error, Result};
use crate::room::Room;
use crate::room::measure::blocks_of;
use crate::room::places::{self, Place};
use crate::room::remove::remove_tree;

/// The selection of parts to remove.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// `true` to also remove cache mounts, and the records of layers that images hold.
    pub all: bool,
    /// `true` to also remove unused volumes.
    pub volumes: bool,
    /// The kinds to remove; empty for all. Naming cache mounts includes them.
    pub kinds: Vec<CacheKind>,
    /// The IDs of the parts to remove, or prefixes of IDs; empty for all.
    pub ids: Vec<String>,
    /// The time since which a part must be unused, in nanoseconds since 1970.
    pub unused_since: Option<i64>,
    /// The size in bytes of the cache at which pruning stops.
    pub keep_bytes: u64,
}

/// A part that was removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedItem {
    /// The ID of the part.
    pub id: String,
    /// The kind of the part; `None` for a volume.
    pub kind: Option<CacheKind>,
    /// The disk space in bytes that it used.
    pub bytes: u64,
    /// The time of its last use, in nanoseconds since 1970.
    pub used_at: i64,
}

/// The result of pruning.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// The removed parts, in order.
    pub items: Vec<PrunedItem>,
    /// The disk space freed, in bytes.
    pub bytes: u64,
}

impl PruneOptions {
    fn wants(&self, kind: CacheKind, id: &str, used_at: i64) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&kind))
            && (self.ids.is_empty()
                || self.ids.iter().any(|wanted| id.starts_with(wanted.as_str())))
            && self.unused_since.is_none_or(|since| used_at < since)
    }

    fn wants_mounts(&self) -> bool {
        self.all || self.kinds.contains(&CacheKind::CacheMount)
    }
}

impl Upkeep {
    /// Removes the selected parts of the cache, and everything that is no longer referenced.
    pub(crate) fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        let room = &self.room;
        tree_sizes::measure_unknown(room)?;
        let places = places::measured(room)?;
        let is_mount = |place: &&Place| place.path.starts_with(mounts::PREFIX);
        let mounts: u64 = places.iter().filter(is_mount).map(|place| place.bytes).sum();
        let (collected, (items, rest)) = collect_with(room, &self.uses, |inventory| {
            let total = cache_bytes(inventory) + mounts;
            let mut choice = Choice::new(inventory, options);
            let wanted = total.saturating_sub(options.keep_bytes);
            choice.run((options.keep_bytes > 0).then_some(wanted));
            let rest = total.saturating_sub(choice.freed);
            (choice.records, (choice.items, rest))
        })?;
        let mut pruned = Pruned { items, bytes: collected.bytes };
        pruned.bytes += ingest::sweep(room.root())?;
        if options.wants_mounts() {
            let excess = rest.saturating_sub(options.keep_bytes);
            self.prune_mounts(places.iter().filter(is_mount), options, excess, &mut pruned)?;
        }
        if options.volumes {
            self.prune_volumes(&places, options, &mut pruned)?;
        }
        self.builds().prune()?;
        file_digests::forget_unused(room)?;
        room.index().shrink()?;
        Ok(pruned)
    }

    /// Removes the cache mounts that `options` select, the least recently used first. If the
    /// options keep a number of bytes, stops when `excess` bytes are freed.
    fn prune_mounts<'a>(
        &self,
        mounts: impl Iterator<Item = &'a Place>,
        options: &PruneOptions,
        mut excess: u64,
        pruned: &mut Pruned,
    ) -> Result<()> {
        let mut mounts: Vec<&Place> = mounts.collect();
        mounts.sort_by_key(|place| place.used_at);
        for place in mounts {
            let id = mounts::short_id(&place.path);
            let is_enough = options.keep_bytes > 0 && excess == 0;
            if is_enough || !options.wants(CacheKind::CacheMount, &id, place.used_at) {
                continue;
            }
            let Some(bytes) = mounts::remove(&self.room, &place.path)? else { continue };
            excess = excess.saturating_sub(place.bytes);
            pruned.bytes += bytes;
            let (kind, used_at) = (Some(CacheKind::CacheMount), place.used_at);
            pruned.items.push(PrunedItem { id, kind, bytes, used_at });
        }
        Ok(())
    }

    fn prune_volumes(
        &self,
        places: &[Place],
        options: &PruneOptions,
        pruned: &mut Pruned,
    ) -> Result<()> {
        for place in places {
            let Some(name) = place.path.strip_prefix(volumes::PREFIX) else { continue };
            if options.unused_since.is_some_and(|since| place.used_at >= since) {
                continue;
            }
            let Some(dir) = self.volumes().take_unused(name)? else { continue };
            let bytes = removed(&dir)?;
            places::forget(&self.room, &place.path)?;
            pruned.bytes += bytes;
            let (id, used_at) = (name.to_owned(), place.used_at);
            pruned.items.push(PrunedItem { id, kind: None, bytes, used_at });
        }
        Ok(())
    }
}

/// Frees `wanted` bytes, or as many as possible: garbage, incomplete downloads, the least
/// recently used layers of the cache, then cache mounts. Returns the number of bytes freed.
/// Removes nothing from the cache if that wouldn't free at least `least` bytes.
pub(super) fn evict(room: &Arc<Room>, uses: &Uses, least: u64, wanted: u64) -> Result<u64> {
    let mut freed = ingest::remove_idle(room.root())?;
    let mut mounts = places::measured(room)?;
    mounts.retain(|place| place.path.starts_with(mounts::PREFIX));
    let possible = freed + mounts.iter().map(|place| place.bytes).sum::<u64>();
    let options = PruneOptions::default();
    let (collected, is_possible) = collect_with(room, uses, |inventory| {
        let mut choice = Choice::new(inventory, &options);
        choice.run(Some(wanted.saturating_sub(freed)));
        let is_possible = possible + choice.freed >= least;
        let records = if is_possible { choice.records } else { Vec::new() };
        (records, is_possible)
    })?;
    freed += collected.bytes;
    let log = room.root().join("kiln.db-wal");
    if blocks_of(&log)? > room.cap().headroom() / 4 {
        room.index().shrink()?;
    }
    if freed >= wanted || !is_possible {
        return Ok(freed);
    }
    mounts.sort_by_key(|place| place.used_at);
    for place in mounts {
        if freed >= wanted {
            break;
        }
        freed += mounts::remove(room, &place.path)?.unwrap_or_default();
    }
    Ok(freed)
}

fn removed(dir: &Path) -> Result<u64> {
    remove_tree(dir).map_err(Error::io("remove", dir))
}

/// Returns the size in bytes of the cache without mounts: all layers that no image holds.
fn cache_bytes(inventory: &Inventory) -> u64 {
    inventory.layers.iter().filter(|node| !node.is_imaged).map(|node| node.bytes).sum()
}

/// The selection of layers to remove.
struct Choice<'a> {
    inventory: &'a mut Inventory,
    options: &'a PruneOptions,
    /// The number of layers directly above each layer, and of those with a tree on top of its tree.
    above: Vec<usize>,
    records: Vec<usize>,
    items: Vec<PrunedItem>,
    /// The number of bytes that the selection frees.
    freed: u64,
}

impl<'a> Choice<'a> {
    fn new(inventory: &'a mut Inventory, options: &'a PruneOptions) -> Self {
        let mut above = vec![0; inventory.layers.len()];
        for node in inventory.layers.iter().filter(|node| node.is_alive) {
            for needed in node.parent.into_iter().chain(node.earlier) {
                above[needed] += 1;
            }
        }
        Self { inventory, options, above, records: Vec::new(), items: Vec::new(), freed: 0 }
    }

    /// Selects layers until they free `wanted` bytes, if possible. Without a number it selects all
    /// layers, those without files, too.
    fn run(&mut self, wanted: Option<u64>) {
        for place in self.inventory.garbage() {
            self.give_up(place);
        }
        let mut leaves: BinaryHeap<Reverse<(i64, usize)>> = (0..self.above.len())
            .filter(|place| self.is_leaf(*place))
            .map(|place| Reverse((self.used_at(place), place)))
            .collect();
        while wanted.is_none_or(|wanted| self.freed < wanted)
            && let Some(Reverse((used_at, place))) = leaves.pop()
        {
            if !self.is_leaf(place) || !self.is_wanted(place, used_at) {
                continue;
            }
            self.give_up(place);
            let lost = self.drop_records(place);
            self.inventory.layers[place].is_alive = false;
            let node = &self.inventory.layers[place];
            let needed: Vec<usize> = node.parent.into_iter().chain(node.earlier).collect();
            for needed in &needed {
                self.above[*needed] -= 1;
            }
            for next in lost.into_iter().chain(needed) {
                if self.is_leaf(next) {
                    leaves.push(Reverse((self.used_at(next), next)));
                }
            }
        }
        if self.options.all && self.options.keep_bytes == 0 {
            self.drop_imaged();
        }
        self.inventory.revive();
    }

    /// Returns `true` if no layer needs this one, and no image or lease holds it.
    fn is_leaf(&self, place: usize) -> bool {
        let node = &self.inventory.layers[place];
        node.is_alive && !node.is_leased && !node.is_imaged && self.above[place] == 0
    }

    /// Returns `true` if the options select a layer. A layer without records is removed with the
    /// last layer above it.
    fn is_wanted(&self, place: usize, used_at: i64) -> bool {
        let node = &self.inventory.layers[place];
        node.records.is_empty() || self.options.wants(self.kind(place), &node.id, used_at)
    }

    fn kind(&self, place: usize) -> CacheKind {
        let records = &self.inventory.layers[place].records;
        records.first().map(|record| self.inventory.records[*record].kind).unwrap_or_default()
    }

    fn used_at(&self, place: usize) -> i64 {
        let node = &self.inventory.layers[place];
        let used = node.records.iter().map(|record| self.inventory.records[*record].used_at);
        used.max().unwrap_or(node.created_at)
    }

    fn give_up(&mut self, place: usize) {
        let node = &self.inventory.layers[place];
        self.freed += node.bytes;
        let (id, bytes) = (node.id.clone(), node.bytes);
        let (kind, used_at) = (Some(self.kind(place)), self.used_at(place));
        self.items.push(PrunedItem { id, kind, bytes, used_at });
    }

    /// Removes the records of a layer. Returns the other layers of these records.
    fn drop_records(&mut self, place: usize) -> Vec<usize> {
        let mut others = Vec::new();
        for record in std::mem::take(&mut self.inventory.layers[place].records) {
            self.records.push(record);
            for layer in std::mem::take(&mut self.inventory.records[record].layers) {
                if layer != place {
                    self.inventory.layers[layer].records.retain(|known| *known != record);
                    others.push(layer);
                }
            }
        }
        others
    }

    /// Removes the records of layers that images hold.
    fn drop_imaged(&mut self) {
        for place in 0..self.inventory.layers.len() {
            let node = &self.inventory.layers[place];
            let used_at = self.used_at(place);
            if node.is_imaged && !node.is_leased && self.is_wanted(place, used_at) {
                self.drop_records(place);
            }
        }
    }
}
