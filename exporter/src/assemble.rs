//! Image configs, manifests and indexes as bytes.
//!
//! The members have BuildKit's order, escapes and indentation. The same image therefore has the
//! same bytes, whether kiln or BuildKit builds it.

use std::collections::BTreeMap;

use kiln_images::PackedLayer;
use kiln_oci::{Digest, ImageConfig, Platform, limits, media_type};
use serde::Serialize;

use crate::annotations::{AnnotationLevel, Annotations};
use crate::attest::AttestationManifest;
use crate::config::text;
use crate::error::{Error, Result};

/// The annotation with the time up to which a layer's timestamps are rewritten.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

/// A descriptor: the reference from one document to another.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    pub(crate) media_type: &'static str,
    pub(crate) digest: Digest,
    pub(crate) size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) annotations: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Platform>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor,
    /// `null` if the image has no layers, as Go writes it.
    layers: Option<Vec<Descriptor>>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: &'a [Descriptor],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: &'a BTreeMap<String, String>,
}

/// The format of an output's documents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style<'a> {
    /// `true` for OCI's media types, `false` for Docker's.
    pub(crate) oci: bool,
    /// The annotations of the manifests, the index and their descriptors.
    pub(crate) annotations: &'a Annotations,
}

/// A document's bytes and its descriptor.
#[derive(Clone, Debug)]
pub(crate) struct Document {
    pub(crate) descriptor: Descriptor,
    pub(crate) bytes: Vec<u8>,
}

/// The image of one platform.
#[derive(Clone, Debug)]
pub(crate) struct Image {
    pub(crate) config: Document,
    pub(crate) manifest: Document,
    pub(crate) layers: Vec<PackedLayer>,
    /// The creation time in the image's config.
    pub(crate) created: Option<String>,
    /// The creation time in archives: the source date epoch, or else the config's.
    pub(crate) dated: Option<String>,
}

/// The images of a build, and their index if the output has one.
#[derive(Clone, Debug)]
pub(crate) struct Assembled {
    pub(crate) images: Vec<Image>,
    /// The manifests of the images' attestations. Empty without an index.
    pub(crate) attestations: Vec<AttestationManifest>,
    pub(crate) index: Option<Document>,
}

impl Assembled {
    /// Assembles the documents of at least one image. `has_index` adds an index of all images.
    pub(crate) fn new(
        images: Vec<Image>,
        attestations: Vec<AttestationManifest>,
        style: Style<'_>,
        has_index: bool,
    ) -> Result<Self> {
        if !has_index {
            return Ok(Self { images, attestations, index: None });
        }
        let about = attestations.iter().map(AttestationManifest::descriptor);
        let manifests = images.iter().map(|image| &image.manifest.descriptor).chain(about);
        let manifests: Vec<Descriptor> = manifests.cloned().collect();
        let said = |level| style.annotations.at(level, None);
        let mut index = index(&manifests, &said(AnnotationLevel::Index), style.oci)?;
        index.descriptor.annotations = said(AnnotationLevel::IndexDescriptor);
        Ok(Self { images, attestations, index: Some(index) })
    }

    /// Returns the document that identifies the result: the index, or else the only manifest.
    pub(crate) fn top(&self) -> Result<&Document> {
        let only = self.images.first().map(|image| &image.manifest);
        self.index.as_ref().or(only).ok_or_else(|| Error::Config("there is no image".to_owned()))
    }

    /// Returns the total size of all documents and layers in bytes. Each blob counts once.
    pub(crate) fn size(&self) -> u64 {
        let mut sizes = BTreeMap::new();
        for image in &self.images {
            for document in [&image.config, &image.manifest] {
                sizes.insert(document.descriptor.digest, document.descriptor.size);
            }
            sizes.extend(image.layers.iter().map(|layer| (layer.digest, layer.size)));
        }
        for said in &self.attestations {
            for document in said.blobs().chain([&said.manifest]) {
                sizes.insert(document.descriptor.digest, document.descriptor.size);
            }
        }
        let index = self.index.as_ref().map_or(0, |index| index.descriptor.size);
        sizes.values().sum::<u64>() + index
    }
}

