//! Answers of `Control` with the fields that `bollard-buildkit-proto` doesn't have.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::types::{CdiDevice, GcPolicy};
use bollard_buildkit_proto::pb::Platform;

/// The answer of `Info`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Info {
    #[prost(message, optional, tag = "1")]
    pub(crate) version: Option<BuilderVersion>,
}

/// `BuildKit`'s `BuildkitVersion`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct BuilderVersion {
    #[prost(string, tag = "1")]
    pub(crate) package: String,
    #[prost(string, tag = "2")]
    pub(crate) version: String,
    #[prost(string, tag = "3")]
    pub(crate) revision: String,
    #[prost(string, tag = "4")]
    pub(crate) dockerfile_version: String,
}

/// The answer of `ListWorkers`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Workers {
    #[prost(message, repeated, tag = "1")]
    pub(super) record: Vec<Worker>,
}

/// `BuildKit`'s `WorkerRecord`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Worker {
    #[prost(string, tag = "1")]
    pub(super) id: String,
    #[prost(map = "string, string", tag = "2")]
    pub(super) labels: HashMap<String, String>,
    #[prost(message, repeated, tag = "3")]
    pub(super) platforms: Vec<Platform>,
    #[prost(message, repeated, tag = "4")]
    pub(super) gc_policy: Vec<GcPolicy>,
    #[prost(message, optional, tag = "5")]
    pub(super) version: Option<BuilderVersion>,
    #[prost(message, repeated, tag = "6")]
    pub(super) devices: Vec<CdiDevice>,
}
