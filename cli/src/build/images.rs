//! Resolution of the images that a Dockerfile names.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use futures_util::future::join_all;
use kiln_event::{Event, EventSender, Reporter, VertexId};
use kiln_frontend::resolve::ImageLocation;
use kiln_frontend::{ImageRequest, Images, ResolveError, ResolvedImage};
use kiln_images::ImageResolver;
use kiln_store::Store;
use tokio::runtime::Handle;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::hints;
use crate::image::similar;
use crate::printer::causes;

/// The next number of a step outside the graph. It is greater than the numbers of any graph.
static NEXT_STEP: AtomicU32 = AtomicU32::new(1 << 24);

/// A step outside the graph. The display shows it among the graph's steps.
#[derive(Debug)]
pub(crate) struct Step<'a> {
    id: VertexId,
    begun: Instant,
    events: &'a EventSender,
}

impl<'a> Step<'a> {
    /// Starts a step and reports it to `events`.
    pub(crate) fn begin(events: &'a EventSender, name: String) -> Self {
        let id = NEXT_STEP.fetch_add(1, Ordering::Relaxed);
        events.send(Event::Vertex { id, name, digest: None, inputs: Vec::new() });
        events.send(Event::Started { id });
        Self { id, begun: Instant::now(), events }
    }

    /// Returns the step's number.
    pub(crate) fn id(&self) -> VertexId {
        self.id
    }

    /// Returns a reporter for work of the step that stops with `cancel`.
    pub(crate) fn reporter(&self, cancel: &CancellationToken) -> Reporter {
        Reporter::new(self.id, self.events.clone(), cancel.clone())
    }

    /// Reports that the step succeeded.
    pub(crate) fn complete(self) {
        self.events.send(Event::Completed { id: self.id, duration: self.begun.elapsed() });
    }

    /// Reports that the step was cancelled because another one failed.
    pub(crate) fn cancel(self) {
        self.events.send(Event::Cancelled { id: self.id });
    }

    /// Reports that the step failed.
    pub(crate) fn fail(self, error: &dyn std::fmt::Display) {
        self.events.send(Event::Failed { id: self.id, error: error.to_string() });
    }

    /// Reports the step's end by its result, and returns the result.
    pub(crate) fn end<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.complete(),
            Err(error) => self.fail(error),
        }
        result
    }
}

/// Resolves images for the frontend, on threads that may block. Concurrent requests for one image
/// are resolved only once.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    images: &'a ImageResolver,
    /// The store whose image names serve as suggestions.
    store: &'a Store,
    events: &'a EventSender,
    runtime: Handle,
    /// The token that stops the resolution.
    cancel: &'a CancellationToken,
    /// `true` if the steps' names include the platform.
    names_platforms: bool,
    answers: Mutex<HashMap<ImageRequest, Arc<OnceCell<Answer>>>>,
    /// `true` once an image couldn't be resolved.
    has_failed: AtomicBool,
}

type Answer = Result<ResolvedImage, ResolveError>;

impl Images for Resolver<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Answer> {
        self.runtime.block_on(join_all(requests.iter().map(|request| self.resolve_once(request))))
    }
}

impl<'a> Resolver<'a> {
    /// Creates a resolver over `images` that reports to `events` until `cancel` is cancelled. Must
    /// be called within a Tokio runtime.
    pub(super) fn new(
        images: &'a ImageResolver,
        store: &'a Store,
        events: &'a EventSender,
        cancel: &'a CancellationToken,
        names_platforms: bool,
    ) -> Self {
        let (runtime, answers, has_failed) = (Handle::current(), Mutex::default(), false.into());
        Self { images, store, events, runtime, cancel, names_platforms, answers, has_failed }
    }

    /// Returns `true` if an image couldn't be resolved. The image's step has shown the error.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    async fn resolve_once(&self, request: &ImageRequest) -> Answer {
        let answer = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(request.clone()).or_default())
        };
        answer.get_or_init(|| self.resolve_one(request)).await.clone()
    }

    async fn resolve_one(&self, request: &ImageRequest) -> Answer {
        let platform = &request.platform;
        let place = if self.names_platforms { format!("{platform} ") } else { String::new() };
        let name = format!("[{place}internal] load metadata for {}", request.display);
        let step = Step::begin(self.events, name);
        let resolved = async {
            match &request.location {
                ImageLocation::Registry(reference) => {
                    self.images.resolve(reference, platform).await
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
            .map(|image| ResolvedImage { digest: image.digest, config: image.config })
            .map_err(|error| {
                let unresolved = ResolveError::new(unresolved(&request.display, &causes(&error)));
                unresolved.with_hint(self.hint(&request.display, &error))
            });
        self.has_failed.fetch_or(result.is_err(), Ordering::Relaxed);
        step.end(result)
    }

    /// Returns a hint for an image that can't be resolved: similar names in the store, or the
    /// error's hint.
    fn hint(&self, display: &str, error: &kiln_images::Error) -> Option<String> {
        let hint = hints::of(error);
        if !matches!(error, kiln_images::Error::Registry(_)) {
            return hint;
        }
        let near = similar(self.store, display);
        let near = (!near.is_empty()).then(|| format!("the store has {}", near.join(", ")));
        let all: Vec<String> = near.into_iter().chain(hint).collect();
        (!all.is_empty()).then(|| all.join("; "))
    }
}

/// Returns the message for an image that can't be resolved, without repeating the image's name.
fn unresolved(display: &str, cause: &str) -> String {
    let repeated = format!("{display}: ");
    let cause = cause.strip_prefix(&repeated).unwrap_or(cause);
    format!("failed to resolve source metadata for {display}: {cause}")
}
