//! Images in the store.

use kiln_oci::Reference;
use kiln_store::ImageRow;

use crate::assemble::Assembled;
use crate::error::Result;
use crate::export::ExportContext;

/// Stores the documents (the layers are there already) and gives the whole its names.
pub(crate) fn store(
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
    for name in names {
        context.store.images().put(&row(Some(name.to_string())))?;
    }
    Ok(())
}
