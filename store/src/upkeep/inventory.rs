//! The inventory: all layers, records and blobs of a store, and the references to them. Garbage
//! collection, pruning and the account of disk space use it.
//!
//! A layer is *pinned* if an image or a lease of a living process reaches it. It is *kept* if a
//! cache record names it, or if a kept or pinned layer needs it: as a layer below, or for its tree,
//! which is the lower part of the other's tree. Otherwise it is garbage. An
//! image reaches its manifests, configs and layers' blobs, and the layers with the chain IDs that
//! result from its config's diff IDs.
//!
//! The disk space of a layer is that of its tree and of its packed forms. A blob of several layers
//! counts with the first of them.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use kiln_oci::{Digest, RootFs, json, media_type};
use rusqlite::Connection;
use serde::Deserialize;

use crate::cache::CacheKind;
use crate::content::Content;
use crate::content::images::{self, ImageRow};
use crate::db::digest_column;
use crate::error::Result;
use crate::layers::chain_id;
use crate::room::Room;

/// The maximal size in bytes of a manifest, index or config that is read.
const DOCUMENT: u64 = 16 << 20;
/// The maximal nesting depth of indexes.
const DEPTH: u32 = 4;

/// The parts of an image.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    pub(crate) blobs: HashSet<Digest>,
    pub(crate) chains: HashSet<Digest>,
    /// The smallest depth at which each manifest and index was found.
    depths: HashMap<Digest, u32>,
}

/// All images with their parts, each digest once.
#[derive(Debug, Default)]
pub(crate) struct ImageReach {
    pub(crate) rows: Vec<ImageRow>,
    pub(crate) reaches: HashMap<Digest, Reach>,
}

/// A layer in the inventory.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) id: String,
    pub(crate) parent: Option<usize>,
    /// The layer whose tree is the lower part of this layer's tree.
    pub(crate) earlier: Option<usize>,
    pub(crate) chain: Option<Digest>,
    /// The disk space of the tree in bytes.
    pub(crate) tree_bytes: u64,
    /// The disk space in bytes of the tree and of the blobs that count with it.
    pub(crate) bytes: u64,
    pub(crate) created_at: i64,
    pub(crate) description: Option<String>,
    pub(crate) blobs: Vec<Digest>,
    pub(crate) records: Vec<usize>,
    pub(crate) is_leased: bool,
    pub(crate) is_imaged: bool,
    /// `true` if the layer is pinned or kept.
    pub(crate) is_alive: bool,
}

/// A row of a layer, with the IDs of the layers that it needs.
struct LayerRow {
    node: Node,
    parent: Option<String>,
    earlier: Option<String>,
}

/// A cache record in the inventory.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) key: Digest,
    pub(crate) kind: CacheKind,
    pub(crate) description: String,
    pub(crate) used_at: i64,
    pub(crate) layers: Vec<usize>,
}

/// The layers, cache records and blobs of a store.
#[derive(Debug, Default)]
pub(crate) struct Inventory {
    pub(crate) layers: Vec<Node>,
    pub(crate) records: Vec<Record>,
    /// The disk space of each blob in bytes.
    pub(crate) blobs: HashMap<Digest, u64>,
    /// The blobs that an image or a lease needs.
    pub(crate) pinned_blobs: HashSet<Digest>,
}

impl ImageReach {
    /// Finds the parts of all images.
    pub(crate) fn of(room: &Arc<Room>) -> Result<Self> {
        let rows = images::list(room.index())?;
        let (content, mut reaches) = (Content::new(room), HashMap::new());
        for row in &rows {
            reaches.entry(row.digest).or_insert_with(|| {
                let mut reach = Reach::default();
                reach.mark(&content, &row.digest, &row.media_type, 0);
                reach
            });
        }
        Ok(Self { rows, reaches })
    }
}

impl Inventory {
    /// Takes the inventory within a transaction. If an image was named after `images` was read, the
    /// process that named it has leased its parts.
    pub(crate) fn take(connection: &Connection, images: &ImageReach) -> rusqlite::Result<Self> {
        let mut inventory = Self::default();
        inventory.take_blobs(connection, images)?;
        let places = inventory.take_layers(connection)?;
        inventory.take_packed(connection, &places)?;
        inventory.take_records(connection, &places)?;
        let leased = connection
            .prepare_cached("SELECT DISTINCT layer FROM lease_layers")?
            .query_map([], |row| row.get::<_, String>(0))?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        for place in leased.iter().filter_map(|id| places.get(id)) {
            inventory.spread(*place, |node| !std::mem::replace(&mut node.is_leased, true));
        }
        let chains: HashSet<Digest> =
            images.reaches.values().flat_map(|reach| &reach.chains).copied().collect();
        for place in 0..inventory.layers.len() {
            if inventory.layers[place].chain.is_some_and(|chain| chains.contains(&chain)) {
                inventory.spread(place, |node| !std::mem::replace(&mut node.is_imaged, true));
            }
        }
        inventory.revive();
        Ok(inventory)
    }

