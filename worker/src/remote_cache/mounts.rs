//! The cache mounts in a cache, and those that a build uses.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_event::Reporter;
use kiln_images::{Blobs, Origin, blocking};
use kiln_llb::Graph;
use kiln_llb::Vertex;
use kiln_llb::op::{CacheMount, MountKind, OpKind, SourceOp};
use kiln_oci::cache::CacheMountContent;
use kiln_oci::error::chain;
use kiln_solver::{Cache, VertexKeys};
use kiln_store::{CacheMountGuard, LayerBlob, Sharing};
use kiln_tree::{Attributes, Owner, UnpackOptions};

use super::{ImportedCache, RemoteCache};
use crate::error::{Error, Result};
use crate::exec::mounts::cache_mount_key;
use crate::output::Output;
use crate::source::identifier::Identifier;
use crate::worker::{Worker, platform};

impl RemoteCache {
    /// Returns the cache mounts that a graph uses, the store lacks and remote caches have, each
    /// with the caches' contents for it.
    fn missing_mounts(&self, graph: &Graph) -> BTreeMap<&str, Vec<MountSource<'_>>> {
        let used: BTreeSet<&str> =
            graph.vertices().iter().flat_map(caches).map(|(_, cache)| cache.id.as_str()).collect();
        let mut missing: BTreeMap<&str, Vec<MountSource<'_>>> = BTreeMap::new();
        for import in self.imports.iter().filter(|import| import.wants_mounts) {
            let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
            for mount in &import.config.mounts {
                let Some(id) = used.iter().find(|id| is_of(&mount.id, id)) else { continue };
                let count = counts.entry(id).or_default();
                *count += 1;
                if *count <= MOST_OF_ID && !self.store.cache_mounts().is_known(&mount.id) {
                    missing.entry(&mount.id).or_default().push((import, mount));
                }
            }
        }
        missing
    }

    /// Fills missing cache mounts of a graph from remote caches. Calls `reporter` for a reporter of
    /// a step if there is work. A mount that can't be filled stays as it is and causes a
    /// warning.
    pub async fn fill_mounts(
        &self,
        graph: &Graph,
        blobs: &Blobs,
        reporter: impl FnOnce() -> Reporter,
    ) {
        let missing = self.missing_mounts(graph);
        if missing.is_empty() {
            return;
        }
        let reporter = reporter();
        let fills = missing.into_values().map(async |offers| {
            for (import, mount) in offers {
                let Err(error) = fill(import, mount, blobs, &reporter).await else { return };
                let (id, name) = (&mount.id, &import.name);
                let problem = chain(&error);
                let message = format!("cache {name}: cache mount {id} can't be filled: {problem}");
                reporter.warn(message);
            }
        });
        futures_util::future::join_all(fills).await;
        // No step has failed because of these blobs.
        drop(blobs.take_lost());
    }
}

/// A cache and its content for a cache mount.
type MountSource<'a> = (&'a ImportedCache, &'a CacheMountContent);

async fn fill(
    import: &ImportedCache,
    mount: &CacheMountContent,
    blobs: &Blobs,
    reporter: &Reporter,
) -> Result<()> {
    let blob = LayerBlob {
        media_type: mount.blob.media_type.clone(),
        digest: mount.blob.digest,
        size: mount.blob.size,
        origin: Some(import.origin.clone()),
    };
    blobs.ensure(&blob, reporter).await?;
    let (blobs, mount) = (blobs.clone(), mount.clone());
    blocking(move || {
        let mounts = blobs.store.cache_mounts();
        // Other users of the mount wait until it is filled.
        let (mut guard, is_new) = mounts.acquire(&mount.id, Sharing::Locked)?;
        if !is_new {
            return Ok(());
        }
        match unpack(&guard, &mount, &blobs) {
            Ok(()) => Ok(guard.ready()?),
            Err(error) => {
                guard.abandon()?;
                Err(error)
            }
        }
    })
    .await
}

fn unpack(guard: &CacheMountGuard, mount: &CacheMountContent, blobs: &Blobs) -> Result<()> {
    let digest = &mount.blob.digest;
    let file = blobs.store.content().open(digest)?;
    let (mut plain, _) =
        blobs.limits.decompress(file).map_err(Error::kernel("decompress", digest))?;
    let dest = guard.open()?;
    let max_entries = blobs.limits.max_entries;
    kiln_tree::unpack(
        &mut plain,
        &dest,
        UnpackOptions { max_entries, ..UnpackOptions::default() },
    )?;
    let owner = Some(Owner { uid: mount.uid, gid: mount.gid });
    let attributes = Attributes { mode: Some(mount.mode & 0o7777), owner, mtime: None };
    Ok(dest.set_attributes(Path::new("/"), &attributes)?)
}

