//! Pruning: giving up parts of the cache that nobody is using.
//!
//! Garbage goes first. Of the rest, layers that nothing stands on go, those first that were used the
//! longest time ago; what they stood on follows in its turn. Only then come cache mounts, in the same
//! order. Images and what living processes hold are never touched, a cache mount that is locked
//! neither.
//!
//! A record that led to a layer goes with it. Where an image holds the layer too, giving up the
//! record frees nothing, and is done only where everything is to go.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use crate::cache::CacheKind;
use crate::error::{Error, Result};
use crate::inventory::Inventory;
use crate::measure::blocks_of;
use crate::places::{self, Place};
use crate::remove::remove_tree;
use crate::store::{Inner, Store};
use crate::{cache_mounts, file_digests, ingest, tree_sizes, volumes};

/// What is to go.
#[derive(Clone, Debug, Default)]
pub struct PruneOptions {
    /// Cache mounts too, and the records of layers that images hold.
    pub all: bool,
    /// Volumes that nobody is using, too.
    pub volumes: bool,
    /// Of these kinds only; of all where it is empty. Naming cache mounts asks for them.
    pub kinds: Vec<CacheKind>,
    /// Only what has one of these IDs, or begins of them; all where it is empty.
    pub ids: Vec<String>,
    /// Only what wasn't used since then, nanoseconds since 1970.
    pub unused_since: Option<i64>,
    /// Stops when the cache takes no more than so many bytes.
    pub keep_bytes: u64,
}

/// Something that is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrunedItem {
    /// Its ID.
    pub id: String,
    /// What it was; `None` for a volume.
    pub kind: Option<CacheKind>,
    /// How many bytes it took.
    pub bytes: u64,
    /// When it was used last, nanoseconds since 1970.
    pub used_at: i64,
}

/// What has become of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// What is gone, in the order in which it went.
    pub items: Vec<PrunedItem>,
    /// How many bytes that has freed.
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

impl Store {
    /// Gives up what is asked for, and what nothing holds any more.
    ///
    /// # Errors
    /// Fails where something can't be removed.
    pub fn prune(&self, options: &PruneOptions) -> Result<Pruned> {
        let inner = self.inner();
        tree_sizes::measure_unknown(inner)?;
        let places = places::measured(inner)?;
        let is_mount = |place: &&Place| place.path.starts_with(cache_mounts::PREFIX);
        let mounts: u64 = places.iter().filter(is_mount).map(|place| place.bytes).sum();
        let (collected, (items, rest)) = self.collect_with(|inventory| {
            let total = cache_bytes(inventory) + mounts;
            let mut choice = Choice::new(inventory, options);
            choice.run(total.saturating_sub(options.keep_bytes));
            let rest = total.saturating_sub(choice.freed);
            (choice.records, (choice.items, rest))
        })?;
        let mut pruned = Pruned { items, bytes: collected.bytes };
        pruned.bytes += ingest::sweep(&inner.root)?;
        if options.wants_mounts() {
            let excess = rest.saturating_sub(options.keep_bytes);
            self.prune_mounts(places.iter().filter(is_mount), options, excess, &mut pruned)?;
        }
        if options.volumes {
            self.prune_volumes(&places, options, &mut pruned)?;
        }
        self.builds().prune()?;
        file_digests::forget_unused(inner)?;
        inner.index.shrink()?;
        Ok(pruned)
    }

