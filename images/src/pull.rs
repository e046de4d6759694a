//! Pulling of images into the store, with all layers and under their names.

use futures_util::future::try_join_all;
use kiln_event::{LayerState, Reporter};
use kiln_oci::{Digest, Platform, Reference};
use kiln_registry::{Repository, check_document};
use kiln_store::{ImageRow, LayerBlob};

use crate::declare::{check_sizes, layer_blobs};
use crate::document::DOCUMENT_LIMIT;
use crate::error::{Error, Result};
use crate::origin::Origin;
use crate::resolve::ImageResolver;

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

impl ImageResolver {
    /// Pulls an image: resolves the name in its registry, downloads the missing parts, and stores
    /// the image under its name.
    ///
    /// # Errors
    /// Fails if the registry can't be reached, or has no such image for the platform.
    pub async fn pull(&self, request: &PullRequest, reporter: &Reporter) -> Result<Pulled> {
        let found = self.client().resolve(&request.reference).await?;
        self.store().content().put(&found.bytes)?;
        self.keep(request, &found.digest, reporter).await
    }

    /// Stores an image of a registry under its name, and downloads the missing parts. `digest` is
    /// the manifest or index that the name refers to.
    ///
    /// # Errors
    /// Fails if the registry no longer has the image, or has none for the platform.
    pub async fn keep(
        &self,
        request: &PullRequest,
        digest: &Digest,
        reporter: &Reporter,
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
        let fetched = try_join_all(blobs.iter().map(|blob| self.fetch(blob, reporter))).await?;
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
    async fn fetch(&self, blob: &LayerBlob, reporter: &Reporter) -> Result<bool> {
        if self.store().content().hold(&blob.digest)?
            && self.store().content().size(&blob.digest)?.is_some()
        {
            reporter.layer(blob.digest, LayerState::Exists);
            return Ok(false);
        }
        reporter.layer(blob.digest, LayerState::Waiting);
        self.blobs().ensure(blob, reporter).await?;
        reporter.layer(blob.digest, LayerState::Transferred);
        Ok(true)
    }
}