impl Image {
    pub(crate) fn new(
        config: &ImageConfig,
        platform: &Platform,
        layers: Vec<PackedLayer>,
        style: Style<'_>,
        epoch: Option<i64>,
    ) -> Result<Self> {
        let oci = style.oci;
        let said = |level| style.annotations.at(level, Some(platform));
        let created = config.created.clone();
        let epoch = epoch.map(|epoch| text(i128::from(epoch) * 1_000_000_000)).transpose()?;
        let dated = epoch.or_else(|| created.clone());
        let kind = if oci { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG };
        let bytes = config.to_json().map_err(|error| Error::Config(error.to_string()))?;
        limits::check_config(bytes.len())?;
        let config = document(bytes, kind);
        let kind = if oci { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST };
        let manifest = Manifest {
            schema_version: 2,
            media_type: kind,
            config: config.descriptor.clone(),
            layers: (!layers.is_empty())
                .then(|| layers.iter().map(|layer| descriptor_of(layer, oci)).collect()),
            annotations: &said(AnnotationLevel::Manifest),
        };
        let mut manifest = listing("manifest", indented(&manifest)?, kind)?;
        manifest.descriptor.annotations = said(AnnotationLevel::ManifestDescriptor);
        manifest.descriptor.platform = Some(platform.clone());
        Ok(Self { config, manifest, layers, created, dated })
    }

    /// Returns the descriptors of the layers with OCI's media types.
    pub(crate) fn oci_layers(&self) -> Vec<Descriptor> {
        self.layers.iter().map(|layer| descriptor_of(layer, true)).collect()
    }
}

/// Creates an index of manifests.
pub(crate) fn index(
    manifests: &[Descriptor],
    annotations: &BTreeMap<String, String>,
    oci: bool,
) -> Result<Document> {
    let kind = if oci { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
    let index = Index { schema_version: 2, media_type: kind, manifests, annotations };
    listing("index", indented(&index)?, kind)
}

/// Returns the bytes of an archive's `index.json`, which is compact JSON.
pub(crate) fn archive_index(manifests: &[Descriptor]) -> Result<Vec<u8>> {
    let annotations = &BTreeMap::new();
    let media_type = media_type::OCI_INDEX;
    let bytes = json(&Index { schema_version: 2, media_type, manifests, annotations })?;
    limits::check_document("index of the archive", bytes.len())?;
    Ok(bytes)
}

fn descriptor_of(layer: &PackedLayer, oci: bool) -> Descriptor {
    let rewritten = layer.rewritten.filter(|_| oci);
    Descriptor {
        media_type: layer.compression.media_type(oci),
        digest: layer.digest,
        size: layer.size,
        annotations: rewritten
            .map(|epoch| (REWRITTEN.to_owned(), epoch.to_string()))
            .into_iter()
            .collect(),
        platform: None,
    }
}

/// Creates a document that lists others. Returns an error if it exceeds the size limit of all
/// readers.
pub(crate) fn listing(
    name: &'static str,
    bytes: Vec<u8>,
    media_type: &'static str,
) -> Result<Document> {
    limits::check_document(name, bytes.len())?;
    Ok(document(bytes, media_type))
}

/// Creates a document of these bytes.
pub(crate) fn document(bytes: Vec<u8>, media_type: &'static str) -> Document {
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    let annotations = BTreeMap::new();
    let descriptor = Descriptor { media_type, digest, size, annotations, platform: None };
    Document { descriptor, bytes }
}

/// Serializes to compact JSON with BuildKit's escapes.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    kiln_oci::json::to_go(value).map_err(|error| Error::Config(error.to_string()))
}

/// Serializes to indented JSON, the form of BuildKit's manifests and indexes.
pub(crate) fn indented<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    kiln_oci::json::to_go_indented(value).map_err(|error| Error::Config(error.to_string()))
}
