//! The image config.
//!
//! Its JSON is BuildKit's: properties are in the order of Go's structs, maps are sorted, empty
//! values are left out like Go's `omitempty` does, and unknown properties are kept. (OCI image
//! specification, "Image Configuration", with Docker's additions `Healthcheck`, `OnBuild` and
//! `Shell`.)

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Digest, Platform, json};

/// An empty JSON object, the value in sets that are encoded as maps.
pub type Empty = BTreeMap<String, serde_json::Value>;

/// The config of an image: platform, defaults for containers, layer identities and history. The
/// digest of its JSON is the image ID.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The time of creation in RFC 3339 format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The author, as set by `MAINTAINER`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// The processor architecture, a `GOARCH` value.
    #[serde(default)]
    pub architecture: String,
    /// The variant of the architecture, such as `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system, a `GOOS` value.
    #[serde(default)]
    pub os: String,
    /// The operating system's version, for Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The features that the operating system must have.
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// The defaults for containers.
    #[serde(default)]
    pub config: ContainerConfig,
    /// The diff IDs of the layers.
    #[serde(default)]
    pub rootfs: RootFs,
    /// The history of the image, oldest step first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// The properties that kiln doesn't know.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

impl ImageConfig {
    /// Parses the config of a foreign image. Reads `null` as [`json::from_go`] does.
    ///
    /// # Errors
    /// Fails if the bytes aren't an image config, or if they have more values than
    /// [`json::check_amount`] allows.
    pub fn parse(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        json::check_amount(bytes)?;
        json::from_go(bytes)
    }

    /// Returns the initial config of an image that is built on this one. As in BuildKit, it has
    /// neither the time nor the unknown properties.
    #[must_use]
    pub fn inherited(mut self) -> Self {
        self.created = None;
        self.other.clear();
        self.config.other.clear();
        self
    }

    /// Encodes the config like BuildKit's exporter: compact, with the properties of the document
    /// sorted and those of its objects in the order of Go's structs. The digest of these bytes is
    /// the image ID.
    ///
    /// # Errors
    /// Fails if an unknown property can't be encoded.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut members: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
        for (name, value) in &self.other {
            members.insert(name, json::to_go(value)?);
        }
        let texts = [
            ("author", (!self.author.is_empty()).then_some(&self.author)),
            ("architecture", Some(&self.architecture)),
            ("variant", self.variant.as_ref()),
            ("os", Some(&self.os)),
            ("os.version", self.os_version.as_ref()),
        ];
        for (name, value) in texts {
            if let Some(value) = value {
                members.insert(name, json::to_go(value)?);
            }
        }
        if !self.os_features.is_empty() {
            members.insert("os.features", json::to_go(&self.os_features)?);
        }
        let history = (!self.history.is_empty()).then_some(&self.history);
        members.insert("created", json::to_go(&self.created)?);
        members.insert("config", json::to_go(&self.config)?);
        members.insert("rootfs", json::to_go(&self.rootfs)?);
        members.insert("history", json::to_go(&history)?);
        let mut out = vec![b'{'];
        for (name, value) in members {
            if out.len() > 1 {
                out.push(b',');
            }
            out.append(&mut json::to_go(name)?);
            out.push(b':');
            out.extend(value);
        }
        out.push(b'}');
        Ok(out)
    }

    /// Returns the image's platform in normal form.
    pub fn platform(&self) -> Platform {
        let mut platform = Platform::new(&self.os, &self.architecture, self.variant.as_deref());
        platform.os_version.clone_from(&self.os_version);
        platform.os_features.clone_from(&self.os_features);
        platform
    }
}

/// The defaults for the containers of an image.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// The user and group, as names or numbers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// The ports that the image listens on, such as `80/tcp`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// The environment as `NAME=value`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program that always runs, with its first arguments.
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub entrypoint: Option<Vec<String>>,
    /// The default command, or the arguments of the entrypoint.
    #[serde(default, skip_serializing_if = "is_none_or_empty")]
    pub cmd: Option<Vec<String>>,
    /// The paths of volumes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// The absolute path of the working directory.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// The labels by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks the program to stop.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// `true` if the command is escaped already (Windows).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub args_escaped: bool,
    /// The health check of containers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthcheckConfig>,
    /// The instructions for images that are built from this one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// The shell for the shell form of instructions. Empty for the default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// The properties that kiln doesn't know.
    #[serde(flatten)]
    pub other: BTreeMap<String, serde_json::Value>,
}

