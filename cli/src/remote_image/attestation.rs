//! What is attested of images: statements that stand beside them in an index.

use anyhow::Result;
use kiln_oci::Digest;
use kiln_registry::Client;

use super::RemoteImage;
use crate::format::Json;

/// Marks the entry of an index that holds statements about another.
pub(crate) const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// Names the other.
const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";
const ATTESTATION: &str = "attestation-manifest";
const PREDICATE: &str = "in-toto.io/predicate-type";
/// Most bytes of a statement.
const STATEMENT: u64 = 64 << 20;

/// A kind of statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// How an image was built.
    Provenance,
    /// What it is made of.
    Sbom,
}

impl Kind {
    fn fits(self, predicate: &str) -> bool {
        match self {
            Self::Provenance => predicate.starts_with("https://slsa.dev/provenance/"),
            Self::Sbom => predicate.starts_with("https://spdx.dev/Document"),
        }
    }

    /// Returns the name that buildx has for the predicate.
    fn name(self) -> &'static str {
        match self {
            Self::Provenance => "SLSA",
            Self::Sbom => "SPDX",
        }
    }
}

/// Returns the statements about the images of an index: by platform, or alone where there is one
/// image. An object without members where there are none.
pub(crate) async fn statements(client: &Client, index: &RemoteImage, kind: Kind) -> Result<Json> {
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
