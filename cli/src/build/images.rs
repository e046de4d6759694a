//! Images that a Dockerfile names.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use kiln_frontend::resolve::ImageLocation;
use kiln_frontend::{ImageRequest, Images, ResolveError, ResolvedImage};
use kiln_solver::{Event, EventSender, VertexId};
use kiln_worker::ImageResolver;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::printer::causes;

/// Numbers of steps that stand in no graph, above those of any graph.
static NEXT_STEP: AtomicU32 = AtomicU32::new(1 << 24);

/// A step outside of the graph, shown with the others.
#[derive(Debug)]
pub(super) struct Step<'a> {
    id: VertexId,
    begun: Instant,
    events: &'a EventSender,
}

impl<'a> Step<'a> {
    /// Begins a step.
    pub(super) fn begin(events: &'a EventSender, name: String) -> Self {
        let id = NEXT_STEP.fetch_add(1, Ordering::Relaxed);
        events.send(Event::Vertex { id, name, digest: None });
        events.send(Event::Started { id });
        Self { id, begun: Instant::now(), events }
    }

    /// Returns its number.
    pub(super) fn id(&self) -> VertexId {
        self.id
    }

    /// Ends it with success.
    pub(super) fn complete(self) {
        self.events.send(Event::Completed { id: self.id, duration: self.begun.elapsed() });
    }

    /// Ends it with a failure.
    pub(super) fn fail(self, error: &dyn std::fmt::Display) {
        self.events.send(Event::Failed { id: self.id, error: error.to_string() });
    }

    /// Ends it as `result` has it.
    pub(super) fn end<T, E: std::fmt::Display>(self, result: Result<T, E>) -> Result<T, E> {
        match &result {
            Ok(_) => self.complete(),
            Err(error) => self.fail(error),
        }
        result
    }
}

/// Answers the frontend's questions about images, from a thread that may block.
#[derive(Debug)]
pub(super) struct Resolver<'a> {
    /// Who knows.
    pub(super) images: &'a ImageResolver,
    /// Where progress goes.
    pub(super) events: &'a EventSender,
    /// The runtime.
    pub(super) runtime: Handle,
    /// Cancelled to stop asking.
    pub(super) cancel: &'a CancellationToken,
}

impl Images for Resolver<'_> {
    fn resolve(&self, requests: &[ImageRequest]) -> Vec<Result<ResolvedImage, ResolveError>> {
        self.runtime.block_on(join_all(requests.iter().map(|request| self.resolve_one(request))))
    }
}

impl Resolver<'_> {
    async fn resolve_one(&self, request: &ImageRequest) -> Result<ResolvedImage, ResolveError> {
        let name = format!("[internal] load metadata for {}", request.display);
        let step = Step::begin(self.events, name);
        let platform = &request.platform;
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
            () = self.cancel.cancelled() => Err(kiln_worker::Error::Cancelled),
        };
        let result = result
            .map(|image| ResolvedImage { digest: image.digest, config: image.config })
            .map_err(|error| ResolveError(unresolved(&request.display, &causes(&error))));
        step.end(result)
    }
}

/// Returns the text for an image that can't be resolved; the cause need not name it again.
fn unresolved(display: &str, cause: &str) -> String {
    let repeated = format!("{display}: ");
    let cause = cause.strip_prefix(&repeated).unwrap_or(cause);
    format!("failed to resolve source metadata for {display}: {cause}")
}