    /// Removes cache mounts that `options` wants removed, those unused longest first, until `excess`
    /// bytes are freed where a number of bytes is to be kept.
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
            let id = cache_mounts::short_id(&place.path);
            let is_enough = options.keep_bytes > 0 && excess == 0;
            if is_enough || !options.wants(CacheKind::CacheMount, &id, place.used_at) {
                continue;
            }
            let Some(bytes) = cache_mounts::remove(self.inner(), &place.path)? else { continue };
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
            places::forget(self.inner(), &place.path)?;
            pruned.bytes += bytes;
            let (id, used_at) = (name.to_owned(), place.used_at);
            pruned.items.push(PrunedItem { id, kind: None, bytes, used_at });
        }
        Ok(())
    }

    /// Frees `wanted` bytes, or as many as can be: garbage, remains of downloads, the least recently
    /// used layers of the cache, then cache mounts. Returns how many were freed. Of the cache nothing
    /// goes where that wouldn't free `least` bytes.
    pub(crate) fn evict(&self, least: u64, wanted: u64) -> Result<u64> {
        let inner: &Inner = self.inner();
        let mut freed = ingest::remove_idle(&inner.root)?;
        let mut mounts = places::measured(inner)?;
        mounts.retain(|place| place.path.starts_with(cache_mounts::PREFIX));
        let possible = freed + mounts.iter().map(|place| place.bytes).sum::<u64>();
        let options = PruneOptions::default();
        let (collected, is_possible) = self.collect_with(|inventory| {
            let mut choice = Choice::new(inventory, &options);
            choice.run(wanted.saturating_sub(freed));
            let is_possible = possible + choice.freed >= least;
            let records = if is_possible { choice.records } else { Vec::new() };
            (records, is_possible)
        })?;
        freed += collected.bytes;
        let log = inner.root.join("kiln.db-wal");
        if blocks_of(&log)? > inner.room.headroom() / 4 {
            inner.index.shrink()?;
        }
        if freed >= wanted || !is_possible {
            return Ok(freed);
        }
        mounts.sort_by_key(|place| place.used_at);
        for place in mounts {
            if freed >= wanted {
                break;
            }
            freed += cache_mounts::remove(inner, &place.path)?.unwrap_or_default();
        }
        Ok(freed)
    }
}

fn removed(dir: &Path) -> Result<u64> {
    remove_tree(dir).map_err(Error::io("remove", dir))
}

/// Returns how many bytes the cache takes, mounts left out: all that no image holds.
fn cache_bytes(inventory: &Inventory) -> u64 {
    inventory.layers.iter().filter(|node| !node.is_imaged).map(|node| node.bytes).sum()
}

/// What is chosen to go.
struct Choice<'a> {
    inventory: &'a mut Inventory,
    options: &'a PruneOptions,
    /// How many layers stand on each.
    above: Vec<usize>,
    records: Vec<usize>,
    items: Vec<PrunedItem>,
    /// How many bytes will be freed by it.
    freed: u64,
}

impl<'a> Choice<'a> {
    fn new(inventory: &'a mut Inventory, options: &'a PruneOptions) -> Self {
        let mut above = vec![0; inventory.layers.len()];
        for node in inventory.layers.iter().filter(|node| node.is_alive) {
            if let Some(parent) = node.parent {
                above[parent] += 1;
            }
        }
        Self { inventory, options, above, records: Vec::new(), items: Vec::new(), freed: 0 }
    }

    /// Chooses until `wanted` bytes are freed, if there are so many.
    fn run(&mut self, wanted: u64) {
        for place in self.inventory.garbage() {
            self.give_up(place);
        }
        let mut leaves: BinaryHeap<Reverse<(i64, usize)>> = (0..self.above.len())
            .filter(|place| self.is_leaf(*place))
            .map(|place| Reverse((self.used_at(place), place)))
            .collect();
        while self.freed < wanted
            && let Some(Reverse((used_at, place))) = leaves.pop()
        {
            if !self.is_leaf(place) || !self.is_wanted(place, used_at) {
                continue;
            }
            self.give_up(place);
            let lost = self.drop_records(place);
            self.inventory.layers[place].is_alive = false;
            let parent = self.inventory.layers[place].parent;
            if let Some(parent) = parent {
                self.above[parent] -= 1;
            }
            for next in lost.into_iter().chain(parent) {
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

    /// Tells whether nothing stands on a layer, and nobody needs it.
    fn is_leaf(&self, place: usize) -> bool {
        let node = &self.inventory.layers[place];
        node.is_alive && !node.is_leased && !node.is_imaged && self.above[place] == 0
    }

    /// Tells whether a layer is asked for; one that no record names goes with the last that stood
    /// on it.
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

    /// Drops the records of a layer, and returns the other layers that these led to.
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

    /// Drops the records of layers that stay with images.
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
