//! The base of a copy, without unpacking it.
//!
//! A copy that is written straight into an archive needs to know where its destination path leads
//! in the base, and which of the files exist there already. If the base has trees, they answer
//! that. If it has none, as an image that no step has run on, its archives are listed, each once:
//! the store keeps the listing under the layer's diff ID.
//!
//! A listing has no contents. If only the content decides whether an existing file is the same, the
//! archives on this machine are read for it. Other archives are not downloaded for this: the file
//! becomes part of the new layer.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use kiln_event::{Part, Reporter};
use kiln_oci::{Digest, HashingReader};
use kiln_store::{Layer, LayerBlob, LayerId};
use kiln_tree::{Below, Dir, Manifest, Plan, Skeleton};

use crate::blobs::blocking;
use crate::error::{Error, Result};
use crate::flight;
use crate::snapshots::Snapshots;

/// A chain of layers that copies go on top of.
pub enum Base {
    /// The chain as a directory.
    Tree(Dir),
    /// The listings of the chain's archives, and its layers.
    Archives(Skeleton, Vec<Layer>),
}

impl Base {
    /// Returns the base in the form that the planning of copies expects.
    pub fn below(&self) -> &dyn Below {
        match self {
            Self::Tree(dir) => dir,
            Self::Archives(skeleton, _) => skeleton,
        }
    }

    /// Reads the file contents that a plan has requested from archives on this machine. Returns
    /// `true` if any were found: the caller then plans again.
    ///
    /// # Errors
    /// Fails if an archive can't be read.
    pub fn learn(&mut self, snapshots: &Snapshots) -> Result<bool> {
        let Self::Archives(skeleton, chain) = self else { return Ok(false) };
        let mut learned = false;
        for (number, names) in skeleton.wanted() {
            let found = snapshots.contents(&chain[number], &names)?;
            learned |= !found.is_empty();
            skeleton.learn(number, found);
        }
        Ok(learned)
    }
}

impl Snapshots {
    /// Returns the digests of files in a layer's archive. Returns none if the archive isn't on this
    /// machine.
    fn contents(
        &self,
        layer: &Layer,
        names: &BTreeSet<Vec<u8>>,
    ) -> Result<BTreeMap<Vec<u8>, Digest>> {
        if layer.has_tree {
            let tree = self.tree(layer)?;
            let mut found = BTreeMap::new();
            for name in names {
                let content = tree.content(&Path::new("/").join(OsStr::from_bytes(name)))?;
                found.extend(content.map(|content| (name.clone(), content)));
            }
            return Ok(found);
        }
        for blob in self.store.layers().blobs(&layer.id)? {
            let Some(file) = self.blobs.open(&blob)? else { continue };
            let failed = Error::kernel("read", blob.digest);
            let mut packed = std::io::BufReader::with_capacity(1 << 17, file);
            let found = self.limits.decompress(&mut packed);
            return found
                .and_then(|(mut plain, _)| kiln_tree::contents(&mut plain, names))
                .map_err(failed);
        }
        Ok(BTreeMap::new())
    }

    /// Returns the base of copies onto a chain. Unpacks the chain if its archives can't be listed.
    ///
    /// # Errors
    /// Fails if a layer can't be fetched or doesn't match its digests.
    pub async fn below(&self, top: Option<&LayerId>, reporter: &Reporter) -> Result<Base> {
        if let Some(top) = top
            && let Some(base) = self.skeleton(top, reporter).await?
        {
            return Ok(base);
        }
        self.materialise(top, reporter).await?;
        Ok(Base::Tree(self.read(top)?))
    }

    /// Lists a chain. Returns `None` if all its layers have trees, or if it can't be listed.
    async fn skeleton(&self, top: &LayerId, reporter: &Reporter) -> Result<Option<Base>> {
        let chain = self.store.layers().chain(top)?;
        if chain.iter().all(|layer| layer.has_tree) {
            return Ok(None);
        }
        let mut skeleton = Skeleton::default();
        for layer in &chain {
            let Some(manifest) = self.manifest(layer, reporter).await? else { return Ok(None) };
            if !skeleton.add(&manifest) {
                tracing::debug!(layer = %layer.id, "the layer is unusual: it takes a tree");
                return Ok(None);
            }
        }
        Ok(Some(Base::Archives(skeleton, chain)))
    }

