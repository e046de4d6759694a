//! The documents of `buildctl --format`.
//!
//! The JSON form has the names of BuildKit's documents, and templates access the same members by the
//! names of its fields: `id` is `.ID`, and `inUse` is `.InUse`.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use kiln::json::Json;
use kiln_oci::Platform;
use kiln_server::{Device, PruneRule, ServerVersion, UsageRecord, WorkerDescription};
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::rendering::format::Document;

/// A document that can be printed.
pub(super) trait ToDocument: Serialize + Sized {
    /// Returns the document with its two forms.
    ///
    /// # Errors
    /// Fails if the document can't be encoded.
    fn to_document(&self) -> Result<Document> {
        let json = Json::of(self)?;
        let fields = fields(&json, true);
        Ok(Document::cased(json, fields))
    }
}

/// Returns the document of a list. An empty one is `null`, as in Go.
pub(super) fn list<T: ToDocument>(items: Vec<T>) -> Result<Document> {
    or_null(items).to_document()
}

impl<T: ToDocument> ToDocument for Option<Vec<T>> {}
impl ToDocument for Info {}
impl ToDocument for Worker {}
impl ToDocument for CacheRecord {}

/// The document of `debug info`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Info {
    pub(super) buildkit_version: Version,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Version {
    package: String,
    #[serde(rename = "version")]
    number: String,
    revision: String,
    #[serde(rename = "dockerfileVersion", skip_serializing_if = "String::is_empty")]
    dockerfile: String,
}

impl From<ServerVersion> for Version {
    fn from(version: ServerVersion) -> Self {
        Self {
            package: version.package,
            number: version.version,
            revision: version.revision,
            dockerfile: version.dockerfile_version,
        }
    }
}

/// A document of `debug workers`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Worker {
    id: String,
    labels: Option<BTreeMap<String, String>>,
    platforms: Vec<Platform>,
    gc_policy: Vec<Rule>,
    buildkit_version: Version,
    cdi_devices: Option<Vec<CdiDevice>>,
}

