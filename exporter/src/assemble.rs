//! Image configs, manifests and indexes as bytes.
//!
//! The members have BuildKit's order, escapes and indentation. The same image therefore has the
//! same bytes, whether kiln or BuildKit builds it.

use std::collections::BTreeMap;

use kiln_images::PackedLayer;
use kiln_oci::{Descriptor, Document, ImageConfig, ImageIndex, Platform, limits, media_type};
use serde::Serialize;

use crate::annotations::{AnnotationLevel, Annotations};
use crate::attest::ImageAttestations;
use crate::config::text_of_seconds;
use crate::error::{Error, Result};

/// The annotation with the time up to which a layer's timestamps are rewritten.
const REWRITTEN: &str = "buildkit/rewritten-timestamp";

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

/// The format of an output's documents.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style<'a> {
    /// `true` for OCI's media types, `false` for Docker's.
    pub(crate) oci: bool,
    /// The annotations of the manifests, the index and their descriptors.
    pub(crate) annotations: &'a Annotations,
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
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembled {
    pub(crate) images: Vec<Image>,
    /// The manifests of the images' attestations. Empty without an index.
    pub(crate) attestations: Vec<ImageAttestations>,
    pub(crate) index: Option<Document>,
}

impl Assembled {
    /// Assembles the documents of at least one image. `has_index` adds an index of all images.
    pub(crate) fn new(
        images: Vec<Image>,
        attestations: Vec<ImageAttestations>,
        style: Style<'_>,
        has_index: bool,
    ) -> Result<Self> {
        if !has_index {
            return Ok(Self { images, attestations, index: None });
        }
        let about = attestations.iter().map(|said| &said.manifest.descriptor);
        let manifests = images.iter().map(|image| &image.manifest.descriptor).chain(about);
        let said = |level| style.annotations.at(level, None);
        let kind = if style.oci { media_type::OCI_INDEX } else { media_type::DOCKER_MANIFEST_LIST };
        let mut index = ImageIndex::new(kind, manifests.cloned().collect());
        index.annotations = said(AnnotationLevel::Index);
        let mut index = Document::listing("index", kind, indented(&index)?)?;
        index.descriptor.annotations = said(AnnotationLevel::IndexDescriptor);
        Ok(Self { images, attestations, index: Some(index) })
    }

    /// Returns the document that identifies the result: the index, or else the only manifest.
    pub(crate) fn top(&self) -> Result<&Document> {
        let only = self.images.first().map(|image| &image.manifest);
        self.index.as_ref().or(only).ok_or_else(|| Error::Config("there is no image".to_owned()))
    }

    /// Returns all documents. A document comes after those that it refers to.
    pub(crate) fn documents(&self) -> impl Iterator<Item = &Document> {
        let images = self.images.iter().flat_map(|image| [&image.config, &image.manifest]);
        let said = self.attestations.iter().flat_map(ImageAttestations::documents);
        images.chain(said).chain(&self.index)
    }

    /// Returns the total size of all documents and layers in bytes. Each blob counts once.
    pub(crate) fn size(&self) -> u64 {
        let documents = self.documents().map(|it| (it.digest, it.descriptor.size));
        let layers = self.images.iter().flat_map(|image| &image.layers);
        let layers = layers.map(|layer| (layer.digest, layer.size));
        documents.chain(layers).collect::<BTreeMap<_, _>>().values().sum()
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
        let epoch = epoch.map(text_of_seconds).transpose()?;
        let dated = epoch.or_else(|| created.clone());
        let kind = if oci { media_type::OCI_CONFIG } else { media_type::DOCKER_CONFIG };
        let bytes = config.to_json().map_err(|error| Error::Config(error.to_string()))?;
        limits::check_config(bytes.len())?;
        let config = Document::new(kind, bytes);
        let kind = if oci { media_type::OCI_MANIFEST } else { media_type::DOCKER_MANIFEST };
        let manifest = Manifest {
            schema_version: 2,
            media_type: kind,
            config: config.descriptor.clone(),
            layers: (!layers.is_empty())
                .then(|| layers.iter().map(|layer| descriptor_of(layer, oci)).collect()),
            annotations: &said(AnnotationLevel::Manifest),
        };
        let mut manifest = Document::listing("manifest", kind, indented(&manifest)?)?;
        manifest.descriptor.annotations = said(AnnotationLevel::ManifestDescriptor);
        manifest.descriptor.platform = Some(platform.clone());
        Ok(Self { config, manifest, layers, created, dated })
    }

    /// Returns the descriptors of the layers with OCI's media types.
    pub(crate) fn oci_layers(&self) -> Vec<Descriptor> {
        self.layers.iter().map(|layer| descriptor_of(layer, true)).collect()
    }
}

/// Returns the bytes of an archive's `index.json`, which is compact JSON.
pub(crate) fn archive_index(manifests: Vec<Descriptor>) -> Result<Vec<u8>> {
    let bytes = json(&ImageIndex::new(media_type::OCI_INDEX, manifests))?;
    limits::check_document("index of the archive", bytes.len())?;
    Ok(bytes)
}

fn descriptor_of(layer: &PackedLayer, oci: bool) -> Descriptor {
    let media_type = layer.compression.media_type(oci);
    let mut descriptor = Descriptor::new(media_type, &layer.digest, layer.size);
    let rewritten = layer.rewritten.filter(|_| oci);
    descriptor.annotations.extend(rewritten.map(|epoch| (REWRITTEN.to_owned(), epoch.to_string())));
    descriptor
}

/// Serializes to compact JSON with BuildKit's escapes.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    kiln_oci::json::to_go(value).map_err(|error| Error::Config(error.to_string()))
}

/// Serializes to indented JSON, the form of BuildKit's manifests and indexes.
pub(crate) fn indented<T: Serialize>(value: &T) -> Result<Vec<u8>> {
    kiln_oci::json::to_go_indented(value).map_err(|error| Error::Config(error.to_string()))
}
