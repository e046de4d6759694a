//! Garbage collection.
//!
//! Roots are images, cache records, and the leases of living processes. An image reaches its
//! manifests, configs and layers' blobs, and the layers with the chain IDs that its config's diff
//! IDs make; a layer reaches those below it and its packed forms. Rows go in one transaction, leaves
//! first, then the files, all with the root lock held exclusively: a blob that is stored anew just
//! then waits, and isn't unlinked under its row. Trees are moved away under the lock and removed
//! after it.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use kiln_oci::{Digest, ImageConfig, media_type};
use rusqlite::Connection;
use serde::Deserialize;

use crate::content::Content;
use crate::error::{Error, Result};
use crate::ingest;
use crate::layers::chain_id;
use crate::lock::RootLock;
use crate::recovery::{self, digest_column, text_column};
use crate::remove::remove_tree;
use crate::store::{Inner, Store};

/// The largest manifest, index or config that is looked into.
const DOCUMENT: u64 = 16 << 20;
/// How deep indexes may hold indexes.
const DEPTH: u32 = 4;

/// What was collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Layers removed.
    pub layers: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Bytes freed, in real disk blocks.
    pub bytes: u64,
}

impl Store {
    /// Removes every blob and layer that no image, no cache record and no living lease reaches.
    pub fn collect(&self) -> Result<Collected> {
        let inner = self.inner();
        inner.flush_used()?;
        let mut collected = Collected::default();
        let mut trees = Vec::new();
        {
            let _alone = RootLock::exclusive(&inner.root)?;
            recovery::reap(inner)?;
            let doomed = self.doom()?;
            collected.layers = doomed.layers.len() as u64;
            collected.blobs = doomed.blobs.len() as u64;
            for id in &doomed.layers {
                trees.extend(set_aside(inner, id)?);
            }
            for digest in &doomed.blobs {
                collected.bytes += unlink_blob(&self.content(), digest)?;
            }
        }
        collected.bytes += ingest::sweep(&inner.root)?;
        for tree in trees {
            collected.bytes += remove_tree(&tree).map_err(Error::io("remove", &tree))?;
        }
        self.builds().prune()?;
        Ok(collected)
    }

    /// Deletes the rows of what nothing reaches.
    fn doom(&self) -> Result<Doomed> {
        let content = self.content();
        let images = self.images().list()?;
        let mut reached = Reached::default();
        for image in &images {
            reached.image(&content, &image.digest, &image.media_type, 0);
        }
        self.inner().index.write("collect garbage", |transaction| {
            // Images that were named since the list was made have their blobs leased by whoever
            // named them.
            reached.leased(transaction)?;
            let layers = reached.dead_layers(transaction)?;
            for id in &layers {
                for sql in
                    ["DELETE FROM layer_blobs WHERE layer = ?1", "DELETE FROM layers WHERE id = ?1"]
                {
                    transaction.prepare_cached(sql)?.execute([id])?;
                }
            }
            let packed = digest_column(transaction, "SELECT DISTINCT digest FROM layer_blobs")?;
            reached.blobs.extend(packed);
            let mut blobs = digest_column(transaction, "SELECT digest FROM blobs")?;
            blobs.retain(|digest| !reached.blobs.contains(digest));
            for digest in &blobs {
                transaction
                    .prepare_cached("DELETE FROM blobs WHERE digest = ?1")?
                    .execute([digest.as_bytes()])?;
            }
            let orphans = "DELETE FROM blob_repositories WHERE digest NOT IN
                           (SELECT digest FROM blobs UNION SELECT digest FROM layer_blobs)";
            transaction.prepare_cached(orphans)?.execute([])?;
            Ok(Doomed { layers, blobs })
        })
    }
}

struct Doomed {
    layers: Vec<String>,
    blobs: Vec<Digest>,
}

#[derive(Default)]
struct Reached {
    blobs: HashSet<Digest>,
    chains: HashSet<Digest>,
    layers: HashSet<String>,
}

/// What a manifest or an index refers to.
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

