//! A chain of layers as one directory.

use kiln_store::LayerId;
use kiln_tree::Dir;

use crate::error::Result;
use crate::export::ExportContext;

/// Opens the files of an image as a container of it would see them. The overlay mount is attached
/// to no path and disappears when its descriptor is closed.
///
/// The lowest tree of a chain has no whiteouts, and is opened without an overlay.
///
/// # Errors
/// Fails if a layer can't be unpacked, or if the overlay can't be mounted.
pub fn open_files(layer: Option<&LayerId>, context: &ExportContext<'_>) -> Result<Dir> {
    let Some(layer) = layer else {
        return Ok(Dir::open(&context.store.temp_dir()?)?);
    };
    let layers = context.store.layers();
    if layers.chain(layer)?.iter().any(|layer| !layer.has_tree) {
        context.fetcher.unpack(layer)?;
    }
    layers.hold([layer])?;
    Ok(layers.view(Some(layer))?)
}
