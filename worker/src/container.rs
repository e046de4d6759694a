//! The root file systems of containers, created from images.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use kiln_event::Reporter;
use kiln_images::{
    Draft, ImageResolver, Origin, PullPolicy, PullRequest, Pulled, Snapshots, copy_attributes,
    declare,
};
use kiln_oci::{Digest, ImageConfig, Platform};
use kiln_sandbox::Tree;
use kiln_store::{AssembledTree, LayerId, Store, WatchedDirectory};
use kiln_tree::{CopyOptions, Dir, View};

use crate::error::Result;
use crate::exec::mounts::tree;

/// A factory of root file systems for containers.
#[derive(Debug)]
pub struct Containers {
    images: Arc<ImageResolver>,
    snapshots: Snapshots,
}

/// An image whose layers all have trees.
#[derive(Clone, Debug)]
pub struct ContainerImage {
    /// The digest of the manifest or index that the image was found by.
    pub digest: Digest,
    /// The config of the image for its platform.
    pub config: ImageConfig,
    layer: Option<LayerId>,
}

/// The root file system of a container. Its changes are lost when it is dropped.
#[derive(Debug)]
pub struct ContainerRoot {
    draft: Draft,
    tree: Tree,
    /// The tree that is mounted if the root is read-only and the store works without overlayfs.
    _read: Option<Arc<AssembledTree>>,
}

impl ContainerRoot {
    /// Returns the tree that the sandbox mounts as root.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the directories that grow when the container writes files.
    pub fn growing(&self) -> Vec<WatchedDirectory> {
        self.draft.growing()
    }

    /// Returns the directory that receives the container's changes.
    pub fn upper(&self) -> &Path {
        self.draft.pending.fs()
    }
}

impl Containers {
    /// Creates a factory over a store and an image resolver.
    pub fn new(store: Store, images: Arc<ImageResolver>) -> Self {
        let snapshots = Snapshots::new(store, &images);
        Self { images, snapshots }
    }

    /// Resolves an image by its reference and stores it under its name. The image comes from the
    /// store if `policy` (by default the resolver's own) allows that, otherwise from its registry.
    /// Progress goes to `reporter`.
    ///
    /// # Errors
    /// Fails if the image isn't available or has no variant for the platform.
    pub async fn pull(
        &self,
        request: &PullRequest,
        policy: Option<PullPolicy>,
        reporter: &Reporter,
    ) -> Result<(ContainerImage, Pulled)> {
        let PullRequest { reference, platform, .. } = request;
        let digest = self.images.digest_by(reference, policy).await?;
        let origin = Origin::Registry(reference.name());
        // Layers are unpacked during their download.
        let image = self.load(&origin, &digest, platform, reporter).await?;
        let pulled = self.images.keep(request, &digest, reporter).await?;
        Ok((image, pulled))
    }

    /// Returns an image of the store by the digest of its manifest or index.
    ///
    /// # Errors
    /// Fails if the store lacks the image or its variant for `platform`.
    pub async fn local(
        &self,
        digest: &Digest,
        platform: &Platform,
        reporter: &Reporter,
    ) -> Result<ContainerImage> {
        self.load(&Origin::Store, digest, platform, reporter).await
    }

    async fn load(
        &self,
        origin: &Origin,
        digest: &Digest,
        platform: &Platform,
        reporter: &Reporter,
    ) -> Result<ContainerImage> {
        let image = self.images.image(origin, digest, platform).await?;
        let layer = declare(&image, &self.snapshots.store, origin, digest)?;
        self.snapshots.materialise(&layer, reporter).await?;
        Ok(ContainerImage { digest: *digest, config: image.config, layer })
    }

    /// Creates a root file system with an empty layer on top of an image. The caller must mount a
    /// `read_only` root as read-only.
    ///
    /// # Errors
    /// Fails if the store can't be written.
    pub fn root(&self, image: &ContainerImage, read_only: bool) -> Result<ContainerRoot> {
        if let Some(layer) = image.layer.as_ref().filter(|_| read_only)
            && self.snapshots.copies()?
        {
            let draft = self.snapshots.draft(None)?;
            let read = self.snapshots.store.layers().assembled(layer)?;
            let tree = Tree::Directory(read.path().to_owned());
            return Ok(ContainerRoot { draft, tree, _read: Some(read) });
        }
        let draft = self.snapshots.draft(image.layer.as_ref())?;
        let tree = tree(draft.rootfs(Some(self.snapshots.store.mount_points())));
        Ok(ContainerRoot { draft, tree, _read: None })
    }

    /// Copies the image's content at `path` into a new volume, with owner and mode. The volume
    /// stays empty if `path` isn't a directory of the image.
    ///
    /// # Errors
    /// Fails if a file can't be copied.
    pub fn fill_volume(&self, image: &ContainerImage, path: &Path, volume: &Path) -> Result<()> {
        let root = self.snapshots.read(image.layer.as_ref())?;
        let Ok(source) = root.open_dir(path) else { return Ok(()) };
        let dest = Dir::open(volume)?;
        let options = CopyOptions {
            source: "/".to_owned(),
            dest: "/".to_owned(),
            dir_copy_contents: true,
            create_dest_path: true,
            ..CopyOptions::default()
        };
        kiln_tree::copy(View::of(&source), &dest, &options)?;
        Ok(copy_attributes(source.as_fd(), dest.as_fd())?)
    }
}