impl From<WorkerDescription> for Worker {
    fn from(worker: WorkerDescription) -> Self {
        Self {
            id: worker.id,
            labels: (!worker.labels.is_empty()).then_some(worker.labels),
            platforms: worker.platforms,
            gc_policy: worker.gc.into_iter().map(Rule::from).collect(),
            buildkit_version: worker.version.into(),
            cdi_devices: or_null(worker.devices.into_iter().map(CdiDevice::from).collect()),
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    all: bool,
    filter: Option<Vec<String>>,
    /// In nanoseconds.
    keep_duration: u128,
    reserved_space: i64,
    max_used_space: i64,
    min_free_space: i64,
}

impl From<PruneRule> for Rule {
    fn from(rule: PruneRule) -> Self {
        Self {
            all: rule.all,
            filter: or_null(rule.filter),
            keep_duration: rule.keep_duration.as_nanos(),
            reserved_space: rule.reserved_space,
            max_used_space: rule.max_used_space,
            min_free_space: rule.min_free_space,
        }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CdiDevice {
    name: String,
    auto_allow: bool,
    annotations: Option<BTreeMap<String, String>>,
    on_demand: bool,
}

impl From<Device> for CdiDevice {
    fn from(device: Device) -> Self {
        Self {
            name: device.name,
            auto_allow: device.auto_allow,
            annotations: (!device.annotations.is_empty()).then_some(device.annotations),
            on_demand: device.on_demand,
        }
    }
}

/// A document of `du` and `prune`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct CacheRecord {
    id: String,
    mutable: bool,
    in_use: bool,
    size: i64,
    created_at: String,
    last_used_at: Option<String>,
    usage_count: i64,
    parents: Option<Vec<String>>,
    description: String,
    record_type: String,
    shared: bool,
}

impl From<UsageRecord> for CacheRecord {
    fn from(record: UsageRecord) -> Self {
        // Times of messages are years of four digits.
        let text = |time: OffsetDateTime| time.format(&Rfc3339).unwrap_or_default();
        Self {
            id: record.id,
            mutable: record.mutable,
            in_use: record.in_use,
            size: record.size,
            created_at: text(record.created_at),
            last_used_at: record.last_used_at.map(text),
            usage_count: record.usage_count,
            parents: or_null(record.parents),
            description: record.description,
            record_type: record.record_type,
            shared: record.shared,
        }
    }
}

/// Returns `None` for an empty list: Go encodes it as `null`.
fn or_null<T>(items: Vec<T>) -> Option<Vec<T>> {
    (!items.is_empty()).then_some(items)
}

/// The members of documents that may be missing, and their names in templates.
const OPTIONAL: [&str; 2] = ["Variant", "DockerfileVersion"];

/// Returns a document with the names of Go's fields. `has_fields` is `false` for a map, whose keys
/// are data.
fn fields(json: &Json, has_fields: bool) -> Json {
    match json {
        Json::List(items) => Json::List(items.iter().map(|item| fields(item, true)).collect()),
        Json::Object(members) if has_fields => {
            let mut named: Vec<(String, Json)> =
                members.iter().map(|(name, value)| field(name, value)).collect();
            let has = |name: &str| members.iter().any(|(known, _)| known == name);
            let missing = [("architecture", OPTIONAL[0]), ("revision", OPTIONAL[1])];
            for (beside, name) in missing {
                if has(beside) && !named.iter().any(|(known, _)| known == name) {
                    named.push((name.to_owned(), Json::String(String::new())));
                }
            }
            Json::Object(named)
        }
        other => other.clone(),
    }
}

/// Returns a member with its name in templates, and with Go's text of times.
fn field(name: &str, value: &Json) -> (String, Json) {
    let go_name = match name {
        "id" | "os" => name.to_uppercase(),
        "gcPolicy" => "GCPolicy".to_owned(),
        "cdiDevices" => "CDIDevices".to_owned(),
        "os.version" => "OSVersion".to_owned(),
        "os.features" => "OSFeatures".to_owned(),
        name => {
            let (first, rest) = name.split_at(1);
            first.to_uppercase() + rest
        }
    };
    let value = match (name, value) {
        ("createdAt" | "lastUsedAt", Json::String(text)) => {
            let time = OffsetDateTime::parse(text, &Rfc3339);
            Json::String(time.map_or_else(|_| text.clone(), go_time))
        }
        ("keepDuration", Json::Number(number)) => {
            let time = Duration::from_nanos(number.as_u64().unwrap_or_default());
            Json::String(go_duration(time))
        }
        ("labels" | "annotations", Json::Null) => Json::Object(Vec::new()),
        ("parents" | "filter" | "cdiDevices", Json::Null) => Json::List(Vec::new()),
        ("labels" | "annotations", value) => fields(value, false),
        (_, value) => fields(value, true),
    };
    (go_name, value)
}

/// Formats a time as Go prints it: `2026-12-01 05:28:00.5 +0000 UTC`.
pub(super) fn go_time(time: OffsetDateTime) -> String {
    let (date, clock) = (time.date(), time.time());
    let fraction = format!(".{:09}", time.nanosecond());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let (hour, minute, second) = (clock.hour(), clock.minute(), clock.second());
    format!("{date} {hour:02}:{minute:02}:{second:02}{fraction} +0000 UTC")
}

/// Formats a duration as Go prints it: `48h0m0s`, `1.5s`, `20ms`.
pub(super) fn go_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        let nanoseconds = duration.as_nanos() as f64;
        return match nanoseconds {
            0.0 => "0s".to_owned(),
            1e6.. => format!("{}ms", nanoseconds / 1e6),
            1e3.. => format!("{}µs", nanoseconds / 1e3),
            _ => format!("{nanoseconds}ns"),
        };
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let fraction = format!(".{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
    let rest = format!("{}{fraction}s", seconds % 60);
    match (hours, minutes) {
        (0, 0) => rest,
        (0, _) => format!("{minutes}m{rest}"),
        _ => format!("{hours}h{minutes}m{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> CacheRecord {
        CacheRecord::from(UsageRecord {
            id: "a".to_owned(),
            mutable: false,
            in_use: false,
            size: 4,
            created_at: OffsetDateTime::from_unix_timestamp_nanos(1_500_000_000_250_000_000)
                .unwrap(),
            last_used_at: None,
            usage_count: 1,
            parents: Vec::new(),
            description: "d".to_owned(),
            record_type: "regular".to_owned(),
            shared: false,
        })
    }

    #[test]
    fn json_and_templates_have_names_of_their_own() {
        let json = r#"{"id":"a","mutable":false,"inUse":false,"size":4,"createdAt":"2017-07-14T02:40:00.25Z","lastUsedAt":null,"usageCount":1,"parents":null,"description":"d","recordType":"regular","shared":false}"#;
        let one = record().to_document().unwrap();
        assert_eq!(one.execute("{{json .}}").unwrap(), format!("{json}\n"));
        let text = one.execute("{{.ID}} {{.InUse}} {{.Parents}} {{.CreatedAt}}").unwrap();
        assert_eq!(text, "a false [] 2017-07-14 02:40:00.25 +0000 UTC\n");
        let several = list(vec![record(), record()]).unwrap();
        assert_eq!(several.execute("{{json .}}").unwrap(), format!("[{json},{json}]\n"));
        assert_eq!(several.execute("{{range .}}{{.ID}},{{end}}").unwrap(), "a,a,\n");
        assert_eq!(
            list::<CacheRecord>(Vec::new()).unwrap().execute("{{json .}}").unwrap(),
            "null\n"
        );
    }

    #[test]
    fn parts_of_documents_have_their_json_names() {
        let version = ServerVersion { package: "p".to_owned(), ..ServerVersion::default() };
        let document = Info { buildkit_version: version.into() }.to_document().unwrap();
        let json = r#"{"package":"p","version":"","revision":""}"#;
        let text = document.execute("{{json .BuildkitVersion}}").unwrap();
        assert_eq!(text, format!("{json}\n"));
        let text = document.execute("{{.BuildkitVersion.DockerfileVersion}}").unwrap();
        assert_eq!(text, "\n");
    }

    #[test]
    fn durations_are_those_of_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (172_800_000_000_000, "48h0m0s"),
            (1_500_000_000, "1.5s"),
            (61_000_000_000, "1m1s"),
            (20_000_000, "20ms"),
        ] {
            assert_eq!(go_duration(Duration::from_nanos(nanoseconds)), text);
        }
    }
}