impl Reached {
    /// Marks an image. What can't be read reaches nothing: it is of no use to anybody.
    fn image(&mut self, content: &Content, digest: &Digest, media_type: &str, depth: u32) {
        self.blobs.insert(*digest);
        let Some(document) = parse::<Document>(content, digest) else { return };
        if media_type::is_index(media_type) {
            for manifest in document.manifests.iter().filter(|_| depth < DEPTH) {
                // An index may list platforms that were never fetched.
                if content.size(&manifest.digest).is_ok_and(|size| size.is_some()) {
                    self.image(content, &manifest.digest, &manifest.media_type, depth + 1);
                }
            }
            return;
        }
        self.blobs.extend(document.layers.iter().map(|layer| layer.digest));
        let Some(config) = document.config else { return };
        self.blobs.insert(config.digest);
        let Some(config) = parse::<ImageConfig>(content, &config.digest) else { return };
        let mut chain = None;
        for diff_id in config.rootfs.diff_ids() {
            chain = Some(chain_id(chain.as_ref(), diff_id));
            self.chains.extend(chain);
        }
    }

    fn leased(&mut self, connection: &Connection) -> rusqlite::Result<()> {
        self.blobs.extend(digest_column(connection, "SELECT digest FROM lease_blobs")?);
        self.layers.extend(text_column(connection, "SELECT layer FROM lease_layers")?);
        let cached = "SELECT layer FROM cache_outputs WHERE layer IS NOT NULL";
        self.layers.extend(text_column(connection, cached)?);
        Ok(())
    }

    /// Returns the layers that nothing reaches, leaves first.
    fn dead_layers(&self, connection: &Connection) -> rusqlite::Result<Vec<String>> {
        let rows = connection
            .prepare_cached("SELECT id, parent, chain_id FROM layers")?
            .query_map([], |row| {
                let chain = row.get::<_, Option<[u8; 32]>>(2)?.map(Digest::from_bytes);
                Ok((row.get(0)?, row.get(1)?, chain))
            })?
            .collect::<rusqlite::Result<Vec<(String, Option<String>, Option<Digest>)>>>()?;
        let parents: HashMap<&str, Option<&str>> =
            rows.iter().map(|(id, parent, _)| (id.as_str(), parent.as_deref())).collect();
        let mut alive = HashSet::new();
        for (id, _, chain) in &rows {
            if self.layers.contains(id) || chain.is_some_and(|chain| self.chains.contains(&chain)) {
                let mut at = Some(id.as_str());
                while let Some(id) = at.filter(|id| alive.insert(*id)) {
                    at = parents.get(id).copied().flatten();
                }
            }
        }
        let depth = |id: &str| {
            std::iter::successors(Some(id), |id| parents.get(id).copied().flatten()).count()
        };
        let mut dead: Vec<(usize, &str)> =
            parents.keys().filter(|id| !alive.contains(*id)).map(|id| (depth(id), *id)).collect();
        dead.sort_unstable_by(|a, b| b.cmp(a));
        Ok(dead.into_iter().map(|(_, id)| id.to_owned()).collect())
    }
}

fn parse<T: serde::de::DeserializeOwned>(content: &Content, digest: &Digest) -> Option<T> {
    let bytes = content
        .read(digest, DOCUMENT)
        .inspect_err(|error| tracing::warn!(%digest, %error, "can't read a part of an image"))
        .ok()?;
    serde_json::from_slice(&bytes)
        .inspect_err(|error| tracing::warn!(%digest, %error, "can't read a part of an image"))
        .ok()
}

/// Moves a tree to where nobody else sees it.
fn set_aside(inner: &Inner, id: &str) -> Result<Option<PathBuf>> {
    let (from, to) = (inner.trees.join(id), inner.process.fresh());
    match fs::rename(&from, &to) {
        Ok(()) => Ok(Some(to)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("rename", from)(error)),
    }
}

fn unlink_blob(content: &Content, digest: &Digest) -> Result<u64> {
    let path = content.path(digest);
    let bytes = fs::symlink_metadata(&path).map_or(0, |file| file.blocks() * 512);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::io("remove", path)(error))
        }
        _ => Ok(bytes),
    }
}
