//! What is to be in a repository.

use std::collections::BTreeSet;

use bytes::Bytes;
use kiln_oci::{Descriptor, Digest, media_type, parse_index, parse_manifest};
use kiln_store::Store;

use crate::assemble::{self, Assembled};
use crate::error::{Error, Result};

/// Most bytes of a manifest or index.
const DOCUMENT: u64 = 4 << 20;
/// Most bytes of an image config.
const CONFIG: u64 = 16 << 20;
/// How deep indexes may hold indexes.
const DEPTH: u32 = 4;

/// A blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Freight {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
    /// Its bytes, where they aren't in the store.
    pub bytes: Option<Bytes>,
    /// Whether it is a layer.
    pub is_layer: bool,
}

/// A manifest or an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// Its bytes.
    pub bytes: Bytes,
}

/// What is to be in a repository, each blob once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shipment {
    /// The blobs.
    pub freight: Vec<Freight>,
    /// The documents, the one that is to have the names last.
    pub documents: Vec<Document>,
    /// Manifests of the index that the store hasn't got, which are therefore not in it.
    pub missing: Vec<Digest>,
}

impl Shipment {
    /// Returns what an export has made.
    pub(crate) fn of(assembled: &Assembled) -> Result<Self> {
        let mut shipment = Self::default();
        for image in &assembled.images {
            for layer in &image.layers {
                let media_type = layer.compression.media_type(true).to_owned();
                let (digest, size) = (layer.digest, layer.size);
                shipment.add(Freight { digest, size, media_type, bytes: None, is_layer: true });
            }
            shipment.blob(&image.config);
            shipment.document(&image.manifest);
        }
        for said in &assembled.attestations {
            said.blobs().for_each(|blob| shipment.blob(blob));
            shipment.document(&said.manifest);
        }
        match &assembled.index {
            Some(index) => shipment.document(index),
            None => drop(assembled.top()?),
        }
        Ok(shipment)
    }

    /// Returns an image of the store: the manifest or index with this digest and what it names.
    /// Manifests of an index that were never pulled are told of.
    ///
    /// # Errors
    /// Fails where a document is missing or isn't what it should be.
    pub fn stored(store: &Store, digest: &Digest, media_type: &str) -> Result<Self> {
        let mut shipment = Self::default();
        shipment.collect(store, (digest, media_type), DEPTH)?;
        Ok(shipment)
    }

    fn collect(
        &mut self,
        store: &Store,
        (digest, kind): (&Digest, &str),
        depth: u32,
    ) -> Result<()> {
        // Nested indexes may name the same documents again and again.
        if self.documents.iter().any(|known| known.digest == *digest) {
            return Ok(());
        }
        let bytes = Bytes::from(store.content().read(digest, DOCUMENT)?);
        let invalid = |error: serde_json::Error| Error::Config(format!("{digest}: {error}"));
        if media_type::is_index(kind) {
            let index = parse_index(&bytes).map_err(invalid)?;
            for entry in index.manifests() {
                let named = digest_of(entry)?;
                if store.content().size(&named)?.is_none() {
                    self.missing.push(named);
                } else if depth == 0 {
                    return Err(Error::Config(format!("{digest}: indexes are nested too deeply")));
                } else {
                    let kind = entry.media_type().to_string();
                    self.collect(store, (&named, &kind), depth - 1)?;
                }
            }
        } else {
            let manifest = parse_manifest(&bytes).map_err(invalid)?;
            for layer in manifest.layers() {
                self.add(freight(layer, true)?);
            }
            let mut config = freight(manifest.config(), false)?;
            config.bytes = Some(Bytes::from(store.content().read(&config.digest, CONFIG)?));
            self.add(config);
        }
        let document = Document { digest: *digest, media_type: kind.to_owned(), bytes };
        self.documents.push(document);
        Ok(())
    }

    fn add(&mut self, freight: Freight) {
        if !self.freight.iter().any(|known| known.digest == freight.digest) {
            self.freight.push(freight);
        }
    }

    /// Adds a document that goes as a blob.
    fn blob(&mut self, document: &assemble::Document) {
        self.add(Freight {
            digest: document.descriptor.digest,
            size: document.descriptor.size,
            media_type: document.descriptor.media_type.to_owned(),
            bytes: Some(Bytes::from(document.bytes.clone())),
            is_layer: false,
        });
    }

    fn document(&mut self, document: &assemble::Document) {
        let digest = document.descriptor.digest;
        if !self.documents.iter().any(|known| known.digest == digest) {
            let media_type = document.descriptor.media_type.to_owned();
            let bytes = Bytes::from(document.bytes.clone());
            self.documents.push(Document { digest, media_type, bytes });
        }
    }

    /// Returns the document that is to have the names.
    pub fn top(&self) -> Option<&Document> {
        self.documents.last()
    }

    /// Leaves an index away whose other images aren't there: what is there is named instead, where
    /// it is one image. Tells whether that was possible.
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

fn freight(descriptor: &Descriptor, is_layer: bool) -> Result<Freight> {
    let (digest, size) = (digest_of(descriptor)?, descriptor.size());
    let media_type = descriptor.media_type().to_string();
    Ok(Freight { digest, size, media_type, bytes: None, is_layer })
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest> {
    let text = descriptor.digest().as_ref();
    text.parse().map_err(|_| Error::Config(format!("{text:?} is no digest that kiln knows")))
}
