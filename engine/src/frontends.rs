//! The port to frontends that are programs of images.
//!
//! Such a frontend runs in a container of its build and makes the build's graphs through BuildKit's
//! `LLBBridge`. The engine doesn't speak that protocol. It hands a [`GraphBuild`] to the [`Frontends`]
//! of its options, and exports what they return.

use std::collections::BTreeMap;
use std::fmt;

use futures_util::future::BoxFuture;
use kiln_attest::GivenStatement;
use kiln_event::EventSender;
use kiln_frontend::lint::Warning;
use kiln_llb::Definition;
use kiln_oci::{ImageConfig, Platform};
use kiln_worker::SourcePolicies;
use tokio_util::sync::CancellationToken;

use crate::build::{Dockerfile, GraphBuild, GraphRequest};
use crate::engine::Engine;

/// The frontends that are programs of images.
pub trait Frontends: fmt::Debug + Send + Sync {
    /// Runs a frontend until it has returned its result.
    fn run(&self, call: FrontendCall) -> BoxFuture<'static, FrontendEnd>;
}

/// The call of a frontend.
#[derive(Debug)]
pub struct FrontendCall {
    /// The engine of the build.
    pub engine: Engine,
    /// The build whose graphs the frontend makes.
    pub build: GraphBuild,
    /// The image of the frontend.
    pub image: String,
    /// The frontend's options, named as in BuildKit's interface.
    pub options: BTreeMap<String, String>,
    /// The policies for sources.
    pub policies: SourcePolicies,
    /// The channel for the events of the frontend and of its steps.
    pub events: EventSender,
    /// The token that stops the frontend.
    pub cancel: CancellationToken,
}

/// The end of a frontend.
#[derive(Debug)]
pub struct FrontendEnd {
    /// The result, or the reason for the failure.
    pub result: Result<FrontendResult, FrontendError>,
    /// The warnings of the frontend.
    pub warnings: Vec<Warning>,
    /// The file that the lines of warnings and of the error refer to. `None` if they have no lines.
    pub file: Option<Dockerfile>,
}

/// The result of a frontend.
#[derive(Debug, Default)]
pub struct FrontendResult {
    /// The images.
    pub images: Vec<FrontendImage>,
    /// `true` if even a single image gets an index.
    pub has_index: bool,
    /// The metadata of the result, with the answer to a request that needs no build.
    pub metadata: BTreeMap<String, Vec<u8>>,
    /// The request, for the provenance of the images.
    pub request: GraphRequest,
}

/// An image that a frontend has described.
#[derive(Debug)]
pub struct FrontendImage {
    /// The platform.
    pub platform: Platform,
    /// The graph of the image's files. Without ops, the image has no files.
    pub definition: Definition,
    /// The image config, without the layers that the build adds.
    pub config: ImageConfig,
    /// The time limit of the image's timestamps, in seconds since 1970.
    pub epoch: Option<i64>,
    /// The statements about the image.
    pub statements: Vec<GivenStatement>,
}

/// The reason why a frontend has no result.
#[derive(Debug)]
pub enum FrontendError {
    /// The build was cancelled.
    Cancelled,
    /// The frontend, or a step of its graphs, has failed. The error may have lines of a file.
    Failed(kiln_frontend::Error),
}
