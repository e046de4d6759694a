//! The manifests of attestations, beside the images' manifests in an index.
//!
//! The layers of such a manifest are the statements about one image. Its platform is
//! `unknown/unknown`, so that no engine runs it. The annotations of its descriptor in the index
//! give its type and the digest of the image's manifest. There are two forms: one with an image
//! config, which all registries accept, and an OCI 1.1 artifact whose `subject` is the image.

use std::collections::BTreeMap;

use kiln_oci::{
    Descriptor, Digest, Document, ImageConfig, ImageManifest, Platform, RootFs, json, media_type,
};

use crate::error::Result;
use crate::statement::Statement;

const STATEMENT: &str = "application/vnd.in-toto+json";
const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ARTIFACT: &str = "application/vnd.docker.attestation.manifest.v1+json";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";
/// The empty config, `{}`, in base64.
const EMPTY_DATA: &str = "e30=";

/// The statements about an image, and the manifest that lists them.
#[derive(Clone, Debug)]
pub struct AttestationManifest {
    /// The manifest. Its descriptor has the platform and the annotations for the index.
    pub manifest: Document,
    /// The documents that the manifest refers to: the statements, and last its config.
    pub blobs: Vec<Document>,
}

/// Creates the manifest of the statements about an image.
pub(crate) fn manifest(
    statements: &[Statement],
    image: &Descriptor,
    is_artifact: bool,
) -> Result<AttestationManifest> {
    let mut documents = Vec::with_capacity(statements.len());
    for statement in statements {
        let mut document = Document::new(STATEMENT, statement.compact()?);
        let annotation = (PREDICATE_TYPE.to_owned(), statement.predicate_type.clone().into_owned());
        document.descriptor.annotations.extend([annotation]);
        documents.push(document);
    }
    let config =
        if is_artifact { Document::new(EMPTY, b"{}".to_vec()) } else { config(&documents)? };
    let layers = documents.iter().map(|document| document.descriptor.clone()).collect();
    let kind = media_type::OCI_MANIFEST;
    let mut manifest = ImageManifest::new(kind, config.descriptor.clone(), layers);
    if is_artifact {
        let about = Descriptor { annotations: BTreeMap::new(), platform: None, ..image.clone() };
        manifest.artifact_type = Some(ARTIFACT.to_owned());
        manifest.config.data = Some(EMPTY_DATA.to_owned());
        manifest.subject = Some(about);
    }
    let mut manifest = Document::listing("manifest", kind, json::to_go_indented(&manifest)?)?;
    manifest.descriptor.platform = Some(nobodys());
    manifest.descriptor.annotations = BTreeMap::from([
        (REFERENCE_DIGEST.to_owned(), image.digest.clone()),
        (REFERENCE_TYPE.to_owned(), "attestation-manifest".to_owned()),
    ]);
    documents.push(config);
    Ok(AttestationManifest { manifest, blobs: documents })
}

/// Creates an image config whose diff IDs are the digests of the statements.
fn config(statements: &[Document]) -> Result<Document> {
    let diff_ids: Vec<Digest> = statements.iter().map(|it| it.digest).collect();
    let config = ImageConfig {
        architecture: "unknown".to_owned(),
        os: "unknown".to_owned(),
        rootfs: RootFs { diff_ids: Some(diff_ids), ..RootFs::default() },
        ..ImageConfig::default()
    };
    Ok(Document::new(media_type::OCI_CONFIG, json::to_go(&config)?))
}

fn nobodys() -> Platform {
    let unknown = || "unknown".to_owned();
    Platform {
        architecture: unknown(),
        os: unknown(),
        os_version: None,
        os_features: Vec::new(),
        variant: None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::statement::Subject;

    fn made(is_artifact: bool) -> (AttestationManifest, Value) {
        let image = Document::new(media_type::OCI_MANIFEST, b"image".to_vec()).descriptor;
        let statement = Statement {
            predicate_type: "https://spdx.dev/Document".into(),
            subjects: vec![Subject::new("_".to_owned(), &Digest::of(b"image").hex())],
            predicate: json!({"a": 1}),
        };
        let made = manifest(&[statement], &image, is_artifact).unwrap();
        let value = serde_json::from_slice(&made.manifest.bytes).unwrap();
        (made, value)
    }

    #[test]
    fn statements_are_layers_of_an_image_for_nobody() {
        let (made, value) = made(false);
        let entry = serde_json::to_value(&made.manifest.descriptor).unwrap();
        assert_eq!(entry["platform"], json!({"architecture": "unknown", "os": "unknown"}));
        assert_eq!(entry["annotations"][REFERENCE_DIGEST], Digest::of(b"image").to_string());
        let layer = &value["layers"][0];
        assert_eq!(layer["mediaType"], STATEMENT);
        assert_eq!(layer["annotations"][PREDICATE_TYPE], "https://spdx.dev/Document");
        let config: Value = serde_json::from_slice(&made.blobs[1].bytes).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], layer["digest"]);
        assert!(value.get("artifactType").is_none() && value.get("subject").is_none(), "{value}");
        let statement: Value = serde_json::from_slice(&made.blobs[0].bytes).unwrap();
        assert_eq!(statement["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(statement["predicate"]["a"], 1);
    }

    #[test]
    fn artifacts_name_their_subject() {
        let (made, value) = made(true);
        assert_eq!(value["artifactType"], ARTIFACT);
        assert_eq!(value["subject"]["digest"], Digest::of(b"image").to_string());
        assert_eq!(
            (&value["config"]["data"], &value["config"]["size"]),
            (&json!("e30="), &json!(2))
        );
        assert_eq!(made.blobs[1].bytes, b"{}");
    }
}
