//! The answers of a server, as plain data.

use std::collections::BTreeMap;
use std::time::Duration;

use bollard_buildkit_proto::google::protobuf::Timestamp;
use bollard_buildkit_proto::moby::buildkit::v1 as proto;
use bollard_buildkit_proto::moby::buildkit::v1::types::{CdiDevice, GcPolicy};
use kiln_oci::Platform;
use time::OffsetDateTime;

use super::messages::{BuilderVersion, Worker};

/// The version of a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServerVersion {
    /// The server's name, as `github.com/moby/buildkit`.
    pub package: String,
    /// The version, as `v0.33.0`.
    pub version: String,
    /// The revision of the source.
    pub revision: String,
    /// The version of the Dockerfile frontend; empty if the server doesn't tell it.
    pub dockerfile_version: String,
}

impl From<BuilderVersion> for ServerVersion {
    fn from(message: BuilderVersion) -> Self {
        Self {
            package: message.package,
            version: message.version,
            revision: message.revision,
            dockerfile_version: message.dockerfile_version,
        }
    }
}

/// The description of a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerDescription {
    /// The worker's ID.
    pub id: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The platforms whose programs it runs.
    pub platforms: Vec<Platform>,
    /// The rules of garbage collection.
    pub gc: Vec<PruneRule>,
    /// The version of its server.
    pub version: ServerVersion,
    /// The devices that steps can use.
    pub devices: Vec<Device>,
}

impl From<Worker> for WorkerDescription {
    fn from(message: Worker) -> Self {
        Self {
            id: message.id,
            labels: message.labels.into_iter().collect(),
            platforms: message.platforms.into_iter().map(platform).collect(),
            gc: message.gc_policy.into_iter().map(PruneRule::from).collect(),
            version: message.version.map(ServerVersion::from).unwrap_or_default(),
            devices: message.devices.into_iter().map(Device::from).collect(),
        }
    }
}

fn platform(message: bollard_buildkit_proto::pb::Platform) -> Platform {
    let optional = |text: String| (!text.is_empty()).then_some(text);
    Platform {
        os: message.os,
        architecture: message.architecture,
        variant: optional(message.variant),
        os_version: optional(message.os_version),
        os_features: message.os_features,
    }
}

/// A rule about the parts of the cache that go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneRule {
    /// `true` for parts that frontends and the server itself use, too.
    pub all: bool,
    /// The filters; without filters, all parts are meant.
    pub filter: Vec<String>,
    /// The time since their last use in which parts stay.
    pub keep_duration: Duration,
    /// The bytes that the cache may have in any case.
    pub reserved_space: i64,
    /// The most bytes that the cache may have.
    pub max_used_space: i64,
    /// The bytes of the disk that stay free.
    pub min_free_space: i64,
}

impl From<GcPolicy> for PruneRule {
    fn from(message: GcPolicy) -> Self {
        Self {
            all: message.all,
            filter: message.filters,
            keep_duration: Duration::from_nanos(message.keep_duration.max(0).cast_unsigned()),
            reserved_space: message.reserved_space,
            max_used_space: message.max_used_space,
            min_free_space: message.min_free_space,
        }
    }
}

/// A device that the Container Device Interface describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The name, as `vendor.com/class=name`.
    pub name: String,
    /// `true` if each build may use it.
    pub auto_allow: bool,
    /// The annotations.
    pub annotations: BTreeMap<String, String>,
    /// `true` if the server can install it.
    pub on_demand: bool,
}

impl From<CdiDevice> for Device {
    fn from(message: CdiDevice) -> Self {
        Self {
            name: message.name,
            auto_allow: message.auto_allow,
            annotations: message.annotations.into_iter().collect(),
            on_demand: message.on_demand,
        }
    }
}

/// A part of the cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageRecord {
    /// The ID.
    pub id: String,
    /// `true` if steps change it, as they do cache mounts.
    pub mutable: bool,
    /// `true` if a build uses it now.
    pub in_use: bool,
    /// The bytes on the disk.
    pub size: i64,
    /// The time of its creation.
    pub created_at: OffsetDateTime,
    /// The time of its last use.
    pub last_used_at: Option<OffsetDateTime>,
    /// The number of its uses.
    pub usage_count: i64,
    /// The IDs of the parts below it.
    pub parents: Vec<String>,
    /// The step that has made it.
    pub description: String,
    /// The kind of part, as `regular`.
    pub record_type: String,
    /// `true` if images hold it, too.
    pub shared: bool,
}

impl From<proto::UsageRecord> for UsageRecord {
    fn from(message: proto::UsageRecord) -> Self {
        Self {
            id: message.id,
            mutable: message.mutable,
            in_use: message.in_use,
            size: message.size,
            created_at: message.created_at.map_or(OffsetDateTime::UNIX_EPOCH, |it| time_of(&it)),
            last_used_at: message.last_used_at.map(|it| time_of(&it)),
            usage_count: message.usage_count,
            parents: message.parents,
            description: message.description,
            record_type: message.record_type,
            shared: message.shared,
        }
    }
}

/// Returns the time of a message; the epoch if it is out of range.
fn time_of(message: &Timestamp) -> OffsetDateTime {
    let nanoseconds = i128::from(message.seconds) * 1_000_000_000 + i128::from(message.nanos);
    OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}
