//! Layers in their three forms: trees, diffs and blobs.
//!
//! A row of the index names a layer and its parent. What forms it has is told by its columns: a
//! *tree* where `snapshots/ID/fs` is there, a *diff* where its diff ID is known (the chain ID
//! follows from it and the parent's), *blobs* for each compression that it was packed or pulled in.
//! A layer of a base image may be known by its diff ID and descriptor alone until somebody needs
//! its tree.

use std::fmt;
use std::path::{Path, PathBuf};

use kiln_oci::Digest;

use crate::error::Result;

/// Names a layer in the store.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LayerId(String);

impl LayerId {
    /// Returns the name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What is known of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Its name in the store.
    pub id: LayerId,
    /// The layer below.
    pub parent: Option<LayerId>,
    /// The digest of its uncompressed tar, once it has been packed or was pulled.
    pub diff_id: Option<Digest>,
    /// The identity of the chain up to it (OCI image specification, "Layer `ChainID`").
    pub chain_id: Option<Digest>,
    /// Whether it has a tree.
    pub has_tree: bool,
}

/// A packed form of a layer. The blob itself need not be in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its media type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it can be had, as `docker.io/library/alpine` or a layout's directory; `None` where
    /// it was made here.
    pub origin: Option<String>,
}

/// The layers.
#[derive(Clone, Debug)]
pub struct Layers {}

/// A tree that is being made, in `tmp/`, beside a work directory for overlayfs. Dropped
/// uncommitted, it is removed.
#[derive(Debug)]
pub struct PendingTree {}

impl Layers {
    /// Returns what is known of a layer.
    pub fn get(&self, id: &LayerId) -> Result<Option<Layer>> {
        let _ = id;
        todo!()
    }

    /// Returns the layer and all below it, base first.
    pub fn chain(&self, id: &LayerId) -> Result<Vec<Layer>> {
        let _ = id;
        todo!()
    }

    /// Returns a layer by its chain ID; one with a tree where there is a choice.
    pub fn by_chain_id(&self, chain_id: &Digest) -> Result<Option<Layer>> {
        let _ = chain_id;
        todo!()
    }

    /// Makes a layer known by its diff ID and a blob of it, or returns the one that is known with
    /// the same chain ID (and adds the blob to it).
    pub fn declare(
        &self,
        parent: Option<&LayerId>,
        diff_id: &Digest,
        blob: &LayerBlob,
    ) -> Result<LayerId> {
        let _ = (parent, diff_id, blob);
        todo!()
    }

    /// Begins a tree.
    pub fn begin(&self) -> Result<PendingTree> {
        todo!()
    }

    /// Makes a layer of a finished tree on top of `parent`.
    pub fn commit(&self, tree: PendingTree, parent: Option<&LayerId>) -> Result<LayerId> {
        let _ = (tree, parent);
        todo!()
    }

    /// Gives a declared layer its tree. Where it has got one meanwhile, `tree` is dropped.
    pub fn attach(&self, tree: PendingTree, layer: &LayerId) -> Result<()> {
        let _ = (tree, layer);
        todo!()
    }

    /// Returns where the layer's tree lies, or would lie.
    pub fn tree_path(&self, id: &LayerId) -> PathBuf {
        let _ = id;
        todo!()
    }

    /// Returns the directory that holds all trees as `ID/fs`, for mounts with short names.
    pub fn trees_dir(&self) -> &Path {
        todo!()
    }

    /// Records a packed form of the layer, and the digest of its uncompressed tar.
    pub fn add_blob(&self, id: &LayerId, diff_id: &Digest, blob: &LayerBlob) -> Result<()> {
        let _ = (id, diff_id, blob);
        todo!()
    }

    /// Returns the packed forms of a layer.
    pub fn blobs(&self, id: &LayerId) -> Result<Vec<LayerBlob>> {
        let _ = id;
        todo!()
    }
}

impl PendingTree {
    /// Returns the directory of the tree.
    pub fn fs(&self) -> &Path {
        todo!()
    }

    /// Returns an empty directory on the same file system, for overlayfs's `workdir`.
    pub fn work(&self) -> &Path {
        todo!()
    }
}
