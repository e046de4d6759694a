//! Reading manifests and indexes.

use oci_spec::image::{ImageIndex, ImageManifest};

use crate::json;

/// Reads an image manifest. `null` in place of the layers means that there are none: BuildKit, and
/// so kiln, writes that for an image without layers.
///
/// # Errors
/// Fails on anything that is no manifest of the OCI image specification.
pub fn parse_manifest(bytes: &[u8]) -> serde_json::Result<ImageManifest> {
    json::from_go(bytes)
}

/// Reads an index of images.
///
/// # Errors
/// Fails on anything that is no index of the OCI image specification.
pub fn parse_index(bytes: &[u8]) -> serde_json::Result<ImageIndex> {
    json::from_go(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPE: &str = "application/vnd.oci.image.config.v1+json";
    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn a_manifest_may_have_no_layers() {
        let config = format!(r#"{{"mediaType":"{TYPE}","digest":"{DIGEST}","size":2}}"#);
        for layers in ["null", "[]"] {
            let text = format!(r#"{{"schemaVersion":2,"config":{config},"layers":{layers}}}"#);
            assert!(parse_manifest(text.as_bytes()).unwrap().layers().is_empty());
        }
        let missing = format!(r#"{{"schemaVersion":2,"config":{config}}}"#);
        assert!(parse_manifest(missing.as_bytes()).is_err());
        assert!(parse_manifest(b"{").is_err());
    }

    #[test]
    fn members_can_be_null() {
        let platform = r#"{"architecture":"amd64","os":null,"os.version":null,"os.features":null,"variant":null}"#;
        let entry = format!(
            r#"{{"mediaType":"{TYPE}","digest":"{DIGEST}","size":null,"urls":null,"annotations":{{"a":null}},"platform":{platform},"data":null,"artifactType":null}}"#
        );
        let around = r#""schemaVersion":null,"mediaType":null,"annotations":null,"subject":null,"artifactType":null"#;
        let text = format!(r#"{{{around},"config":{entry},"layers":[{entry}]}}"#);
        let manifest = parse_manifest(text.as_bytes()).unwrap();
        assert_eq!((manifest.layers().len(), manifest.config().size()), (1, 0));
        for entries in ["null".to_owned(), format!("[{entry}]")] {
            let index = parse_index(format!(r#"{{{around},"manifests":{entries}}}"#).as_bytes());
            assert_eq!(index.unwrap().manifests().is_empty(), entries == "null");
        }
        let text = format!(r#"{{{around},"config":{{"digest":null}},"layers":[]}}"#);
        assert!(parse_manifest(text.as_bytes()).is_err(), "a digest is required");
    }
}
