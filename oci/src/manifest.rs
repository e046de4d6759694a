//! Reading manifests.

use oci_spec::image::ImageManifest;
use serde_json::Value;

/// Reads an image manifest. `null` in place of the layers means that there are none: BuildKit, and
/// so kiln, writes that for an image without layers.
///
/// # Errors
/// Fails on anything that is no manifest of the OCI image specification.
pub fn parse_manifest(bytes: &[u8]) -> serde_json::Result<ImageManifest> {
    let mut document: Value = serde_json::from_slice(bytes)?;
    if let Some(layers) = document.get_mut("layers").filter(|layers| layers.is_null()) {
        *layers = Value::Array(Vec::new());
    }
    serde_json::from_value(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855","size":2}"#;

    #[test]
    fn a_manifest_may_have_no_layers() {
        for layers in ["null", "[]"] {
            let text = format!(r#"{{"schemaVersion":2,"config":{CONFIG},"layers":{layers}}}"#);
            assert!(parse_manifest(text.as_bytes()).unwrap().layers().is_empty());
        }
        let missing = format!(r#"{{"schemaVersion":2,"config":{CONFIG}}}"#);
        assert!(parse_manifest(missing.as_bytes()).is_err());
        assert!(parse_manifest(b"{").is_err());
    }
}
