//! Pulling of images into the store, with all layers and under their names.

use futures_util::future::try_join_all;
use kiln_oci::{Digest, Platform, Reference};
use kiln_registry::{Repository, check_document};
use kiln_solver::EventSender;
use kiln_store::{ImageRow, LayerBlob};

use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::resolve::ImageResolver;
use crate::source::document::DOCUMENT_LIMIT;
use crate::source::image::{check_sizes, layer_blobs};
use crate::source::origin::Origin;

/// A request to pull an image.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The name of the image in its registry.
    pub reference: Reference,
    /// The platform to select from an index.
    pub platform: Platform,
    /// The current time in seconds since 1970.
    pub now: i64,
}

/// The result of a pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The digest of the manifest or index that the name refers to.
    pub digest: Digest,
    /// `true` if the complete image was in the store under this name before.
    pub was_known: bool,
}

/// An observer of the layers of a pull.
pub trait PullObserver: Send + Sync {
    /// Reports that a layer is in the store already.
    fn known(&self, layer: &Digest);
    /// Reports that a layer will be downloaded.
    fn missing(&self, layer: &Digest);
    /// Reports the end of a layer's download.
    fn complete(&self, layer: &Digest);
}

/// An observer that ignores all reports.
impl PullObserver for () {
    fn known(&self, _: &Digest) {}
    fn missing(&self, _: &Digest) {}
    fn complete(&self, _: &Digest) {}
}

/// The receivers of a pull's reports: the events of a step, and an observer of layers.
pub struct PullReport<'a> {
    /// The step that the events belong to.
    pub step: u32,
    /// The sender of the events.
    pub events: &'a EventSender,
    /// The observer of the layers.
    pub observer: &'a dyn PullObserver,
}

impl std::fmt::Debug for PullReport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullReport").field("step", &self.step).finish_non_exhaustive()
    }
}

impl ImageResolver {
    /// Pulls an image: resolves the name in its registry, downloads the missing parts, and stores
    /// the image under its name.
    ///
    /// # Errors
    /// Fails if the registry can't be reached, or has no such image for the platform.
    pub async fn pull(&self, request: &PullRequest, report: &PullReport<'_>) -> Result<Pulled> {
        let found = self.client().resolve(&request.reference).await?;
        self.store().content().put(&found.bytes)?;
        self.keep(request, &found.digest, report).await
    }

    /// Stores an image of a registry under its name, and downloads the missing parts. `digest` is
    /// the manifest or index that the name refers to.
    ///
    /// # Errors
    /// Fails if the registry no longer has the image, or has none for the platform.
    pub(crate) async fn keep(
        &self,
        request: &PullRequest,
        digest: &Digest,
        report: &PullReport<'_>,
    ) -> Result<Pulled> {
        let PullRequest { reference, platform, .. } = request;
        let origin = Origin::Registry(reference.name());
        let image = self.image(&origin, digest, platform).await?;
        let name = format!("{origin}@{digest}");
        let document = self.store().content().read(digest, DOCUMENT_LIMIT)?;
        let media_type =
            check_document(&document, None).map_err(|problem| Error::image(&name, problem))?;
        let layers = layer_blobs(&image, &origin, &name)?;
        check_sizes(&layers, self.store(), &name)?;
        self.store().layers().declare_all(&layers)?;
        let mut blobs = Vec::new();
        for (_, blob) in layers {
            // The same blob may occur twice.
            if !blobs.contains(&blob) {
                blobs.push(blob);
            }
        }
        let row = ImageRow {
            name: Some(reference.to_string()),
            media_type,
            digest: *digest,
            size: document.len() as u64,
            created_at: request.now,
        };
        let known = self.store().images().get(&reference.to_string())?;
        let mut was_known = known.is_some_and(|known| known.digest == row.digest);
        let fetched = try_join_all(blobs.iter().map(|blob| self.fetch(blob, report))).await?;
        was_known &= fetched.into_iter().all(|fetched| !fetched);
        self.store().images().put(&row)?;
        Ok(Pulled { digest: *digest, was_known })
    }

    /// Lists the tags of a repository.
    ///
    /// # Errors
    /// Fails if the registry can't be reached or refuses the request.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>> {
        Ok(self.client().tags(repository).await?)
    }

    /// Fetches a layer. Returns `true` if it was downloaded.
    async fn fetch(&self, blob: &LayerBlob, report: &PullReport<'_>) -> Result<bool> {
        if self.store().content().hold(&blob.digest)?
            && self.store().content().size(&blob.digest)?.is_some()
        {
            report.observer.known(&blob.digest);
            return Ok(false);
        }
        report.observer.missing(&blob.digest);
        let progress = Progress::of_step(report.step, report.events);
        self.blobs().ensure(blob, &progress).await?;
        report.observer.complete(&blob.digest);
        Ok(true)
    }
}
