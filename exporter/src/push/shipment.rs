//! The blobs and documents of an upload.

use std::collections::BTreeSet;

use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, ImageIndex, ImageManifest, media_type};
use kiln_store::Store;

use crate::assemble::Assembled;
use crate::error::{Error, Result};

/// The maximum size of a manifest or index in bytes.
const DOCUMENT: u64 = 4 << 20;
/// The maximum size of an image config in bytes.
const CONFIG: u64 = 16 << 20;
/// The maximum depth of nested indexes.
const DEPTH: u32 = 4;

/// A blob to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PushBlob {
    /// The digest of the blob.
    pub digest: Digest,
    /// The size in bytes.
    pub size: u64,
    /// The media type in the blob's descriptor.
    pub media_type: String,
    /// The bytes of a blob that isn't in the store.
    pub bytes: Option<Bytes>,
    /// `true` for a layer, `false` for a config.
    pub is_layer: bool,
}

/// A manifest or an index to upload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The digest of the bytes.
    pub digest: Digest,
    /// The media type, which is sent with the upload.
    pub media_type: String,
    /// The exact bytes to send.
    pub bytes: Bytes,
}

/// The blobs and documents of an upload, without duplicates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipment {
    /// The blobs. They are uploaded before the documents.
    pub freight: Vec<PushBlob>,
    /// The documents in the order of upload. The last one receives the names.
    pub documents: Vec<Document>,
    /// The manifests that the index refers to but the store lacks. They are not uploaded.
    pub missing: Vec<Digest>,
}

impl Shipment {
    /// Returns the shipment of an export.
    pub(crate) fn of(assembled: &Assembled) -> Result<Self> {
        let mut shipment = Self::default();
        for image in &assembled.images {
            for layer in &image.layers {
                let media_type = layer.compression.media_type(true).to_owned();
                let (digest, size) = (layer.digest, layer.size);
                shipment.add(PushBlob { digest, size, media_type, bytes: None, is_layer: true });
            }
            shipment.add_blob(&image.config);
            shipment.add_document(&image.manifest);
        }
        for said in &assembled.attestations {
            said.blobs.iter().for_each(|blob| shipment.add_blob(blob));
            shipment.add_document(&said.manifest);
        }
        match &assembled.index {
            Some(index) => shipment.add_document(index),
            None => drop(assembled.top()?),
        }
        Ok(shipment)
    }

    /// Returns the shipment of an image in the store: the manifest or index with this digest, and
    /// all that it refers to. Manifests of an index that were never pulled are listed in
    /// [`missing`](Self::missing).
    ///
    /// # Errors
    /// Fails if a document is missing or invalid.
    pub fn stored(store: &Store, digest: &Digest, media_type: &str) -> Result<Self> {
        let mut shipment = Self::default();
        shipment.collect(store, digest, media_type, DEPTH)?;
        Ok(shipment)
    }

    fn collect(&mut self, store: &Store, digest: &Digest, kind: &str, depth: u32) -> Result<()> {
        // Nested indexes may refer to the same document repeatedly.
        if self.documents.iter().any(|known| known.digest == *digest) {
            return Ok(());
        }
        let bytes = Bytes::from(store.content().read(digest, DOCUMENT)?);
        let invalid = |error: serde_json::Error| Error::Config(format!("{digest}: {error}"));
        if media_type::is_index(kind) {
            let index = ImageIndex::parse(&bytes).map_err(invalid)?;
            for entry in &index.manifests {
                let named = digest_of(entry)?;
                if store.content().size(&named)?.is_none() {
                    self.missing.push(named);
                } else if depth == 0 {
                    return Err(Error::Config(format!("{digest}: indexes are nested too deeply")));
                } else {
                    self.collect(store, &named, &entry.media_type, depth - 1)?;
                }
            }
        } else {
            let manifest = ImageManifest::parse(&bytes).map_err(invalid)?;
            for layer in &manifest.layers {
                self.add(freight(layer, true)?);
            }
            let mut config = freight(&manifest.config, false)?;
            config.bytes = Some(Bytes::from(store.content().read(&config.digest, CONFIG)?));
            self.add(config);
        }
        let document = Document { digest: *digest, media_type: kind.to_owned(), bytes };
        self.documents.push(document);
        Ok(())
    }

    /// Adds a blob unless the shipment has it.
    pub(crate) fn add(&mut self, freight: PushBlob) {
        if !self.freight.iter().any(|known| known.digest == freight.digest) {
            self.freight.push(freight);
        }
    }

    /// Adds a document that is uploaded as a blob.
    pub(crate) fn add_blob(&mut self, document: &kiln_oci::Document) {
        self.add(PushBlob {
            digest: document.digest,
            size: document.descriptor.size,
            media_type: document.descriptor.media_type.clone(),
            bytes: Some(Bytes::from(document.bytes.clone())),
            is_layer: false,
        });
    }

    /// Adds a document that is uploaded as a manifest.
    pub(crate) fn add_document(&mut self, document: &kiln_oci::Document) {
        let digest = document.digest;
        if !self.documents.iter().any(|known| known.digest == digest) {
            let media_type = document.descriptor.media_type.clone();
            let bytes = Bytes::from(document.bytes.clone());
            self.documents.push(Document { digest, media_type, bytes });
        }
    }

    /// Returns the document that receives the names.
    pub fn top(&self) -> Option<&Document> {
        self.documents.last()
    }

    /// Replaces an incomplete index by its only manifest in the store. Returns `false` if the store
    /// has none or several.
    pub fn reduce(&mut self) -> bool {
        let manifests: BTreeSet<Digest> = self
            .documents
            .iter()
            .filter(|it| media_type::is_manifest(&it.media_type))
            .map(|it| it.digest)
            .collect();
        if manifests.len() != 1 {
            return false;
        }
        self.documents.retain(|document| manifests.contains(&document.digest));
        self.missing.clear();
        true
    }
}

fn freight(descriptor: &Descriptor, is_layer: bool) -> Result<PushBlob> {
    let (digest, size) = (digest_of(descriptor)?, descriptor.size);
    let media_type = descriptor.media_type.clone();
    Ok(PushBlob { digest, size, media_type, bytes: None, is_layer })
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = &descriptor.digest;
    descriptor.digest().map_err(|_| Error::Config(format!("{text:?} is no digest that kiln knows")))
}
