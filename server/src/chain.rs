//! The chain from an image to the statements about it: its index, the manifest that lists the
//! statements, and the signature of that manifest.

use std::collections::HashMap;

use bollard_buildkit_proto::moby::buildkit::v1::frontend::{
    AttestationChain, Blob, Descriptor as Message,
};
use kiln::remote_image::attestation::{
    ATTESTATION, PREDICATE, REFERENCE_DIGEST, REFERENCE_TYPE, STATEMENT,
};
use kiln_images::{Document, Origin, digest_of};
use kiln_oci::{Descriptor, Digest, ImageManifest, Platform, Reference, media_type};
use kiln_registry::Repository;
use kiln_registry::platform::select_platform;
use tonic::Status;

use crate::errors::of_error;
use crate::jobs::Job;

/// The artifact types of signatures, the preferred one first.
const SIGNATURES: [&str; 2] = [
    "application/vnd.dev.sigstore.bundle.v0.3+json",
    "application/vnd.dev.cosign.artifact.sig.v1+json",
];

/// Returns the chain of an image, whose reference has the digest. The statements with these predicates
/// are part of it. Returns `None` if the image isn't listed in an index of the OCI format.
///
/// # Errors
/// Fails if a document isn't available, or if the index has no image for the platform.
pub(crate) async fn of_image(
    job: &Job,
    reference: &Reference,
    platform: &Platform,
    predicates: &[String],
) -> Result<Option<AttestationChain>, Status> {
    let root = reference.digest().ok_or_else(|| Status::internal("the image has no digest"))?;
    let documents =
        Documents { job, repository: Repository::from(reference), name: reference.name() };
    let bytes = documents.manifest(&root).await?;
    let index = match documents.parse(&root, &bytes)? {
        Document::Index(index) => index,
        Document::Manifest(_) => return Ok(None),
    };
    if index.media_type.as_deref().unwrap_or(media_type::OCI_INDEX) != media_type::OCI_INDEX {
        return Ok(None);
    }
    let missing = || Status::unknown(format!("no manifest for platform {platform}: not found"));
    let image = select_platform(&index, platform).ok_or_else(missing)?;
    let mut chain = AttestationChain {
        root: root.to_string(),
        image_manifest: image.digest.clone(),
        ..AttestationChain::default()
    };
    let descriptor = Descriptor::new(media_type::OCI_INDEX, &root, bytes.len() as u64);
    add(&mut chain.blobs, &descriptor, bytes);
    let has = |entry: &Descriptor, key: &str, value: &str| {
        entry.annotations.get(key).is_some_and(|found| found == value)
    };
    let is_about = |entry: &&Descriptor| {
        has(entry, REFERENCE_TYPE, ATTESTATION) && has(entry, REFERENCE_DIGEST, &image.digest)
    };
    if let Some(attestation) = index.manifests.iter().find(is_about) {
        documents.add_attestation(&mut chain, attestation, predicates).await?;
    }
    Ok(Some(chain))
}

/// The documents of a repository.
struct Documents<'a> {
    job: &'a Job,
    repository: Repository,
    name: String,
}

impl Documents<'_> {
    async fn manifest(&self, digest: &Digest) -> Result<Vec<u8>, Status> {
        let origin = Origin::Registry(self.name.clone());
        let found = self.job.build().images().manifest(&origin, digest).await;
        found.map_err(|error| of_error(&error))
    }

    fn parse(&self, digest: &Digest, bytes: &[u8]) -> Result<Document, Status> {
        let name = format!("{}@{digest}", self.name);
        Document::parse(&name, bytes).map_err(|error| of_error(&error))
    }

    /// Adds a manifest. Returns it.
    async fn add_manifest(
        &self,
        chain: &mut AttestationChain,
        descriptor: &Descriptor,
    ) -> Result<ImageManifest, Status> {
        let digest = digest_of(descriptor).map_err(|error| of_error(&error))?;
        let bytes = self.manifest(&digest).await?;
        let Document::Manifest(manifest) = self.parse(&digest, &bytes)? else {
            return Err(Status::unknown(format!("{digest}: expected a manifest, not an index")));
        };
        add(&mut chain.blobs, descriptor, bytes);
        Ok(*manifest)
    }

    async fn add_blob(
        &self,
        chain: &mut AttestationChain,
        descriptor: &Descriptor,
    ) -> Result<(), Status> {
        let digest = digest_of(descriptor).map_err(|error| of_error(&error))?;
        let client = self.job.build().images().client();
        let bytes = client.small_blob(&self.repository, &digest, STATEMENT).await;
        add(&mut chain.blobs, descriptor, bytes.map_err(|error| of_error(&error))?);
        Ok(())
    }

    /// Adds the manifest that lists statements, its signature, and some statements.
    async fn add_attestation(
        &self,
        chain: &mut AttestationChain,
        attestation: &Descriptor,
        predicates: &[String],
    ) -> Result<(), Status> {
        let manifest = self.add_manifest(chain, attestation).await?;
        chain.attestation_manifest.clone_from(&attestation.digest);
        let digest = digest_of(attestation).map_err(|error| of_error(&error))?;
        let client = self.job.build().images().client();
        let referrers = client.referrers(&self.repository, &digest).await;
        let referrers = referrers.map_err(|error| of_error(&error))?;
        let signature = SIGNATURES.iter().find_map(|kind| {
            referrers.iter().find(|entry| entry.artifact_type.as_deref() == Some(kind))
        });
        if let Some(signature) = signature {
            chain.signature_manifests = vec![signature.digest.clone()];
            for layer in self.add_manifest(chain, signature).await?.layers {
                self.add_blob(chain, &layer).await?;
            }
        }
        let is_wanted = |layer: &&Descriptor| {
            layer.annotations.get(PREDICATE).is_some_and(|kind| predicates.contains(kind))
        };
        for layer in manifest.layers.iter().filter(is_wanted) {
            self.add_blob(chain, layer).await?;
        }
        Ok(())
    }
}

fn add(blobs: &mut HashMap<String, Blob>, descriptor: &Descriptor, data: Vec<u8>) {
    let message = Message {
        media_type: descriptor.media_type.clone(),
        digest: descriptor.digest.clone(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        annotations: descriptor.annotations.clone().into_iter().collect(),
    };
    blobs.insert(descriptor.digest.clone(), Blob { descriptor: Some(message), data });
}