/// The health check of a container. Times are in nanoseconds. Zero means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct HealthcheckConfig {
    /// `["NONE"]`, `["CMD", args…]` or `["CMD-SHELL", command]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// The time between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: i64,
    /// The time limit for a check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: i64,
    /// The time after the start in which failures don't count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: i64,
    /// The time between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    /// The number of consecutive failures that makes the container unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// The layers of an image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// The type of the root file system. Always `layers`.
    #[serde(rename = "type", default)]
    pub kind: String,
    /// The digests of the uncompressed layers, base first. `None` is encoded as `null`.
    #[serde(default)]
    pub diff_ids: Option<Vec<Digest>>,
}

impl RootFs {
    /// Returns the diff IDs, base first.
    pub fn diff_ids(&self) -> &[Digest] {
        self.diff_ids.as_deref().unwrap_or_default()
    }
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: None }
    }
}

/// One step in the history of an image.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The time of the step in RFC 3339 format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction of the step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub created_by: String,
    /// The author of the step.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub author: String,
    /// A comment, such as `buildkit.dockerfile.v0`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// `true` if the step made no layer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

#[expect(clippy::ref_option, reason = "serde passes a reference to the member")]
fn is_none_or_empty(list: &Option<Vec<String>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_members_and_nulls_survive() {
        let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":null,"Cmd":["sh"],"X":1},"rootfs":{"type":"layers","diff_ids":null},"history":null,"moby.x":[2]}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        assert_eq!(
            serde_json::to_string(&config).unwrap(),
            r#"{"architecture":"amd64","os":"linux","config":{"Cmd":["sh"],"X":1},"rootfs":{"type":"layers","diff_ids":null},"moby.x":[2]}"#
        );
    }

    #[test]
    fn every_member_can_be_null() {
        let null = |names: &[&str]| {
            let members: Vec<String> =
                names.iter().map(|name| format!("\"{name}\":null")).collect();
            format!("{{{}}}", members.join(","))
        };
        let top =
            ["created", "author", "architecture", "variant", "os", "os.version", "os.features"];
        let text = null(&[&top[..], &["config", "rootfs", "history"]].concat());
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        let rootfs = RootFs { kind: String::new(), diff_ids: None };
        assert_eq!(config, ImageConfig { rootfs, ..ImageConfig::default() });
        let container = [
            "User",
            "ExposedPorts",
            "Env",
            "Entrypoint",
            "Cmd",
            "Volumes",
            "WorkingDir",
            "Labels",
            "StopSignal",
            "ArgsEscaped",
            "Healthcheck",
            "OnBuild",
            "Shell",
        ];
        let test = ["Test", "Interval", "Timeout", "StartPeriod", "StartInterval", "Retries"];
        let history = null(&["created", "created_by", "author", "comment", "empty_layer"]);
        for (config, expected) in [
            (null(&container), ContainerConfig::default()),
            (
                format!(r#"{{"Healthcheck":{}}}"#, null(&test)),
                ContainerConfig {
                    healthcheck: Some(HealthcheckConfig::default()),
                    ..ContainerConfig::default()
                },
            ),
            (
                r#"{"Env":[null,"A=1"],"Labels":{"a":null}}"#.to_owned(),
                ContainerConfig {
                    env: vec![String::new(), "A=1".to_owned()],
                    labels: BTreeMap::from([("a".to_owned(), String::new())]),
                    ..ContainerConfig::default()
                },
            ),
        ] {
            let text = format!(r#"{{"config":{config},"history":[null,{history}]}}"#);
            let parsed = ImageConfig::parse(text.as_bytes()).unwrap();
            assert_eq!(parsed.config, expected, "{text}");
            assert_eq!(parsed.history, vec![History::default(); 2], "{text}");
        }
    }

    #[test]
    fn exported_configs_are_those_of_buildkit() {
        let text = r#"{"os":"linux","architecture":"arm64","variant":"v8","author":"a & b","config":{"Env":["A=<1>"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":null},"b":{"z":1}}"#;
        let config = ImageConfig::parse(text.as_bytes()).unwrap();
        assert_eq!(
            String::from_utf8(config.to_json().unwrap()).unwrap(),
            r#"{"architecture":"arm64","author":"a \u0026 b","b":{"z":1},"config":{"Env":["A=\u003c1\u003e"],"Cmd":["sh"]},"created":null,"history":null,"os":"linux","rootfs":{"type":"layers","diff_ids":null},"variant":"v8"}"#
        );
    }
}
