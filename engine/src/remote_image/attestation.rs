//! Attestations: statements about images in the same index.

use anyhow::Result;
use kiln_oci::Digest;
use kiln_registry::Client;

use super::RemoteImage;
use crate::json::Json;

/// The annotation that marks an index entry as a document about another entry.
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// The annotation with the digest of the other entry.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
/// The type of entries whose manifests list statements.
pub const ATTESTATION: &str = "attestation-manifest";
/// The annotation with the type of a statement's predicate.
pub const PREDICATE: &str = "in-toto.io/predicate-type";
/// The most bytes of a statement.
pub const STATEMENT: u64 = 64 << 20;

/// A kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The provenance of an image.
    Provenance,
    /// The bill of materials of an image.
    Sbom,
}

impl Kind {
    fn fits(self, predicate: &str) -> bool {
        match self {
            Self::Provenance => predicate.starts_with("https://slsa.dev/provenance/"),
            Self::Sbom => predicate.starts_with("https://spdx.dev/Document"),
        }
    }

    /// Returns buildx's name for the predicate.
    fn name(self) -> &'static str {
        match self {
            Self::Provenance => "SLSA",
            Self::Sbom => "SPDX",
        }
    }
}

/// Returns the statements about the images of an index as an object by platform, or the only
/// statement if there is one image. Returns an empty object without statements.
pub async fn statements(client: &Client, index: &RemoteImage, kind: Kind) -> Result<Json> {
    let mut found = Vec::new();
    let parsed = index.parse()?;
    for entry in &parsed.manifests {
        if entry.annotation(REFERENCE_TYPE) != Some(ATTESTATION) {
            continue;
        }
        let subject = entry.annotation(REFERENCE_DIGEST).and_then(|it| it.parse::<Digest>().ok());
        let subject = parsed.manifests.iter().find(|image| Some(image.digest) == subject);
        let Some(platform) = subject.and_then(super::Entry::platform_text) else { continue };
        let manifest = RemoteImage::by_digest(client, &index.repository, &entry.digest).await?;
        let layers = manifest.parse()?.layers;
        let fits = |layer: &&super::Entry| {
            layer.annotation(PREDICATE).is_some_and(|predicate| kind.fits(predicate))
        };
        if let Some(layer) = layers.iter().find(fits) {
            let bytes = client.small_blob(&index.repository, &layer.digest, STATEMENT).await?;
            let statement = Json::parse(&bytes)?;
            let predicate = statement.get("predicate").cloned().unwrap_or(Json::Null);
            found.push((platform, Json::Object(vec![(kind.name().to_owned(), predicate)])));
        }
    }
    let images = parsed.manifests.iter().filter(|entry| entry.annotation(REFERENCE_TYPE).is_none());
    if images.count() == 1 && found.len() == 1 {
        return Ok(found.remove(0).1);
    }
    Ok(Json::Object(found))
}
