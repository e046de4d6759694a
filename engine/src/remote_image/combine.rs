//! Combination of existing images into an index.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use kiln_oci::json::from_go;
use kiln_oci::{Digest, media_type};
use kiln_registry::{Client, Repository};
use serde_json::{Map, Value, json};

use super::attestation::REFERENCE_TYPE;
use super::{Entry, RemoteImage};

/// An image to combine.
#[derive(Clone, Debug)]
pub struct Source {
    /// The manifest or index, with its repository.
    pub image: RemoteImage,
    /// Additional fields of its entry in the index.
    pub more: Map<String, Value>,
}

/// Annotations of an index and of its entries.
#[derive(Clone, Debug, Default)]
pub struct Annotations {
    index: BTreeMap<String, String>,
    /// Annotations of entries: platform, key and value. Without a platform, they apply to all
    /// entries.
    entries: Vec<(Option<String>, String, String)>,
}

/// The result of a combination.
#[derive(Clone, Debug)]
pub struct Combined {
    /// The contents of the document.
    pub bytes: Vec<u8>,
    /// The document's media type.
    pub media_type: String,
    /// The entries of the document, each with its current repository.
    pub parts: Vec<(Repository, Entry)>,
}

impl Annotations {
    /// Parses `[index:|manifest-descriptor[PLATFORM]:]KEY=VALUE`.
    pub fn add(&mut self, text: &str) -> Result<()> {
        let Some((key, value)) = text.split_once('=') else {
            bail!("invalid annotation {text:?}: expected KEY=VALUE");
        };
        let (kind, key) = key.split_once(':').unwrap_or(("index", key));
        let (kind, platform) = match kind.split_once('[') {
            Some((kind, platform)) => {
                let platform = platform.strip_suffix(']').with_context(|| {
                    format!("invalid annotation {text:?}: the platform has no end")
                })?;
                let platform: kiln_oci::Platform = platform
                    .parse()
                    .with_context(|| format!("invalid annotation {text:?}: {platform:?}"))?;
                (kind, Some(platform.to_string()))
            }
            None => (kind, None),
        };
        if key.is_empty() {
            bail!("invalid annotation {text:?}: there is no key");
        }
        match kind {
            "index" if platform.is_none() => {
                self.index.insert(key.to_owned(), value.to_owned());
            }
            "manifest-descriptor" => {
                self.entries.push((platform, key.to_owned(), value.to_owned()));
            }
            _ => bail!(
                "invalid annotation {text:?}: of an index that is put together there are \
                 index: and manifest-descriptor[PLATFORM]: alone"
            ),
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.index.is_empty() && self.entries.is_empty()
    }
}

/// Combines images into an index: manifests and the entries of indexes, in order and without
/// duplicates. A single source without additions stays unchanged, byte for byte.
pub async fn combine(
    client: &Client,
    sources: &[Source],
    annotations: &Annotations,
    prefer_index: bool,
) -> Result<Combined> {
    if let [only] = sources
        && annotations.is_empty()
        && only.more.is_empty()
        && (only.image.is_index() || !prefer_index)
    {
        return untouched(&only.image);
    }
    let mut entries: Vec<(Repository, Map<String, Value>)> = Vec::new();
    for source in sources {
        for entry in of_source(client, source).await? {
            let same = |(_, known): &&mut (_, Map<String, Value>)| {
                known.get("digest") == entry.get("digest")
            };
            match entries.iter_mut().find(same) {
                Some((_, known)) => merge(known, entry),
                None => entries.push((source.image.repository.clone(), entry)),
            }
        }
    }
    for (_, entry) in &mut entries {
        annotate(entry, annotations);
    }
    let is_docker = sources.iter().all(|source| source.image.media_type.contains(".docker."));
    let media_type =
        if is_docker { media_type::DOCKER_MANIFEST_LIST } else { media_type::OCI_INDEX };
    let manifests: Vec<&Map<String, Value>> = entries.iter().map(|(_, entry)| entry).collect();
    let mut index = json!({
        "schemaVersion": 2, "mediaType": media_type, "manifests": manifests,
    });
    if !annotations.index.is_empty() {
        index["annotations"] = json!(annotations.index);
    }
    let parse = |entry: &Map<String, Value>| from_go(&serde_json::to_vec(entry)?);
    let parts = entries.iter().map(|(repository, entry)| Ok((repository.clone(), parse(entry)?)));
    Ok(Combined {
        bytes: serde_json::to_vec_pretty(&index)?,
        media_type: media_type.to_owned(),
        parts: parts.collect::<Result<_>>()?,
    })
}

/// Returns an index or a manifest unchanged.
fn untouched(image: &RemoteImage) -> Result<Combined> {
    let parsed = image.parse()?;
    let parts = if image.is_index() { parsed.manifests } else { Vec::new() };
    Ok(Combined {
        bytes: image.bytes.clone(),
        media_type: image.media_type.clone(),
        parts: parts.into_iter().map(|entry| (image.repository.clone(), entry)).collect(),
    })
}

/// Returns the entries of a source for an index.
async fn of_source(client: &Client, source: &Source) -> Result<Vec<Map<String, Value>>> {
    let image = &source.image;
    if image.is_index() {
        image.parse()?;
        let index: Value = serde_json::from_slice(&image.bytes)?;
        let entries = index["manifests"].as_array().cloned().unwrap_or_default();
        return Ok(entries.into_iter().filter_map(|entry| entry.as_object().cloned()).collect());
    }
    let mut entry = Map::new();
    entry.insert("mediaType".to_owned(), image.media_type.clone().into());
    entry.insert("digest".to_owned(), image.digest.to_string().into());
    entry.insert("size".to_owned(), image.bytes.len().into());
    if let Some(platform) = image.platform(client).await? {
        entry.insert("platform".to_owned(), platform);
    }
    merge(&mut entry, source.more.clone());
    Ok(vec![entry])
}

/// Merges another entry for the same document. Annotations are merged one by one.
fn merge(entry: &mut Map<String, Value>, more: Map<String, Value>) {
    for (name, value) in more {
        match (name.as_str(), entry.get_mut(&name), value) {
            ("mediaType" | "digest" | "size", Some(_), _) => {}
            ("annotations", Some(Value::Object(known)), Value::Object(new)) => known.extend(new),
            (_, _, value) => {
                entry.insert(name, value);
            }
        }
    }
}

fn annotate(entry: &mut Map<String, Value>, annotations: &Annotations) {
    let parsed: Option<Entry> = serde_json::from_value(Value::Object(entry.clone())).ok();
    let Some(parsed) = parsed.filter(|parsed| parsed.annotation(REFERENCE_TYPE).is_none()) else {
        return;
    };
    let platform = parsed.platform_text();
    let normal = platform.as_deref().and_then(|text| text.parse::<kiln_oci::Platform>().ok());
    let normal = normal.map(|platform| platform.to_string());
    for (wanted, key, value) in &annotations.entries {
        if wanted.is_none() || *wanted == normal {
            let all = entry.entry("annotations").or_insert_with(|| json!({}));
            if let Value::Object(all) = all {
                all.insert(key.clone(), value.clone().into());
            }
        }
    }
}

/// Returns the digest of a combined document.
pub fn digest(combined: &Combined) -> Digest {
    Digest::of(&combined.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_have_levels() {
        let mut annotations = Annotations::default();
        for text in [
            "a=b",
            "index:c=d=e",
            "manifest-descriptor:f=",
            "manifest-descriptor[linux/arm64/v8]:g=h",
        ] {
            annotations.add(text).unwrap();
        }
        assert_eq!(annotations.index["c"], "d=e");
        assert_eq!(annotations.entries[1].0.as_deref(), Some("linux/arm64"));
        let entry = |platform: Value| {
            let mut entry = json!({
                "mediaType": "x", "digest": Digest::of(b"x"), "size": 1, "platform": platform,
            });
            let Value::Object(map) = &mut entry else { panic!() };
            annotate(map, &annotations);
            map.get("annotations").cloned().unwrap()
        };
        assert_eq!(
            entry(json!({"os": "linux", "architecture": "arm64"})),
            json!({"f": "", "g": "h"})
        );
        assert_eq!(entry(json!({"os": "linux", "architecture": "amd64"})), json!({"f": ""}));
        for text in
            ["a", "manifest:a=b", "index-descriptor:a=b", "manifest-descriptor[x:a=b", "index:=b"]
        {
            assert!(annotations.add(text).is_err(), "{text}");
        }
    }
}
