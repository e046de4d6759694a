//! OCI image layouts in a tar or a directory. (OCI image specification, "Image Layout".)

use std::fs;
use std::io::Write;
use std::path::Path;

use kiln_oci::{Descriptor, Reference};

use crate::archive::{Body, Files};
use crate::assemble::{self, Assembled};
use crate::destination::NewFile;
use crate::error::{Error, Result};
use crate::export::ExportContext;

/// The annotation with the full name, which containerd reads.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with the image's creation time.
const CREATED: &str = "org.opencontainers.image.created";
/// The annotation with the name in the layout. Tools expect a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Returns the files of a layout that contains the images under these names.
pub(crate) fn layout(assembled: &Assembled, names: &[Reference]) -> Result<Files> {
    let mut files = Files::default();
    for image in &assembled.images {
        for layer in &image.layers {
            files.insert_blob(&layer.digest, Body::Blob(layer.digest));
        }
    }
    for document in assembled.documents() {
        files.insert_blob(&document.digest, Body::Bytes(document.bytes.clone()));
    }
    let top = top(assembled)?;
    let mut manifests: Vec<Descriptor> = names.iter().map(|name| named(&top, name)).collect();
    if manifests.is_empty() {
        manifests.push(top);
    }
    files.insert("index.json", assemble::archive_index(manifests)?);
    files.insert("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    Ok(files)
}

/// Returns the descriptor of the index or only manifest for archives. It includes the creation
/// time: the epoch or the image config's time rather than the current time, so that the same image
/// has the same archive.
pub(crate) fn top(assembled: &Assembled) -> Result<Descriptor> {
    let mut top = assembled.top()?.descriptor.clone();
    if let Some(created) = assembled.images.first().and_then(|image| image.dated.clone()) {
        top.annotations.entry(CREATED.to_owned()).or_insert(created);
    }
    Ok(top)
}

fn named(top: &Descriptor, name: &Reference) -> Descriptor {
    let mut descriptor = top.clone();
    descriptor.annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
    if let Some(tag) = name.tag() {
        descriptor.annotations.insert(REF_NAME.to_owned(), tag.to_owned());
    }
    descriptor
}

/// Writes a layout to a directory. The index comes last, so that a reader never misses a blob that
/// it names.
pub(crate) fn write_directory(
    files: &Files,
    dest: &Path,
    context: &ExportContext<'_>,
) -> Result<()> {
    let blobs = dest.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(Error::io("create", &blobs))?;
    let (late, early): (Vec<_>, Vec<_>) = files.iter().partition(|(path, _)| *path == "index.json");
    for (path, body) in early.into_iter().chain(late) {
        let path = dest.join(path);
        let mut new = NewFile::create(&path)?;
        match body {
            Body::Bytes(bytes) => new.file().write_all(bytes).map_err(Error::io("write", path))?,
            Body::Blob(digest) => {
                let mut blob = context.store.content().open(digest)?;
                std::io::copy(&mut blob, new.file()).map_err(Error::io("write", path))?;
            }
        }
        new.commit()?;
    }
    Ok(())
}
