//! `type=image`: images in the store, in registries, or both.

use kiln_oci::Platform;
use kiln_store::ImageRow;

use super::keys::{Checked, Keys};
use super::{Export, Exporter, Output, OutputForm, OutputKind, options, registry};
use crate::error::Result;
use crate::export::{ExportContext, ExportRequest};

/// An image that is stored, and pushed if [`Output::push`] says so.
#[derive(Debug)]
pub(super) struct Image {
    /// `false` for an image that is pushed only.
    pub(super) is_stored: bool,
}

/// Reads the keys of `type=image`.
pub(super) fn parse(keys: &mut Keys) -> Checked<Output> {
    let mut output = options::image(keys, Image { is_stored: true })?;
    output.push = keys.switch("push")? == Some(true);
    if keys.switch("store")? == Some(false) {
        if !output.push {
            return Err("store=false without push=true goes nowhere".to_owned());
        }
        output.set_exporter(Image { is_stored: false });
    }
    options::repository(keys, &mut output)?;
    Ok(output)
}

impl Output {
    /// Creates an image in the store with default options.
    pub fn image() -> Self {
        Self::new(Image { is_stored: true })
    }

    /// Changes the destination of the image to the store. The options stay.
    pub fn keep_in_store(&mut self) {
        self.set_exporter(Image { is_stored: true });
    }
}

impl Exporter for Image {
    fn form(&self) -> OutputForm {
        let kind = if self.is_stored { OutputKind::Stored } else { OutputKind::Pushed };
        OutputForm::of(kind)
    }

    fn write(&self, export: &mut Export<'_>, context: &mut ExportContext<'_>) -> Result<()> {
        if self.is_stored {
            store(export, context)?;
        }
        if export.output.push { registry::upload(export, context) } else { Ok(()) }
    }
}

/// Stores the documents and the names of an image, and unpacks it if the output requests that. The
/// store has the layers already.
fn store(export: &Export<'_>, context: &ExportContext<'_>) -> Result<()> {
    let Export { assembled, output, .. } = *export;
    let top = assembled.top()?;
    let mut names = output.naming.names(&output.names, top.digest);
    names.extend(output.naming.stored(&names, top.digest));
    for document in assembled.documents() {
        context.store.content().put(&document.bytes)?;
    }
    let row = |name: Option<String>| ImageRow {
        name,
        media_type: top.descriptor.media_type.clone(),
        digest: top.digest,
        size: top.descriptor.size,
        created_at: export.now,
    };
    if names.is_empty() {
        context.store.images().put(&row(None))?;
    } else {
        let rows: Vec<_> = names.iter().map(|name| row(Some(name.to_string()))).collect();
        context.store.images().put_all(&rows)?;
    }
    for name in &names {
        context.progress.status(&format!("naming to {name}"), 0, None, true);
    }
    if output.unpack { unpack(export.request, context) } else { Ok(()) }
}

/// Unpacks the layers of the images that can run on this machine.
fn unpack(request: &ExportRequest, context: &ExportContext<'_>) -> Result<()> {
    let host = Platform::host();
    for image in &request.images {
        let Some(layer) = &image.layer else { continue };
        if !kiln_registry::platform::runs(&host, &image.platform) {
            continue;
        }
        let name = format!("unpacking {}", image.platform);
        context.progress.status(&name, 0, None, false);
        context.fetcher.unpack(layer)?;
        context.progress.status(&name, 0, None, true);
    }
    Ok(())
}
