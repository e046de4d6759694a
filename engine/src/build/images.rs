//! Resolution of the images that a Dockerfile names.

use std::collections::HashMap;
use std::error::Error;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::join_all;
use kiln_event::EventSender;
use kiln_frontend::ImageLocation;
use kiln_frontend::{ImageRequest, Images, ResolveError, ResolvedImage};
use kiln_images::ImageResolver;
use kiln_oci::Reference;
use kiln_oci::error::chain;
use kiln_store::Store;
use kiln_worker::SourcePolicies;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::policy::{self, Checked};
use super::step::Step;
use super::tools::Tools;
use crate::image::similar;

/// Resolves images for the frontend, on threads that may block. Concurrent requests for one image
/// are resolved only once.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    images: &'a ImageResolver,
    policies: &'a SourcePolicies,
    /// The store whose image names serve as suggestions.
    store: &'a Store,
    events: &'a EventSender,
    runtime: Handle,
    /// The token that stops the resolution.
    cancel: &'a CancellationToken,
    /// `true` if the steps' names include the platform.
    names_platforms: bool,
    answers: ImageAnswers,
    /// `true` once an image couldn't be resolved.
    has_failed: AtomicBool,
}

/// The answer about an image that a Dockerfile names.
pub type ImageAnswer = Result<ResolvedImage, ResolveError>;

/// The answers about the images of one Dockerfile, so that concurrent requests for one image are
/// resolved only once.
#[derive(Debug, Default)]
pub struct ImageAnswers(Mutex<HashMap<ImageRequest, Arc<OnceCell<ImageAnswer>>>>);

impl ImageAnswers {
    /// Returns the answers to some requests. Calls `resolve` for images without an answer.
    pub async fn all<'a, F: Future<Output = ImageAnswer>>(
        &self,
        requests: &'a [ImageRequest],
        resolve: impl Fn(&'a ImageRequest) -> F,
    ) -> Vec<ImageAnswer> {
        let one = async |request: &'a ImageRequest| {
            let answer = {
                let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(answers.entry(request.clone()).or_default())
            };
            answer.get_or_init(|| resolve(request)).await.clone()
        };
        join_all(requests.iter().map(one)).await
    }
}

impl Images for Resolver<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<ImageAnswer> {
        self.runtime.block_on(self.answers.all(requests, |request| self.resolve_one(request)))
    }
}

impl<'a> Resolver<'a> {
    /// Creates a resolver over the images of `tools` that reports to `events` until `cancel` is cancelled. Must
    /// be called within a Tokio runtime.
    pub(super) fn new(
        tools: &'a Tools,
        events: &'a EventSender,
        cancel: &'a CancellationToken,
        names_platforms: bool,
    ) -> Self {
        let (runtime, answers, has_failed) =
            (Handle::current(), ImageAnswers::default(), false.into());
        let Tools { resolver: images, store, policies, .. } = tools;
        Self {
            images,
            policies,
            store,
            events,
            runtime,
            cancel,
            names_platforms,
            answers,
            has_failed,
        }
    }

    /// Returns `true` if an image couldn't be resolved. The image's step has shown the error.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    async fn resolve_one(&self, request: &ImageRequest) -> ImageAnswer {
        let platform = &request.platform;
        let place = if self.names_platforms { format!("{platform} ") } else { String::new() };
        let name = format!("[{place}internal] load metadata for {}", request.display);
        let step = Step::begin(self.events, name);
        let mut reference = None;
        if let ImageLocation::Registry(wanted) = &request.location {
            match self.checked(wanted, &request.display) {
                Ok(new) => reference = new,
                Err(error) => {
                    self.has_failed.store(true, Ordering::Relaxed);
                    return step.end(Err(error));
                }
            }
        }
        let resolved = async {
            match &request.location {
                ImageLocation::Registry(wanted) => {
                    self.images.resolve(reference.as_ref().unwrap_or(wanted), platform).await
                }
                ImageLocation::OciLayout { layout } => {
                    self.images.resolve_layout(layout, platform).await
                }
            }
        };
        let result = tokio::select! {
            result = resolved => result,
            () = self.cancel.cancelled() => Err(kiln_images::Error::Cancelled),
        };
        let result = result
            .map(|image| ResolvedImage {
                reference: reference.clone(),
                ..ResolvedImage::new(image.digest, image.config)
            })
            .map_err(|error| {
                let message = unresolved(&request.display, &chain(&error));
                ResolveError::new(message).because(self.unresolved(&request.display, error))
            });
        self.has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
        step.end(result)
    }

    /// Returns the image that the policies use in place of another, if they do.
    fn checked(
        &self,
        wanted: &Reference,
        display: &str,
    ) -> Result<Option<Reference>, ResolveError> {
        match policy::checked_image(self.policies, wanted) {
            Ok(Checked::Same) => Ok(None),
            Ok(Checked::Image(new)) => Ok(Some(new)),
            Ok(Checked::Source(new)) => {
                let text =
                    format!("a source policy replaces the image by {new}, which is no image");
                Err(ResolveError::new(unresolved(display, &text)).moved_to(new))
            }
            Err(error) => {
                let text = unresolved(display, &chain(error.as_ref()));
                Err(ResolveError::new(text).because(error))
            }
        }
    }

    fn unresolved(&self, display: &str, source: kiln_images::Error) -> Unresolved {
        let near = match &source {
            kiln_images::Error::Registry(_) => similar(self.store, display),
            _ => Vec::new(),
        };
        Unresolved { near, source }
    }
}

/// The error of an image that can't be resolved.
#[derive(Debug)]
pub struct Unresolved {
    /// The names of images in the store that the user may have meant. Empty if the registry wasn't
    /// asked.
    pub near: Vec<String>,
    /// The cause.
    pub source: kiln_images::Error,
}

impl fmt::Display for Unresolved {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.source.fmt(f)
    }
}

impl Error for Unresolved {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.source)
    }
}

/// Returns the message for an image that can't be resolved, without repeating the image's name.
pub fn unresolved(display: &str, cause: &str) -> String {
    let repeated = format!("{display}: ");
    let cause = cause.strip_prefix(&repeated).unwrap_or(cause);
    format!("failed to resolve source metadata for {display}: {cause}")
}
