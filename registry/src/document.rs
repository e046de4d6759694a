//! The distinction between manifests and indexes.

use std::collections::BTreeMap;

use kiln_oci::{json, media_type};
use serde_json::Value;

/// The maximum size of a manifest or index in bytes (OCI distribution specification, "Pushing
/// Manifests").
pub(crate) const DOCUMENT_LIMIT: u64 = 4 << 20;

/// Returns the media type of a manifest or index. The server's `Content-Type`, the document's
/// `mediaType` and its fields must agree. Otherwise two readers could see different content in it
/// (CVE-2021-41190).
///
/// # Errors
/// Returns a description of the document's flaw.
pub fn check_document(bytes: &[u8], declared: Option<&str>) -> Result<String, String> {
    let fields = json::check_amount(bytes).and_then(|()| serde_json::from_slice(bytes));
    let fields: BTreeMap<String, Value> =
        fields.map_err(|error| format!("neither a manifest nor an index: {error}"))?;
    let inner = fields.get("mediaType").filter(|value| !value.is_null());
    let inner = inner.map(|value| value.as_str().unwrap_or_default());
    let declared = declared.map(|text| text.split(';').next().unwrap_or(text).trim());
    let outer = declared.filter(|text| media_type::is_index(text) || media_type::is_manifest(text));
    if fields.contains_key("fsLayers") || declared.is_some_and(is_schema_1) {
        return Err("a docker image of schema 1, a format that is no longer supported".to_owned());
    }
    if let (Some(inner), Some(outer)) = (inner, outer)
        && inner != outer
    {
        return Err(format!("declared as {outer}, but calls itself {inner:?}"));
    }
    let is_index = match (fields.contains_key("manifests"), has_layers(&fields)) {
        (true, false) => true,
        (false, true) => false,
        (true, true) => return Err("both a manifest and an index".to_owned()),
        (false, false) => return Err("neither a manifest nor an index".to_owned()),
    };
    let assumed = if is_index { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
    let name = outer.or(inner).unwrap_or(assumed);
    let fits = if is_index { media_type::is_index(name) } else { media_type::is_manifest(name) };
    if fits { Ok(name.to_owned()) } else { Err(format!("its type {name:?} belies its content")) }
}

fn has_layers(fields: &BTreeMap<String, Value>) -> bool {
    fields.contains_key("layers") || fields.contains_key("config")
}

fn is_schema_1(media_type: &str) -> bool {
    media_type.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_what_they_say() {
        let manifest = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
        let index = br#"{"schemaVersion":2,"manifests":[]}"#;
        assert_eq!(check_document(manifest, None).unwrap(), media_type::OCI_MANIFEST);
        assert_eq!(check_document(index, Some("text/plain")).unwrap(), media_type::OCI_INDEX);
        let docker =
            check_document(manifest, Some(&format!("{}; x=y", media_type::DOCKER_MANIFEST)));
        assert_eq!(docker.unwrap(), media_type::DOCKER_MANIFEST);
        let untyped = br#"{"mediaType":null,"manifests":[]}"#;
        assert_eq!(check_document(untyped, None).unwrap(), media_type::OCI_INDEX);
    }

    #[test]
    fn documents_that_lie_are_refused() {
        let typed = format!("{{\"mediaType\":\"{}\",\"manifests\":[]}}", media_type::OCI_INDEX);
        for (bytes, declared) in [
            (r#"{"layers":[],"manifests":[]}"#, None),
            (r#"{"config":{},"manifests":[]}"#, None),
            (r#"{"schemaVersion":2}"#, None),
            (r#"{"schemaVersion":1,"fsLayers":[]}"#, None),
            (r#"{"layers":[]}"#, Some(media_type::OCI_INDEX)),
            (r#"{"mediaType":7,"layers":[]}"#, None),
            (r#"{"mediaType":"text/html","layers":[]}"#, None),
            (typed.as_str(), Some(media_type::DOCKER_MANIFEST_LIST)),
            ("[]", None),
            ("", None),
        ] {
            assert!(check_document(bytes.as_bytes(), declared).is_err(), "{bytes}");
        }
    }
}
