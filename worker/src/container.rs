//! Images as root file systems of containers.

use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Arc;

use kiln_oci::{Digest, ImageConfig, Platform};
use kiln_sandbox::Tree;
use kiln_solver::StepContext;
use kiln_store::{AssembledTree, Growing, LayerId, Store};
use kiln_tree::{CopyOptions, Dir};

use crate::draft::Draft;
use crate::error::Result;
use crate::output::Output;
use crate::pull::{PullReport, PullRequest, Pulled};
use crate::relink::copy_attributes;
use crate::resolve::{ImageResolver, PullPolicy};
use crate::snapshots::{Snapshots, whole};
use crate::source;
use crate::source::origin::Origin;

/// Prepares the file systems of containers.
#[derive(Debug)]
pub struct Containers {
    images: Arc<ImageResolver>,
    snapshots: Snapshots,
}

/// An image whose layers all have trees.
#[derive(Clone, Debug)]
pub struct ContainerImage {
    /// The digest of the manifest or index that it was found by.
    pub digest: Digest,
    /// The image's config.
    pub config: ImageConfig,
    layer: Option<LayerId>,
}

/// The root file system of a container; what was written to it goes when it is dropped.
#[derive(Debug)]
pub struct ContainerRoot {
    draft: Draft,
    tree: Tree,
    /// What the tree is, where nobody writes to it.
    _read: Option<Arc<AssembledTree>>,
}

impl ContainerRoot {
    /// Returns what the sandbox is to mount as root.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Returns the directories that grow while something is written to it.
    pub fn growing(&self) -> Vec<Growing> {
        self.draft.growing()
    }

    /// Returns the directory that receives changes.
    pub fn upper(&self) -> &Path {
        self.draft.pending.fs()
    }
}

impl Containers {
    /// Makes a place for containers.
    pub fn new(store: Store, images: Arc<ImageResolver>) -> Self {
        let snapshots = Snapshots::new(store, &images);
        Self { images, snapshots }
    }

    /// Returns an image by its reference: from its registry, or from the store where the policy, or else
    /// the resolver's own one, allows that. Keeps it in the store under its name. How far that is
    /// goes to the events of `context`.
    ///
    /// # Errors
    /// Fails where nobody has the image, or not for the platform.
    pub async fn pull(
        &self,
        request: &PullRequest,
        policy: Option<PullPolicy>,
        context: &StepContext,
    ) -> Result<(ContainerImage, Pulled)> {
        let PullRequest { reference, platform, .. } = request;
        let digest = self.images.digest_by(reference, policy).await?;
        let origin = Origin::Registry(reference.name());
        // Layers are unpacked while they come.
        let image = self.load(&origin, &digest, platform, context).await?;
        let report = PullReport { step: context.vertex, events: &context.events, observer: &() };
        let pulled = self.images.keep(request, &digest, &report).await?;
        Ok((image, pulled))
    }

    /// Returns an image of the store by the digest of its manifest or index.
    ///
    /// # Errors
    /// Fails where the store hasn't got it, or not for `platform`.
    pub async fn local(
        &self,
        digest: &Digest,
        platform: &Platform,
        context: &StepContext,
    ) -> Result<ContainerImage> {
        self.load(&Origin::Store, digest, platform, context).await
    }

    async fn load(
        &self,
        origin: &Origin,
        digest: &Digest,
        platform: &Platform,
        context: &StepContext,
    ) -> Result<ContainerImage> {
        let image = self.images.image(origin, digest, platform).await?;
        let layer = source::image::declare(&image, &self.snapshots.store, origin, digest)?;
        self.snapshots.materialise([&Output::Layer(layer.clone())], Some(context)).await?;
        Ok(ContainerImage { digest: *digest, config: image.config, layer })
    }

    /// Makes a root file system of an image with a fresh layer on top. One that is `read_only` must be
    /// mounted so.
    ///
    /// # Errors
    /// Fails where the store can't be written.
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
        let tree = draft.rootfs(Some(self.snapshots.store.mount_points()));
        Ok(ContainerRoot { draft, tree, _read: None })
    }

    /// Fills a new volume with what the image has at `path`: content, owner and mode. A path that
    /// isn't a directory of the image leaves the volume empty.
    ///
    /// # Errors
    /// Fails where something can't be copied.
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
        kiln_tree::copy(whole(&source), &dest, &options)?;
        copy_attributes(source.as_fd(), dest.as_fd())
    }
}