impl Worker {
    /// Resolves the tags of a graph's images, so that steps on top of them have cache keys. A tag
    /// that can't be resolved is left to the step that loads the image.
    pub async fn know_images(&self, graph: &Graph) {
        let resolve = |source: &SourceOp| {
            let Ok(Identifier::Image(reference, policy)) = Identifier::parse(source) else {
                return None;
            };
            Some(async move {
                if let Err(error) = self.images.digest_by(&reference, policy).await {
                    tracing::debug!(%error, %reference, "can't resolve an image yet");
                }
            })
        };
        let sources = graph.vertices().iter().filter_map(|vertex| match &vertex.op.kind {
            Some(OpKind::Source(source)) => resolve(source),
            _ => None,
        });
        futures_util::future::join_all(sources).await;
    }

    /// Declares the layers of a graph's base images if their documents are in the store. The
    /// store's information from an image takes precedence over a cache's.
    pub async fn know_bases(&self, graph: &Graph) {
        for vertex in graph.vertices() {
            let Some(OpKind::Source(source)) = &vertex.op.kind else { continue };
            let Ok(identifier) = Identifier::parse(source) else { continue };
            let (origin, digest) = match &identifier {
                Identifier::Image(reference, _) => {
                    (Some(Origin::Registry(reference.name())), self.images.known_digest(reference))
                }
                Identifier::Layout(reference, name) => {
                    let digest = reference.digest();
                    let place = digest.and_then(|digest| self.images.layout(name, &digest));
                    (place.map(Origin::Layout), digest)
                }
                Identifier::Local(_) | Identifier::Blob(_) | Identifier::Remote(_) => continue,
            };
            let (Some(origin), Some(digest)) = (origin, digest) else { continue };
            let store = &self.snapshots.store;
            if !store.content().size(&digest).is_ok_and(|size| size.is_some()) {
                continue;
            }
            let platform = platform(vertex);
            let images = &self.images;
            if let Err(error) = images.declare(&origin, &digest, &platform).await {
                tracing::debug!(%error, %digest, "can't tell the layers of a base image");
            }
        }
    }

    /// Returns the keys of the cache mounts that a solved graph uses and the store has, sorted.
    /// Mounts that start with files without a tree in the store are left out, because their keys
    /// are unknown.
    ///
    /// # Errors
    /// Fails if the store fails.
    pub async fn used_mounts(
        &self,
        graph: &Graph,
        keys: &[Option<VertexKeys>],
        cache: &RemoteCache,
    ) -> Result<Vec<String>> {
        let mut used = Vec::new();
        for vertex in graph.vertices() {
            for (input, mount) in caches(vertex) {
                let input = match input {
                    None => Some(Output::Layer(None)),
                    Some(input) => self.beginning(vertex, input, keys, cache).await?,
                };
                let Some(input) = input else { continue };
                let (snapshots, mount) = (self.snapshots.clone(), mount.clone());
                used.push(blocking(move || cache_mount_key(&snapshots, &mount, &input)).await?);
            }
        }
        used.sort_unstable();
        used.dedup();
        used.retain(|id| self.snapshots.store.cache_mounts().is_known(id));
        Ok(used)
    }

    /// Returns an input of a vertex if the store has it with all trees.
    async fn beginning(
        &self,
        vertex: &Vertex,
        input: u32,
        keys: &[Option<VertexKeys>],
        cache: &RemoteCache,
    ) -> Result<Option<Output>> {
        let Some((from, output)) = vertex.inputs.get(input as usize) else { return Ok(None) };
        let Some(keys) = keys.get(*from).copied().flatten() else { return Ok(None) };
        let loaded = cache.load(&keys.canonical).await?;
        let found = loaded.and_then(|outputs| outputs.get(*output as usize).cloned());
        let Some(Output::Layer(Some(top))) = &found else { return Ok(found) };
        let chain = self.snapshots.store.layers().chain(top)?;
        Ok(found.filter(|_| chain.iter().all(|layer| layer.has_tree)))
    }
}

/// Returns the cache mounts of a vertex, with the inputs whose files they start with.
fn caches(vertex: &Vertex) -> impl Iterator<Item = (Option<u32>, &CacheMount)> {
    let exec = match &vertex.op.kind {
        Some(OpKind::Exec(exec)) => Some(exec),
        _ => None,
    };
    exec.into_iter().flat_map(|exec| &exec.mounts).filter_map(|mount| match &mount.kind {
        MountKind::Cache(cache) => Some((mount.input, cache)),
        _ => None,
    })
}

/// The maximum number of cache mounts of one ID that a cache may fill. All of them may have the
/// same blob.
const MOST_OF_ID: usize = 16;

/// Returns `true` if a key belongs to a mount with this ID, with or without initial files.
fn is_of(key: &str, id: &str) -> bool {
    key == id || key.strip_prefix(id).is_some_and(|rest| rest.starts_with(":sha256:"))
}