    fn take_blobs(&mut self, connection: &Connection, images: &ImageReach) -> rusqlite::Result<()> {
        self.blobs = connection
            .prepare_cached(
                "SELECT digest, coalesce(disk, (size + 4095) / 4096 * 4096) FROM blobs",
            )?
            .query_map([], |row| {
                Ok((Digest::from_bytes(row.get(0)?), row.get::<_, i64>(1)? as u64))
            })?
            .collect::<rusqlite::Result<_>>()?;
        self.pinned_blobs
            .extend(digest_column(connection, "SELECT DISTINCT digest FROM lease_blobs")?);
        self.pinned_blobs.extend(images.reaches.values().flat_map(|reach| &reach.blobs));
        Ok(())
    }

    fn take_layers(&mut self, connection: &Connection) -> rusqlite::Result<HashMap<String, usize>> {
        let sql =
            "SELECT id, parent, chain_id, has_tree, coalesce(disk, 0), created_at, description,
                    earlier
                   FROM layers ORDER BY created_at, id";
        let rows = connection
            .prepare_cached(sql)?
            .query_map([], |row| {
                let has_tree: bool = row.get(3)?;
                let tree_bytes = if has_tree { row.get::<_, i64>(4)? as u64 } else { 0 };
                let earlier = if has_tree { row.get(7)? } else { None };
                let node = Node {
                    id: row.get(0)?,
                    parent: None,
                    earlier: None,
                    chain: row.get::<_, Option<[u8; 32]>>(2)?.map(Digest::from_bytes),

                    tree_bytes,
                    bytes: tree_bytes,
                    created_at: row.get(5)?,
                    description: row.get(6)?,
                    blobs: Vec::new(),
                    records: Vec::new(),
                    is_leased: false,
                    is_imaged: false,
                    is_alive: false,
                };
                Ok(LayerRow { node, parent: row.get(1)?, earlier })
            })?
            .collect::<rusqlite::Result<Vec<LayerRow>>>()?;
        let places: HashMap<String, usize> =
            rows.iter().enumerate().map(|(place, row)| (row.node.id.clone(), place)).collect();
        let place = |id: Option<String>| id.and_then(|id| places.get(&id).copied());
        self.layers = rows
            .into_iter()
            .map(|row| Node { parent: place(row.parent), earlier: place(row.earlier), ..row.node })
            .collect();
        Ok(places)
    }

    fn take_packed(
        &mut self,
        connection: &Connection,
        places: &HashMap<String, usize>,
    ) -> rusqlite::Result<()> {
        let rows = connection
            .prepare_cached("SELECT layer, digest FROM layer_blobs")?
            .query_map([], |row| Ok((row.get(0)?, Digest::from_bytes(row.get(1)?))))?
            .collect::<rusqlite::Result<Vec<(String, Digest)>>>()?;
        let mut rows: Vec<(usize, Digest)> = rows
            .into_iter()
            .filter_map(|(layer, digest)| Some((*places.get(&layer)?, digest)))
            .collect();
        rows.sort_unstable();
        let mut counted = HashSet::new();
        for (place, digest) in rows {
            let node = &mut self.layers[place];
            node.blobs.push(digest);
            if let Some(bytes) = self.blobs.get(&digest)
                && counted.insert(digest)
            {
                node.bytes += bytes;
            }
        }
        Ok(())
    }

    fn take_records(
        &mut self,
        connection: &Connection,
        places: &HashMap<String, usize>,
    ) -> rusqlite::Result<()> {
        let sql = "SELECT key, kind, description, used_at FROM cache_records ORDER BY key";
        self.records = connection
            .prepare_cached(sql)?
            .query_map([], |row| {
                Ok(Record {
                    key: Digest::from_bytes(row.get(0)?),
                    kind: CacheKind::of(&row.get::<_, String>(1)?).unwrap_or_default(),
                    description: row.get(2)?,
                    used_at: row.get(3)?,
                    layers: Vec::new(),
                })
            })?
            .collect::<rusqlite::Result<_>>()?;
        let numbers: HashMap<Digest, usize> =
            self.records.iter().enumerate().map(|(number, record)| (record.key, number)).collect();
        let outputs = connection
            .prepare_cached("SELECT key, layer FROM cache_outputs WHERE layer IS NOT NULL")?
            .query_map([], |row| Ok((Digest::from_bytes(row.get(0)?), row.get(1)?)))?
            .collect::<rusqlite::Result<Vec<(Digest, String)>>>()?;
        for (key, layer) in outputs {
            if let (Some(number), Some(place)) = (numbers.get(&key), places.get(&layer)) {
                self.records[*number].layers.push(*place);
                self.layers[*place].records.push(*number);
            }
        }
        Ok(())
    }

