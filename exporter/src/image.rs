//! Images in the store.

use kiln_oci::{Platform, Reference};
use kiln_store::ImageRow;

use crate::assemble::Assembled;
use crate::error::Result;
use crate::export::{ExportContext, ExportRequest};
use crate::registry;
use crate::spec::Output;

/// Stores an image under its names. Unpacks and pushes it if the output requests that.
pub(crate) fn write(
    assembled: &Assembled,
    output: &Output,
    request: &ExportRequest,
    now: i64,
    context: &ExportContext<'_>,
) -> Result<()> {
    let digest = assembled.top()?.descriptor.digest;
    let mut names = output.naming.names(&output.names, digest);
    names.extend(output.naming.stored(&names, digest));
    store(assembled, &names, now, context)?;
    for name in &names {
        context.progress.status(&format!("naming to {name}"), 0, None, true);
    }
    if output.unpack {
        unpack(request, context)?;
    }
    if output.push { registry::write(assembled, output, context) } else { Ok(()) }
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

/// Stores the documents and the names of an image. The store has the layers already.
fn store(
    assembled: &Assembled,
    names: &[Reference],
    now: i64,
    context: &ExportContext<'_>,
) -> Result<()> {
    let content = context.store.content();
    for image in &assembled.images {
        content.put(&image.config.bytes)?;
        content.put(&image.manifest.bytes)?;
    }
    for said in &assembled.attestations {
        for document in said.blobs().chain([&said.manifest]) {
            content.put(&document.bytes)?;
        }
    }
    if let Some(index) = &assembled.index {
        content.put(&index.bytes)?;
    }
    let top = &assembled.top()?.descriptor;
    let row = |name: Option<String>| ImageRow {
        name,
        media_type: top.media_type.to_owned(),
        digest: top.digest,
        size: top.size,
        created_at: now,
    };
    if names.is_empty() {
        return Ok(context.store.images().put(&row(None))?);
    }
    let rows: Vec<_> = names.iter().map(|name| row(Some(name.to_string()))).collect();
    context.store.images().put_all(&rows)?;
    Ok(())
}
