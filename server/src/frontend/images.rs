//! The images that a Dockerfile names.

use kiln::build::{ImageAnswer, ImageAnswers, unresolved};
use kiln_frontend::{ImageLocation, ImageRequest, Images, ResolveError, ResolvedImage};
use kiln_images::PullPolicy;
use tokio::runtime::Handle;

use crate::images::{self, Wanted};
use crate::jobs::Job;

/// Resolves images for the frontend, on threads that may block. Concurrent requests for one image
/// are resolved only once.
pub(super) struct JobImages<'a> {
    job: &'a Job,
    policy: Option<PullPolicy>,
    /// `true` if the steps' names include the platform.
    names_platforms: bool,
    runtime: Handle,
    answers: ImageAnswers,
}

impl<'a> JobImages<'a> {
    /// Creates a resolver. Must be called within a Tokio runtime.
    pub(super) fn new(job: &'a Job, policy: Option<PullPolicy>, names_platforms: bool) -> Self {
        let (runtime, answers) = (Handle::current(), ImageAnswers::default());
        Self { job, policy, names_platforms, runtime, answers }
    }

    async fn resolve_one(&self, request: &ImageRequest) -> ImageAnswer {
        let ImageRequest { location, platform, display } = request;
        let place = if self.names_platforms { format!("{platform} ") } else { String::new() };
        let title = format!("[{place}internal] load metadata for {display}");
        let wanted = match location {
            ImageLocation::Registry(reference) => Wanted::Registry(reference, self.policy),
            ImageLocation::OciLayout { layout } => Wanted::Layout { session: "", layout },
        };
        let found = images::resolve(self.job, wanted, platform, title).await;
        let found =
            found.map_err(|status| ResolveError::new(unresolved(display, status.message())))?;
        let reference = found.reference();
        match (found.image, location) {
            (Some(image), ImageLocation::Registry(wanted)) if reference.is_some() => {
                let reference = reference.filter(|reference| reference != wanted);
                Ok(ResolvedImage { reference, ..ResolvedImage::new(image.digest, image.config) })
            }
            (Some(image), ImageLocation::OciLayout { .. }) if reference.is_none() => {
                Ok(ResolvedImage::new(image.digest, image.config))
            }
            _ => {
                let text = images::not_an_image(display, &found.identifier);
                Err(ResolveError::new(text).moved_to(found.identifier))
            }
        }
    }
}

impl Images for JobImages<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<ImageAnswer> {
        self.runtime.block_on(self.answers.all(requests, |request| self.resolve_one(request)))
    }
}
