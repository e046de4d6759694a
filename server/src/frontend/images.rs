//! The images that a Dockerfile names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use kiln_frontend::{ImageLocation, ImageRequest, Images, ResolveError, ResolvedImage};
use kiln_images::PullPolicy;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;

use crate::images::{self, Wanted};
use crate::jobs::Job;

type Answer = Result<ResolvedImage, ResolveError>;

/// Resolves images for the frontend, on threads that may block. Concurrent requests for one image
/// are resolved only once.
pub(super) struct JobImages<'a> {
    job: &'a Job,
    policy: Option<PullPolicy>,
    /// `true` if the steps' names include the platform.
    names_platforms: bool,
    runtime: Handle,
    answers: Mutex<HashMap<ImageRequest, Arc<OnceCell<Answer>>>>,
}

impl<'a> JobImages<'a> {
    /// Creates a resolver. Must be called within a Tokio runtime.
    pub(super) fn new(job: &'a Job, policy: Option<PullPolicy>, names_platforms: bool) -> Self {
        let (runtime, answers) = (Handle::current(), Mutex::default());
        Self { job, policy, names_platforms, runtime, answers }
    }

    async fn resolve_once(&self, request: &ImageRequest) -> Answer {
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(request.clone()).or_default())
        };
        answer.get_or_init(|| self.resolve_one(request)).await.clone()
    }

    async fn resolve_one(&self, request: &ImageRequest) -> Answer {
        let ImageRequest { location, platform, display } = request;
        let place = if self.names_platforms { format!("{platform} ") } else { String::new() };
        let title = format!("[{place}internal] load metadata for {display}");
        let wanted = match location {
            ImageLocation::Registry(reference) => Wanted::Registry(reference, self.policy),
            ImageLocation::OciLayout { layout } => Wanted::Layout { session: "", layout },
        };
        let found = images::resolve(self.job, wanted, platform, title).await;
        found.map(|image| ResolvedImage { digest: image.digest, config: image.config }).map_err(
            |status| {
                let text = status.message();
                let repeated = format!("{display}: ");
                let text = text.strip_prefix(&repeated).unwrap_or(text);
                ResolveError::new(format!(
                    "failed to resolve source metadata for {display}: {text}"
                ))
            },
        )
    }
}

impl Images for JobImages<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Answer> {
        self.runtime.block_on(join_all(requests.iter().map(|request| self.resolve_once(request))))
    }
}
