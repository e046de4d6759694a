//! The description of this machine as a worker.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, CdiDevice, WorkerRecord};
use bollard_buildkit_proto::pb;
use kiln_oci::Platform;
use kiln_worker::{KnownDevice, emulation};
use serde_json::{Value, json};
use tonic::Status;

use crate::client::ServerVersion;
use crate::collection::total_space;
use crate::filters::Filter;
use crate::server::{Host, Options};

/// The version of `BuildKit` whose interface this is. Clients compare it before they use a feature.
const BUILDKIT: &str = "v0.33.0";

/// The prefix of labels.
const LABEL: &str = "org.mobyproject.buildkit.worker.";

/// Returns the version that clients see.
pub(crate) fn version() -> BuildkitVersion {
    BuildkitVersion {
        package: "github.com/moby/buildkit".to_owned(),
        version: BUILDKIT.to_owned(),
        revision: concat!("kiln-", env!("CARGO_PKG_VERSION")).to_owned(),
    }
}

/// Returns the version of `BuildKit` whose interface kiln has, with kiln's own version as its
/// revision.
pub fn buildkit_version() -> ServerVersion {
    let version = version();
    ServerVersion {
        package: version.package,
        version: version.version,
        revision: version.revision,
        dockerfile_version: kiln_frontend::DOCKERFILE_VERSION.to_owned(),
    }
}

/// Returns the user agent of requests for the files of graphs. Servers that serve builders know
/// `BuildKit`'s.
pub(crate) fn user_agent() -> String {
    format!("kiln/{} buildkit/{BUILDKIT}", env!("CARGO_PKG_VERSION"))
}

/// Returns the record of this machine.
pub(crate) fn record(host: &Host) -> WorkerRecord {
    let mut labels: HashMap<String, String> = [
        ("executor".to_owned(), "kiln".to_owned()),
        ("hostname".to_owned(), host_name()),
        ("oci.process-mode".to_owned(), "sandbox".to_owned()),
        ("snapshotter".to_owned(), host.snapshotter()),
    ]
    .map(|(name, value)| (format!("{LABEL}{name}"), value))
    .into();
    let options = host.options();
    labels.extend(options.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
    let total = total_space(host.engine.store().root());
    WorkerRecord {
        id: host.worker_id.clone(),
        labels,
        platforms: platforms(&options).iter().map(to_message).collect(),
        gc_policy: options.gc.iter().map(|policy| policy.to_message(total)).collect(),
        buildkit_version: Some(version()),
        cdi_devices: devices(host),
    }
}

/// Returns the devices that are described on this machine now.
fn devices(host: &Host) -> Vec<CdiDevice> {
    let devices = host.options().engine.cdi.devices();
    let message = |device: KnownDevice| CdiDevice {
        name: device.name,
        auto_allow: device.is_auto_allowed,
        annotations: device.annotations.into_iter().collect(),
        on_demand: false,
    };
    devices.into_iter().map(message).collect()
}

/// Returns a record as JSON, for frontends: a list of one worker.
pub(crate) fn to_json(host: &Host, record: &WorkerRecord) -> Value {
    let version = record.buildkit_version.clone().unwrap_or_default();
    json!([{
        "id": record.id,
        "labels": record.labels,
        "platforms": platforms(&host.options()),
        "gcPolicy": null,
        "buildkitVersion": {
            "package": version.package,
            "version": version.version,
            "revision": version.revision,
        },
        "cdiDevices": null,
    }])
}

/// Returns the records of the workers that pass one of the filters, if there are any.
///
/// # Errors
/// Fails if a filter is malformed.
pub(crate) fn records(host: &Host, filters: &[String]) -> Result<Vec<WorkerRecord>, Status> {
    let filters = Filter::parse_all(filters)?;
    let record = record(host);
    let value = |field: &[String]| match field {
        [name] if name == "id" => Some(record.id.clone()),
        [labels, name @ ..] if labels == "labels" => record.labels.get(&name.join(".")).cloned(),
        _ => None,
    };
    let is_wanted = filters.is_empty() || filters.iter().any(|filter| filter.accepts(value));
    Ok(is_wanted.then_some(record).into_iter().collect())
}

/// Returns the platforms of the configuration, or those whose programs this machine runs now, its own
/// first.
fn platforms(options: &Options) -> Vec<Platform> {
    if !options.platforms.is_empty() {
        return options.platforms.clone();
    }
    let host = Platform::host();
    let others = [
        "linux/amd64",
        "linux/arm64",
        "linux/riscv64",
        "linux/ppc64le",
        "linux/s390x",
        "linux/386",
        "linux/arm/v7",
        "linux/arm/v6",
    ];
    let others = others.iter().filter_map(|name| name.parse::<Platform>().ok());
    let others = others.filter(|platform| *platform != host && emulation::check(platform).is_ok());
    std::iter::once(host.clone()).chain(others).collect()
}

/// Returns a platform as a message of the protocol.
pub(crate) fn to_message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
        os_version: platform.os_version.clone().unwrap_or_default(),
        os_features: platform.os_features.clone(),
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
