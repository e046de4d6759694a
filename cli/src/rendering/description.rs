//! The description of an image in docker's format.

use anyhow::Result;
use kiln::image::named::NamedImage;
use kiln_oci::{ContainerConfig, Descriptor, Digest};
use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::rendering::format::Document;

/// The output of `docker image inspect`.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Description<'a> {
    id: Digest,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    comment: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    docker_version: &'a str,
    author: &'a str,
    config: &'a ContainerConfig,
    architecture: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    variant: Option<&'a str>,
    os: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    os_version: Option<&'a str>,
    size: u64,
    #[serde(rename = "RootFS")]
    root_fs: RootFs<'a>,
    metadata: Metadata,
    descriptor: Value,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    manifests: Vec<Value>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RootFs<'a> {
    #[serde(rename = "Type")]
    kind: &'static str,
    layers: &'a [Digest],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metadata {
    last_tag_time: String,
}

/// Describes an image.
pub(crate) fn describe(image: &NamedImage) -> Result<Document> {
    let stored = &image.image;
    let config = &stored.config;
    let other = |name: &str| config.other.get(name).and_then(Value::as_str).unwrap_or_default();
    let named_at = OffsetDateTime::from_unix_timestamp(stored.row.created_at)?;
    let description = Description {
        id: stored.id,
        repo_tags: image.tags(),
        repo_digests: image.digests(),
        comment: other("comment"),
        created: config.created.as_deref(),
        docker_version: other("docker_version"),
        author: &config.author,
        config: &config.config,
        architecture: &config.architecture,
        variant: config.variant.as_deref(),
        os: &config.os,
        os_version: config.os_version.as_deref(),
        size: stored.size(),
        root_fs: RootFs { kind: "layers", layers: config.rootfs.diff_ids() },
        metadata: Metadata { last_tag_time: named_at.format(&Rfc3339)? },
        descriptor: json!({
            "mediaType": stored.row.media_type,
            "digest": stored.row.digest,
            "size": stored.row.size,
        }),
        manifests: stored
            .entries
            .iter()
            .map(|(entry, is_there)| describe_entry(entry, *is_there))
            .collect(),
    };
    Document::with_fields(&description, &fields(&description)?)
}

/// Returns the fields for templates, including empty ones.
fn fields(description: &Description<'_>) -> Result<Value> {
    let mut fields = json!({
        "Created": "", "DockerVersion": "", "Variant": "", "OsVersion": "", "Parent": "",
        "Manifests": [],
    });
    merge(&mut fields, serde_json::to_value(description)?);
    let mut config = json!({
        "Hostname": "", "Domainname": "", "User": "", "AttachStdin": false, "AttachStdout": false,
        "AttachStderr": false, "ExposedPorts": {}, "Tty": false, "OpenStdin": false,
        "StdinOnce": false, "Env": [], "Cmd": [], "Healthcheck": null, "ArgsEscaped": false,
        "Image": "", "Volumes": {}, "WorkingDir": "", "Entrypoint": [], "OnBuild": [],
        "Labels": {}, "StopSignal": "", "Shell": [],
    });
    merge(&mut config, fields["Config"].take());
    fields["Config"] = config;
    Ok(fields)
}

fn merge(into: &mut Value, from: Value) {
    if let (Value::Object(into), Value::Object(from)) = (into, from) {
        into.extend(from);
    }
}

/// Describes an entry of an index. `is_there` is `true` if the store has its manifest.
fn describe_entry(entry: &Descriptor, is_there: bool) -> Value {
    json!({
        "ID": entry.digest,
        "Descriptor": entry,
        "Available": is_there,
        "Kind": "image",
        "ImageData": { "Platform": entry.platform },
    })
}
