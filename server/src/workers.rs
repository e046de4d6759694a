//! The description of this machine as a worker.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::types::{BuildkitVersion, GcPolicy, WorkerRecord};
use bollard_buildkit_proto::pb;
use kiln_oci::Platform;
use kiln_worker::emulation;

use crate::server::Shared;

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

/// Returns the user agent of requests for the files of graphs. Servers that serve builders know
/// `BuildKit`'s.
pub(crate) fn user_agent() -> String {
    format!("kiln/{} buildkit/{BUILDKIT}", env!("CARGO_PKG_VERSION"))
}

/// Returns the record of this machine.
pub(crate) fn record(shared: &Shared) -> WorkerRecord {
    let mut labels: HashMap<String, String> = [
        ("executor".to_owned(), "kiln".to_owned()),
        ("hostname".to_owned(), host_name()),
        ("snapshotter".to_owned(), shared.snapshotter()),
    ]
    .map(|(name, value)| (format!("{LABEL}{name}"), value))
    .into();
    labels.extend(shared.options.labels.iter().map(|(name, value)| (name.clone(), value.clone())));
    WorkerRecord {
        id: shared.worker_id.clone(),
        labels,
        platforms: platforms().iter().map(to_message).collect(),
        gc_policy: vec![GcPolicy { all: true, ..GcPolicy::default() }],
        buildkit_version: Some(version()),
        cdi_devices: Vec::new(),
    }
}

/// Returns the platforms whose programs this machine runs, its own first.
fn platforms() -> Vec<Platform> {
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

fn to_message(platform: &Platform) -> pb::Platform {
    pb::Platform {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone().unwrap_or_default(),
        ..pb::Platform::default()
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