    /// Returns the listing of a layer. Unpacks the layer if its archive can't be listed.
    pub(crate) async fn listing(&self, layer: &Layer, reporter: &Reporter) -> Result<Manifest> {
        if let Some(manifest) = self.manifest(layer, reporter).await? {
            return Ok(manifest);
        }
        self.materialise([&layer.id], reporter).await?;
        let (this, layer) = (self.clone(), layer.clone());
        blocking(move || this.list_tree(&layer)).await
    }

    /// Returns the listing of a layer's archive. Returns `None` if there is no valid archive;
    /// unpacking will then report the error. If the layer has a tree, the tree is listed instead,
    /// because it has the fractions of timestamps.
    async fn manifest(&self, layer: &Layer, reporter: &Reporter) -> Result<Option<Manifest>> {
        let layers = self.store.layers();
        if layer.has_tree {
            let (this, layer) = (self.clone(), layer.clone());
            return blocking(move || this.list_tree(&layer)).await.map(Some);
        }
        let Some(diff_id) = layer.diff_id else { return Ok(None) };
        let known = layers.contents(&diff_id)?.map(Manifest::from_bytes);
        if known.as_ref().is_some_and(Manifest::is_detailed) {
            return Ok(known);
        }
        let Ok(blob) = self.readable_blob(layer) else { return Ok(known) };
        let _guard = flight::lock(&self.store, &format!("list-{}", diff_id.hex())).await?;
        let known = layers.contents(&diff_id)?.map(Manifest::from_bytes);
        if known.as_ref().is_some_and(Manifest::is_detailed) {
            return Ok(known);
        }
        if self.blobs.open(&blob)?.is_none() {
            // A listing by an older version of kiln is sufficient if the blob isn't on this
            // machine.
            if known.is_some() {
                return Ok(known);
            }
            self.blobs.ensure(&blob, reporter).await?;
        }
        let _place = self.reading_an_archive().await?;
        let part = reporter.part(format!("listing {}", blob.digest), Some(blob.size));
        let (this, layer) = (self.clone(), layer.clone());
        blocking(move || this.list(&layer, &blob, part)).await
    }

    fn list_tree(&self, layer: &Layer) -> Result<Manifest> {
        let layers = self.store.layers();
        if let Some(diff_id) = &layer.diff_id
            && let Some(known) = layers.contents(diff_id)?.map(Manifest::from_bytes)
            && known.is_detailed()
        {
            return Ok(known);
        }
        let tree = self.tree(layer)?;
        let manifest = Plan::of_changes(&tree, &layers.changes(&layer.id)?)?.manifest();
        if let Some(diff_id) = &layer.diff_id {
            layers.put_contents(diff_id, manifest.as_bytes())?;
        }
        Ok(manifest)
    }

    /// Opens the tree of a single layer.
    fn tree(&self, layer: &Layer) -> Result<Dir> {
        let layers = self.store.layers();
        layers.check_trees([layer])?;
        Ok(layers.open_tree(&layer.id)?)
    }

    fn list(&self, layer: &Layer, blob: &LayerBlob, mut part: Part) -> Result<Option<Manifest>> {
        let listed = self.read_blob(blob, &mut part, |packed| self.read_manifest(packed, layer))?;
        let Some(manifest) = listed.flatten() else { return Ok(None) };
        if let Some(diff_id) = &layer.diff_id {
            self.store.layers().put_contents(diff_id, manifest.as_bytes())?;
        }
        part.finish();
        Ok(Some(manifest))
    }

    /// Lists an archive. Returns `None` if it is invalid or has another diff ID than the layer.
    fn read_manifest(&self, packed: &mut (dyn Read + Send), layer: &Layer) -> Option<Manifest> {
        let (plain, _) = self.limits.decompress(packed).ok()?;
        let mut archive = HashingReader::new(plain);
        let manifest = Manifest::read(&mut archive, self.limits.max_entries);
        let manifest = manifest.map_err(Error::kernel("list", &layer.id));
        let manifest = manifest
            .inspect_err(|error| tracing::debug!(%error, "the layer can't be listed"))
            .ok()?;
        // The diff ID covers the bytes after the end of the archive, too.
        std::io::copy(&mut archive, &mut std::io::sink()).ok()?;
        (Some(archive.finish().0) == layer.diff_id).then_some(manifest)
    }
}
