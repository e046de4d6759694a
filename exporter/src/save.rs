//! Images of the store in one archive: an OCI layout that `docker load` reads as well.
//!
//! Documents and blobs are copied from the store byte for byte. A blob that several images share is
//! included once. The images keep their digests, so that they are the same images after loading.

use kiln_oci::{Descriptor, Digest, ImageManifest, Reference, limits, media_type};
use kiln_store::{LayerBlob, Store};
use serde_json::{Value, json};

use crate::archive::{self, Body, Destination, Files, blob_path};
use crate::error::{Error, Result};
use crate::export::ExportContext;
use crate::output::docker;
use crate::push::{PushBlob, Shipment};

/// The maximum size of a manifest in bytes.
const MANIFEST: u64 = 4 << 20;

/// An image to save.
#[derive(Clone, Debug)]
pub struct SavedImage {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// The media type of the manifest or index.
    pub media_type: String,
    /// The size of the manifest or index in bytes.
    pub size: u64,
    /// The digest of the manifest for engines that don't know indexes.
    pub manifest: Digest,
    /// The names of the image in the archive.
    pub names: Vec<Reference>,
}

/// Writes images to an archive. Fetches the layers that the store lacks.
///
/// # Errors
/// Fails if a part of an image is unavailable, or if the archive can't be written.
pub fn save(
    images: &[SavedImage],
    dest: &Destination,
    context: &mut ExportContext<'_>,
) -> Result<()> {
    let mut files = Files::default();
    let (mut index, mut list) = (Vec::new(), Vec::new());
    for image in images {
        let shipment = Shipment::stored(context.store, &image.digest, &image.media_type)?;
        for blob in &shipment.freight {
            bring(blob, context)?;
            files.insert_blob(&blob.digest, Body::Blob(blob.digest));
        }
        for document in &shipment.documents {
            files.insert_blob(&document.digest, Body::Blob(document.digest));
        }
        index.extend(entries(image));
        list.push(list_entry(image, context.store)?);
    }
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": index,
    });
    let index = index.to_string().into_bytes();
    limits::check_document("index of the archive", index.len())?;
    files.insert("index.json", index);
    let list = Value::Array(list).to_string().into_bytes();
    limits::check_document("list of the archive", list.len())?;
    files.insert("manifest.json", list);
    files.insert("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    archive::write(&files, dest, context)
}

/// Fetches a blob unless the store has it.
fn bring(blob: &PushBlob, context: &ExportContext<'_>) -> Result<()> {
    let content = context.store.content();
    if content.hold(&blob.digest)? && content.size(&blob.digest)?.is_some() {
        return Ok(());
    }
    let name = blob.digest.to_string();
    let mut problem = kiln_store::Error::Missing { what: "blob", name: name.clone() }.into();
    for origin in context.store.layers().origins(&blob.digest)? {
        let far = LayerBlob {
            media_type: blob.media_type.clone(),
            digest: blob.digest,
            size: blob.size,
            origin: Some(origin),
        };
        match context.fetcher.fetch(&far) {
            Ok(()) => return Ok(()),
            Err(error) => problem = error.into(),
        }
    }
    Err(problem)
}

/// Returns the index entries of an image: one per name.
fn entries(image: &SavedImage) -> Vec<Value> {
    let entry = |annotations: Option<Value>| {
        let mut entry = json!({
            "mediaType": image.media_type,
            "digest": image.digest,
            "size": image.size,
        });
        if let Some(annotations) = annotations {
            entry["annotations"] = annotations;
        }
        entry
    };
    if image.names.is_empty() {
        return vec![entry(None)];
    }
    let named = |name: &Reference| {
        let mut annotations = json!({ "io.containerd.image.name": name.to_string() });
        if let Some(tag) = name.tag() {
            annotations["org.opencontainers.image.ref.name"] = tag.into();
        }
        entry(Some(annotations))
    };
    image.names.iter().map(named).collect()
}

/// Returns the image's entry in `manifest.json`, which older engines read.
fn list_entry(image: &SavedImage, store: &Store) -> Result<Value> {
    let bytes = store.content().read(&image.manifest, MANIFEST)?;
    let invalid = |problem: String| Error::Config(format!("{}: {problem}", image.manifest));
    let manifest = ImageManifest::parse(&bytes).map_err(|error| invalid(error.to_string()))?;
    let path = |blob: &Descriptor| {
        let path = blob.digest().map(|digest| blob_path(&digest));
        path.map_err(|error| invalid(error.to_string()))
    };
    let tags: Vec<String> = image.names.iter().filter_map(docker::tag).collect();
    Ok(json!({
        "Config": path(&manifest.config)?,
        "RepoTags": if tags.is_empty() { Value::Null } else { tags.into() },
        "Layers": manifest.layers.iter().map(path).collect::<Result<Vec<_>>>()?,
    }))
}
