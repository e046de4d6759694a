//! The files that describe devices.

#![expect(clippy::disallowed_methods, reason = "the files are the machine's")]

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde::de::Deserializer;

/// The most bytes of a file that are read.
const LIMIT: u64 = 4 << 20;

/// A file with the devices of one kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    /// The version of the format.
    pub(super) cdi_version: String,
    /// The vendor and the class: `vendor.com/class`.
    pub(super) kind: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) devices: Vec<Device>,
    /// The edits for any of the devices.
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

/// A device.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Device {
    pub(super) name: String,
    #[serde(default, deserialize_with = "texts")]
    pub(super) annotations: BTreeMap<String, String>,
    #[serde(default, rename = "containerEdits")]
    pub(super) edits: Edits,
}

/// The changes to a container that gets a device.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Edits {
    /// Variables as `NAME=value`.
    #[serde(default)]
    pub(crate) env: Vec<String>,
    #[serde(default)]
    pub(crate) device_nodes: Vec<DeviceNode>,
    #[serde(default)]
    pub(crate) mounts: Vec<MountEdit>,
    #[serde(default)]
    pub(crate) hooks: Vec<Hook>,
    /// Groups of the user, by number.
    #[serde(default, alias = "additionalGids")]
    pub(crate) additional_gids: Vec<u32>,
    /// Network devices that move into the container.
    #[serde(default)]
    pub(crate) net_devices: Vec<serde_json::Value>,
    /// Limits of the processor's caches.
    #[serde(default)]
    pub(crate) intel_rdt: Option<serde_json::Value>,
}

/// A device node.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct DeviceNode {
    /// The path in the container.
    pub(crate) path: String,
    /// The path on the host, if it is another one.
    #[serde(default)]
    pub(crate) host_path: String,
    /// `b`, `c`, `u` or `p`. Empty for the type of the host's node.
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) major: Option<u32>,
    #[serde(default)]
    pub(crate) minor: Option<u32>,
    #[serde(default)]
    pub(crate) file_mode: Option<u32>,
    /// The permissions of the control group: `r`, `w` and `m`. Empty for all.
    #[serde(default)]
    pub(crate) permissions: String,
    #[serde(default)]
    pub(crate) uid: Option<u32>,
    #[serde(default)]
    pub(crate) gid: Option<u32>,
}

/// A mount.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct MountEdit {
    pub(crate) host_path: String,
    pub(crate) container_path: String,
    #[serde(default)]
    pub(crate) options: Vec<String>,
    #[serde(default, rename = "type")]
    pub(crate) kind: String,
}

/// A program of the host that changes the container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Hook {
    pub(crate) hook_name: String,
    pub(crate) path: String,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Document, String> {
    let size = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > LIMIT {
        return Err(format!("{size} bytes, more than {LIMIT}"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let document: Document = if is_json {
        serde_json::from_str(&text).map_err(|error| error.to_string())?
    } else {
        serde_saphyr::from_str(&text).map_err(|error| error.to_string())?
    };
    document.check()?;
    Ok(document)
}

impl Document {
    fn check(&self) -> Result<(), String> {
        if self.cdi_version.is_empty() {
            return Err("no cdiVersion".to_owned());
        }
        let is_name = |text: &str, others: &str| {
            let fits = |byte: char| byte.is_ascii_alphanumeric() || others.contains(byte);
            text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.chars().all(fits)
        };
        let is_kind = self
            .kind
            .split_once('/')
            .is_some_and(|(vendor, class)| is_name(vendor, "_-.") && is_name(class, "_-."));
        if !is_kind {
            return Err(format!("invalid kind {:?}", self.kind));
        }
        match self.devices.iter().find(|device| !is_name(&device.name, "_-.:")) {
            Some(device) => Err(format!("invalid device name {:?}", device.name)),
            None => Ok(()),
        }
    }
}

/// A scalar, which is used as a text. The writers of YAML files don't always quote.
#[derive(Deserialize)]
#[serde(untagged)]
enum Scalar {
    Boolean(bool),
    Integer(i64),
    Text(String),
}

fn texts<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    let scalars = BTreeMap::<String, Scalar>::deserialize(from)?;
    let text = |scalar| match scalar {
        Scalar::Boolean(value) => value.to_string(),
        Scalar::Integer(value) => value.to_string(),
        Scalar::Text(text) => text,
    };
    Ok(scalars.into_iter().map(|(key, scalar)| (key, text(scalar))).collect())
}
