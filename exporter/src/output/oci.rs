//! `type=oci`: OCI image layouts in a tar or a directory. (OCI image specification, "Image Layout".)

use kiln_oci::{Descriptor, Reference};

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options};
use crate::archive::{self, Body, Destination, Files};
use crate::assemble::{self, Assembled};
use crate::error::Result;
use crate::export::{ExportContext, reported};

/// The annotation with the full name, which containerd reads.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with the image's creation time.
const CREATED: &str = "org.opencontainers.image.created";
/// The annotation with the name in the layout. Tools expect a tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

#[derive(Debug)]
struct Oci {
    dest: Destination,
}

/// Reads the keys of `type=oci`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let dest = if keys.flag("tar")? == Some(false) {
        Destination::Directory(keys.directory()?)
    } else {
        keys.file()?
    };
    options::archive(keys, Oci { dest })
}

impl Exporter for Oci {
    fn form(&self) -> OutputForm {
        let is_directory = matches!(self.dest, Destination::Directory(_));
        OutputForm {
            destination: Some(self.dest.clone()),
            description: if is_directory { "an OCI layout" } else { "an OCI archive" },
            ..OutputForm::of(OutputKind::Archive)
        }
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        let files = layout(export.assembled, &export.output.names)?;
        let form =
            if matches!(self.dest, Destination::Directory(_)) { "layout" } else { "archive" };
        reported(&format!("writing oci {form}"), context, |context| {
            archive::write(&files, &self.dest, context)
        })
    }
}

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
