//! Pulling: an image comes into the store, layers and all, and gets its name.

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

/// What is to be pulled.
#[derive(Clone, Debug)]
pub struct PullRequest {
    /// The image.
    pub reference: Reference,
    /// For which platform.
    pub platform: Platform,
    /// When that is, seconds since 1970.
    pub now: i64,
}

/// What was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The digest of what the name stands for: a manifest or an index.
    pub digest: Digest,
    /// Whether it was in the store under this name, and complete.
    pub was_known: bool,
}

/// Is told what becomes of the layers of an image.
pub trait PullObserver: Send + Sync {
    /// A layer is in the store already.
    fn known(&self, layer: &Digest);
    /// A layer is to be downloaded.
    fn missing(&self, layer: &Digest);
    /// A layer was downloaded.
    fn complete(&self, layer: &Digest);
}

/// Nobody.
impl PullObserver for () {
    fn known(&self, _: &Digest) {}
    fn missing(&self, _: &Digest) {}
    fn complete(&self, _: &Digest) {}
}

/// What a pull reports to: the events of a step, and whoever wants to know of layers.
pub struct PullReport<'a> {
    /// The step.
    pub step: u32,
    /// Where its events go.
    pub events: &'a EventSender,
    /// Who is told of layers.
    pub observer: &'a dyn PullObserver,
}

impl std::fmt::Debug for PullReport<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PullReport").field("step", &self.step).finish_non_exhaustive()
    }
}

impl ImageResolver {
    /// Pulls an image: asks its registry what the name stands for, downloads what the store hasn't
    /// got of it, and gives it its name.
    ///
    /// # Errors
    /// Fails where the registry can't be asked, hasn't got the image, or only for other platforms.
    pub async fn pull(&self, request: &PullRequest, report: &PullReport<'_>) -> Result<Pulled> {
        let found = self.client().resolve(&request.reference).await?;
        self.store().content().put(&found.bytes)?;
        self.keep(request, &found.digest, report).await
    }

    /// Gives an image of a registry its name in the store, and downloads what the store hasn't got of it.
    /// `digest` is what the name stands for.
    ///
    /// # Errors
    /// Fails where the registry hasn't got the image any more, or not for the platform.
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
            // One may be there twice.
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
    /// Fails where the registry can't be asked.
    pub async fn tags(&self, repository: &Repository) -> Result<Vec<String>> {
        Ok(self.client().tags(repository).await?)
    }

    /// Brings a layer in, and tells whether it had to be downloaded.
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