    /// Marks a layer, those below it, and those with parts of their trees. `mark` returns `false`
    /// for a layer that is marked already.
    fn spread(&mut self, place: usize, mark: impl Fn(&mut Node) -> bool) {
        let mut waiting = vec![place];
        while let Some(place) = waiting.pop() {
            let node = &mut self.layers[place];
            if mark(node) {
                waiting.extend(node.parent.into_iter().chain(node.earlier));
            }
        }
    }

    /// Determines the layers that are pinned or kept.
    pub(crate) fn revive(&mut self) {
        self.layers.iter_mut().for_each(|node| node.is_alive = false);
        for place in 0..self.layers.len() {
            let node = &self.layers[place];
            if node.is_leased || node.is_imaged || !node.records.is_empty() {
                self.spread(place, |node| !std::mem::replace(&mut node.is_alive, true));
            }
        }
    }

    /// Returns the indexes of the garbage layers, leaves first.
    pub(crate) fn garbage(&self) -> Vec<usize> {
        let depth = |place: usize| {
            std::iter::successors(Some(place), |place| self.layers[*place].parent).count()
        };
        let mut dead: Vec<usize> =
            (0..self.layers.len()).filter(|place| !self.layers[*place].is_alive).collect();
        dead.sort_by_cached_key(|place| std::cmp::Reverse(depth(*place)));
        dead
    }

    /// Returns the blobs without any references.
    pub(crate) fn loose_blobs(&self) -> Vec<Digest> {
        let alive = self.layers.iter().filter(|node| node.is_alive);
        let packed: HashSet<Digest> = alive.flat_map(|node| &node.blobs).copied().collect();
        let is_held =
            |digest: &Digest| packed.contains(digest) || self.pinned_blobs.contains(digest);
        self.blobs.keys().filter(|digest| !is_held(digest)).copied().collect()
    }
}

/// The references of a manifest or an index.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Reference>,
    config: Option<Reference>,
    #[serde(default)]
    layers: Vec<Reference>,
}

#[derive(Deserialize)]
struct Reference {
    #[serde(rename = "mediaType", default)]
    media_type: String,
    digest: Digest,
}

impl Reach {
    /// Adds the parts of an image. An unreadable document has no parts.
    fn mark(&mut self, content: &Content, digest: &Digest, media_type: &str, depth: u32) {
        self.blobs.insert(*digest);
        // Nested indexes may name the same documents repeatedly.
        let least = self.depths.entry(*digest).or_insert(u32::MAX);
        if *least <= depth {
            return;
        }
        *least = depth;
        let Some(document) = parse::<Document>(content, digest) else { return };
        if media_type::is_index(media_type) {
            for manifest in document.manifests.iter().filter(|_| depth < DEPTH) {
                // An index may list platforms that were never fetched.
                if content.size(&manifest.digest).is_ok_and(|size| size.is_some()) {
                    self.mark(content, &manifest.digest, &manifest.media_type, depth + 1);
                }
            }
            return;
        }
        self.blobs.extend(document.layers.iter().map(|layer| layer.digest));
        let Some(config) = document.config else { return };
        self.blobs.insert(config.digest);
        let Some(config) = parse::<ConfigLayers>(content, &config.digest) else { return };
        let mut chain = None;
        for diff_id in config.rootfs.unwrap_or_default().diff_ids() {
            chain = Some(chain_id(chain.as_ref(), diff_id));
            self.chains.extend(chain);
        }
    }
}

/// The part of an image config that lists layers. The other parts may be large.
#[derive(serde::Deserialize)]
struct ConfigLayers {
    rootfs: Option<RootFs>,
}

fn parse<T: serde::de::DeserializeOwned>(content: &Content, digest: &Digest) -> Option<T> {
    let bytes = content
        .read(digest, DOCUMENT)
        .inspect_err(|error| tracing::warn!(%digest, %error, "can't read a part of an image"))
        .ok()?;
    json::from_go(&bytes)
        .inspect_err(|error| tracing::warn!(%digest, %error, "can't read a part of an image"))
        .ok()
}
